//! Making a domain of the boot when something runs out, at each step in turn: nothing is left of it, and the next one is made.
//!
//! One test, as it looks at the memory of the whole machine.

use armv7::addr::{Gfn, Mfn};
use armv7::frame::{page, with};
use armv7::host::frame::FIRST;
use armv7::host::heap::{fail_after, fail_no_more};
use krypton::cmdline::Options;
use krypton::control;
use krypton::domain::{audit, registry};
use krypton::id::DomId;
use krypton::loader::copy;
use krypton::mem::frame_table::Use;
use krypton::mem::memory;
use krypton::partition::make::{self, Blueprint, Built};
use krypton::partition::plan::{self, Machine};
use krypton::platform::modules::{Module, ModuleKind};
use krypton::platform::partitions::{Config, Enhanced};
use krypton::platform::ranges::PhysRange;
use krypton::sched::{self, PoolId};
use krypton::time;

#[path = "support/host_machine.rs"]
mod host_machine;

/// Frames of the machine (32 MiB).
const FRAMES: u32 = 8192;
/// Frames at its start with the modules.
const MODULES: u32 = 16;
/// The domain's RAM.
const RAM: u64 = 8 << 20;
const MACHINE: Machine<'_> = Machine {
    gic_lines: 64,
    clock_frequency: None,
    cpu: None,
    cpu_frequency: None,
    distributor: 0x800_0000,
    cpu_interface: 0x801_0000,
    console: None,
};

fn set_up() {
    let first = Mfn::new(FIRST.into()).unwrap();
    let memory = host_machine::set_up(FRAMES);
    memory.reserve(first, MODULES, Use::Module).unwrap();
    // Fills all frames with a pattern that a new page must not show.
    for n in MODULES..FRAMES {
        with(first.checked_add(n).unwrap(), |page| {
            page.write(0, &[0xA5; 4096])
        });
    }
}

/// Returns a module of `pages` pages behind `before` others; each page says its number.
fn module(kind: ModuleKind, before: u32, pages: u32) -> Module {
    let first = Mfn::new(FIRST.into()).unwrap().checked_add(before).unwrap();
    for n in 0..pages {
        let page = page(first.checked_add(n).unwrap()).unwrap();
        assert!(page.write(100, &(before + n).to_le_bytes()));
    }
    Module {
        kind,
        range: PhysRange::new(first.addr().raw(), u64::from(pages) << 12).unwrap(),
        bootargs: None,
        path: String::new(),
    }
}

fn config() -> Config {
    let kernel = module(ModuleKind::Kernel, 0, 4);
    let header = page(kernel.range.start().frame()).unwrap();
    // A zImage of four pages (Linux Documentation/arm/booting).
    for (at, word) in [(0x24, 0x016f_2818u32), (0x28, 0), (0x2C, 0x4000)] {
        assert!(header.write(at, &word.to_le_bytes()));
    }
    Config {
        uart: true,
        table_mib: Some(1),
        enhanced: Enhanced::Full,
        ramdisk: Some(module(ModuleKind::Ramdisk, 8, 2)),
        ..Config::new(RAM, 2, kernel)
    }
}

/// Makes the domain; the plan of it, which a boot cannot do without, is made before anything runs out.
fn make(config: &Config) -> Option<Built> {
    make_when(config, || ())
}

fn make_when(config: &Config, ready: impl Fn()) -> Option<Built> {
    let (options, _) = Options::parse("");
    let image = copy::kernel_of(&config.kernel).unwrap();
    let blueprint = Blueprint {
        id: DomId(1),
        config: config.clone(),
        plan: plan::plan(config, &image, &MACHINE, None).unwrap(),
        image,
        pool: PoolId::FIRST,
        grants: make::grant_limits(&options).unwrap(),
    };
    ready();
    make::make(&blueprint).ok()
}

/// State that must be the same before and after.
#[derive(PartialEq, Eq, Debug)]
struct State {
    domains: usize,
    accounts: usize,
    free: u32,
    units: usize,
    timers: usize,
    vmids: u32,
}

