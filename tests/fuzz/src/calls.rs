//! Streams of hypercalls of three domains, two of them at once, and an audit behind them.
//!
//! On the host every pointer of a guest leads to its frame 0, at the pointer's offset in a page: what the bytes put there is
//! what the hypercall finds.

use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use armv7::addr::Gfn;
use armv7::cpu::CpuSet;
use armv7::frame::page;
use armv7::pmu::Access;
use krypton::call::{Args, Caller, Reply};
use krypton::domain::create;
use krypton::domain::{Domain, Rights, Spec, audit, guest_map, registry};
use krypton::grant::Limits;
use krypton::hypercall;
use krypton::id::{DomId, IntId};
use krypton::mem::p2m::{P2mType, PoolLimit};
use krypton::mem::{self};
use krypton::sched::PoolId;

use crate::input::Input;

// Formatted with those that it is shared with.
#[rustfmt::skip]
#[path = "../../support/host_machine.rs"]
mod host_machine;

/// Frames of the machine (64 MiB).
const FRAMES: u32 = 0x4000;
/// Pages that each domain has from the beginning, from frame 0 on.
const PAGES: u32 = 16;
/// Pages that each may have.
const MOST_PAGES: u32 = 256;
/// Most continuations of one call.
const PATIENCE: u32 = 10_000;

/// The domains: dom0, which keeps to what a guest may do, and two guests. They live as long as the process: what one input
/// leaves, the next one finds.
pub struct World {
    pub domains: [Arc<Domain>; 3],
    pub turn: Mutex<()>,
}

impl World {
    /// Gives each domain a page where its pointers lead, should what came before have taken it away.
    pub fn furnish(&self) {
        let gfn = Gfn::default();
        for domain in &self.domains {
            if domain.p2m.lock().lookup(gfn).is_some() {
                continue;
            }
            // Beyond its limit, should it have all pages elsewhere.
            assert!(mem::memory().set_limit(domain.id, MOST_PAGES + 1));
            let mfn = mem::memory().alloc_domain_pages(domain.id, 0).unwrap();
            assert!(mem::memory().set_limit(domain.id, MOST_PAGES));
            domain.p2m.lock().map(gfn, mfn, 1, P2mType::RamRw, 1).unwrap();
        }
    }
}

pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        host_machine::set_up(FRAMES);
        let domains =
            [(0, Rights::DOM0), (1, Rights::GUEST), (2, Rights::GUEST)].map(|(id, rights)| domain(DomId(id), rights));
        World { domains, turn: Mutex::new(()) }
    })
}

pub fn domain(id: DomId, rights: Rights) -> Arc<Domain> {
    let domain = create::domain(&Spec {
        id,
        rights,
        max_vcpus: 2,
        nr_spis: 32,
        event_irq: IntId::new(31).unwrap(),
        gic: guest_map::Layout::new().unwrap().gic(),
        max_port: 1023,
        grants: Limits::new(8, 4).unwrap(),
        max_pages: MOST_PAGES,
        tables: PoolLimit::Unlimited,
        pool: PoolId::FIRST,
        monitors: Access::Traps,
    })
    .unwrap();
    for _ in 0..2 {
        assert!(create::next_vcpu(&domain, |_| CpuSet::ALL).is_ok());
    }
    for number in 0..PAGES {
        let mfn = mem::memory().alloc_domain_pages(id, 0).unwrap();
        let gfn = Gfn::new(number.into()).unwrap();
        domain.p2m.lock().map(gfn, mfn, 1, P2mType::RamRw, 1).unwrap();
    }
    domain
}

const SCHED_OP: u32 = 29;
const SCHED_OP_COMPAT: u32 = 6;
const MULTICALL: u32 = 13;
const NUMBERS: [u32; 13] = [12, 20, 20, 32, 32, 17, 18, 24, 34, 33, 21, MULTICALL, SCHED_OP];
/// Numbers of domains, and of those who are none.
const DOMAINS: [u16; 8] = [0, 1, 2, 0x7ff0, 0x7ff1, 0x7ff4, 3, 0xffff];

/// Makes the calls that the bytes ask a domain's vCPU to make.
fn stream(domain: &Arc<Domain>, vcpu: usize, data: &[u8]) {
    let mut input = Input::new(data);
    let caller = Caller { domain, vcpu: &domain.vcpus()[vcpu] };
    while !input.is_empty() {
        let kind = input.byte();
        if kind >= 128 {
            put(domain, &mut input);
            continue;
        }
        let number = NUMBERS[usize::from(kind) % NUMBERS.len()];
        let args = [input.number(), input.number() & 0xfff, input.number(), input.number(), 0];
        // Leaves out calls that stop this thread or end the domain: a list of dom0's with an argument beyond 32 bits is the end
        // of the machine.
        let ends = match number {
            SCHED_OP | SCHED_OP_COMPAT => matches!(args[0], 1..=4),
            MULTICALL => domain.id == DomId::DOM0,
            _ => false,
        };
        if ends {
            continue;
        }
        // Long lists are for the tests of continuations.
        let count = if number == MULTICALL { args[1] % 32 } else { args[2] % 600 };
        let mut args = match number {
            MULTICALL => Args([args[2] & 0xfff, count, 0, 0, 0]),
            _ => Args([args[0], args[1], count, args[3], 0]),
        };
        for _ in 0..PATIENCE {
            match hypercall::call(&caller, number, &args) {
                Ok(Reply::Again(next)) => args = next,
                _ => break,
            }
        }
    }
}

/// Writes words into the page that pointers lead to: frames, references, domains, or anything.
fn put(domain: &Domain, input: &mut Input<'_>) {
    let Some(entry) = domain.p2m.lock().lookup(Gfn::new(0).unwrap()) else { return };
    let Some(page) = page(entry.mfn) else { return };
    let at = usize::from(input.byte()) * 4;
    for n in 0..usize::from(input.byte() % 10) {
        let value = match input.byte() % 4 {
            0 => u32::from(DOMAINS[usize::from(input.byte()) % 8]),
            1 => u32::from(input.byte() % 24),
            _ => input.number(),
        };
        let place = (at + n * 4) % 4096;
        if let Some(word) = page.u32_at(place) {
            word.store(value, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

/// Streams of hypercalls.
pub fn calls(data: &[u8]) {
    let world = world();
    let _turn = world.turn.lock().unwrap_or_else(|poison| poison.into_inner());
    world.furnish();
    let (here, there) = data.split_at(data.len() / 2);
    let (third, rest) = here.split_at(here.len() / 3);
    thread::scope(|scope| {
        // One guest's second vCPU against everybody else.
        scope.spawn(|| stream(&world.domains[1], 1, there));
        stream(&world.domains[0], 0, third);
        let (first, second) = rest.split_at(rest.len() / 2);
        stream(&world.domains[1], 0, first);
        stream(&world.domains[2], 0, second);
    });
    assert_eq!(audit::audit(), Ok(()));
    assert_eq!(registry::all().count(), world.domains.len());
}