fn state() -> State {
    assert_eq!(audit::audit(), Ok(()));
    let scheduler = sched::lock();
    let units = scheduler.units(time::now()).count();
    drop(scheduler);
    State {
        domains: registry::all().count(),
        accounts: memory().accounts().count(),
        free: memory().free_pages(),
        units,
        timers: time::registered(),
        vmids: memory().vmids.in_use(),
    }
}

/// Ends a domain that was made, before the next one.
fn end(built: Built) {
    control::undo(built.domain);
}

/// Returns the word that the guest finds at an address of its own.
fn word_at(built: &Built, address: u64) -> u32 {
    let entry = built
        .domain
        .p2m
        .lock()
        .lookup(Gfn::new(address >> 12).unwrap());
    let mut bytes = [0; 4];
    let page = page(entry.unwrap().mfn).unwrap();
    assert!(page.read(address as usize & 0xFFF, &mut bytes));
    u32::from_le_bytes(bytes)
}

#[test]
fn a_domain_that_cannot_be_made_leaves_no_trace() {
    set_up();
    let config = config();
    let first = make(&config).unwrap();
    holds_its_parts(&first);
    end(first);
    let before = state();
    assert_eq!((before.domains, before.accounts), (0, 0));

    // The heap.
    let mut failures = 0;
    for count in 0..1000 {
        let made = make_when(&config, || fail_after(count, false));
        let enough = fail_no_more();
        let done = made.is_some();
        if let Some(built) = made {
            end(built);
        }
        assert_eq!(state(), before, "allocation {count} fails");
        failures = count;
        if done && enough {
            break;
        }
    }
    assert!(failures > 8, "only {failures} allocations");

    // Frames: what is left is too little for the tables, for the RAM, for what the hypervisor keeps.
    for left in [0, 1, 2, 100, 255, 257, 1024, 2000, 2303, 2304, 2306, 2310] {
        let taken: Vec<Mfn> = core::iter::from_fn(|| memory().alloc_hyp(0)).collect();
        for mfn in taken.iter().take(left) {
            memory().free_hyp(*mfn, 0);
        }
        if let Some(built) = make(&config) {
            end(built);
        }
        for mfn in taken.iter().skip(left) {
            memory().free_hyp(*mfn, 0);
        }
        assert_eq!(state(), before, "{left} frames are left");
    }

    // Tables, and VMIDs.
    let few = Config {
        table_mib: Some(0),
        ..config.clone()
    };
    assert!(make(&few).is_none());
    assert_eq!(state(), before);
    let vmids: Vec<u8> = core::iter::from_fn(|| memory().vmids.take()).collect();
    assert!(make(&config).is_none());
    vmids.into_iter().for_each(|vmid| memory().vmids.give(vmid));
    assert_eq!(state(), before);
    end(make(&config).unwrap());
    assert_eq!(state(), before);
}

/// RAM is zeroes but for the kernel, the tree and the RAM disk, and what the domain is to find is there.
fn holds_its_parts(built: &Built) {
    let params = built.domain.state.lock().params;
    assert_eq!((params.store_evtchn, params.store_pfn), (1, u64::MAX));
    assert_eq!(built.domain.vcpus().len(), 2);
    assert!(built.domain.uart().is_some());
    let base = 0x4000_0000;
    let mut found = Vec::new();
    for page in 0..RAM >> 12 {
        let at = base + (page << 12);
        let number = word_at(built, at + 100);
        if number != 0 {
            found.push(number);
        } else if word_at(built, at) != 0xEDFE_0DD0 {
            assert_eq!(word_at(built, at + 0x800), 0, "{at:#x}");
        }
    }
    // RAM disk and kernel by their pages' numbers, from low to high; the tree between them has a number of its own there.
    found.retain(|number| *number < 32);
    found.sort();
    assert_eq!(found, [1, 2, 3, 8, 9]);
}
