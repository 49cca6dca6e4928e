//! Making the domains of a boot: memory, tree, kernel and RAM disk in place.
//!
//! A domain that cannot be made is named with the reason, and nothing of it is left; the others are made all the same.

use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use armv7::addr::{Gfn, ORDER_2M, PAGE_SHIFT};
use armv7::pmu;
use dt::{Blob, Tree};

use super::partial::{Partial, Passed};
use super::plan::{self, Machine, Plan};
use crate::cmdline::Options;
use crate::control;
use crate::domain::{Domain, Rights, Spec, guest_map, uart};
use crate::grant::Limits;
use crate::id::DomId;
use crate::loader::copy::{self, Parts};
use crate::loader::kernel::KernelImage;
use crate::loader::place::Placement;
use crate::loader::{Refused, place};
use crate::mem::p2m::{P2mType, PoolLimit};
use crate::mem::{AllocError, memory};
use crate::passthrough::rule::Want;
use crate::passthrough::{self, Refusal};
use crate::platform::host_dt::HostInfo;
use crate::platform::partitions::{Config, Enhanced};
use crate::platform::{BootError, tree};
use crate::sched::PoolId;

/// Highest event port, as libxl has it for its domains.
const MAX_PORT: u32 = 1023;
/// Most bytes of the part of a domain's tree that has devices.
const MOST_OF_PARTIAL: usize = 256 << 10;

/// The facts that boot has found.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// The machine.
    pub info: &'a HostInfo,
    /// Its device tree.
    pub tree: &'a Tree<'a>,
    /// Options.
    pub options: &'a Options,
    /// Interrupt ids of the GIC.
    pub gic_lines: u32,
}

/// A domain that is ready to be started.
pub struct Built {
    /// The domain.
    pub domain: Arc<Domain>,
    place: Placement,
}

/// Makes all domains that the tree names, each with the id of its place there, from 1 on.
pub fn build_all(host: &Host<'_>) -> Vec<Built> {
    let first_cpu = first_cpu(host.tree);
    let machine = Machine {
        gic_lines: host.gic_lines,
        clock_frequency: host.info.timer.frequency,
        cpu: first_cpu.and_then(|cpu| cpu.property("compatible")),
        cpu_frequency: first_cpu.and_then(|cpu| cpu.u32("clock-frequency")),
    };
    let mut built = Vec::new();
    for (partition, id) in host.info.partitions.iter().zip(1..DomId::FIRST_RESERVED.0) {
        let path = &partition.path;
        let config = partition.config.as_ref().map_err(|why| why.to_string());
        let made = config.and_then(|config| {
            log::info!(
                "*** LOADING DOMAIN {id} ({path}): {} vCPUs, {} MiB ***",
                config.vcpus,
                config.memory / place::MIB
            );
            domain(host.options, config, DomId(id), &machine).map_err(|why| why.to_string())
        });
        match made {
            Ok(domain) => built.push(domain),
            Err(why) => log::error!("BOOT: {path} is not started: {why}"),
        }
    }
    built
}

/// Lets domains run, all together.
pub fn start(built: &[Built]) {
    for Built { domain, place } in built {
        if let Err(why) = copy::start(domain, place) {
            log::error!("BOOT: {domain} is not started: {why}");
        }
    }
}

fn first_cpu<'a>(tree: &'a Tree<'a>) -> Option<dt::Node<'a>> {
    let cpus = tree.find("/cpus")?;
    let mut children = cpus.children();
    children.find(|node| node.is_type("cpu") || node.base_name() == "cpu")
}

fn domain(
    options: &Options,
    config: &Config,
    id: DomId,
    machine: &Machine<'_>,
) -> Result<Built, Refused> {
    let image = copy::kernel_of(&config.kernel)?;
    let plan = match &config.devices {
        None => plan::plan(config, &image, machine, None)?,
        Some(module) => {
            let bytes = copy::bytes_of(module, MOST_OF_PARTIAL)?;
            let wrong = |error: BootError| Refused(format!("{}: {error}", module.path));
            let blob = Blob::check(&bytes).map_err(|error| wrong(error.into()))?;
            let mut entries = tree::entries(&blob).map_err(wrong)?;
            let partial = Partial {
                tree: &tree::read(blob, &mut entries).map_err(wrong)?,
                size: bytes.len(),
            };
            plan::plan(config, &image, machine, Some(partial))?
        }
    };
    make(options, config, id, &image, plan)
}

/// Makes a domain with everything but a start, as planned; nothing is left of one that cannot be made.
pub fn make(
    options: &Options,
    config: &Config,
    id: DomId,
    image: &KernelImage,
    plan: Plan,
) -> Result<Built, Refused> {
    check_memory(&plan)?;
    let domain = create(options, config, id, &plan)?;
    let parts = Parts {
        kernel: &config.kernel,
        image,
        ramdisk: config.ramdisk.as_ref(),
        tree: &plan.tree,
    };
    let filled = populate(&domain, &plan)
        .and_then(|()| copy::load(&domain, &parts, &plan.place))
        .and_then(|()| connect(&domain, config))
        .and_then(|()| {
            plan.devices
                .iter()
                .try_for_each(|device| pass(&domain, device))
        });
    match filled {
        Ok(()) => Ok(Built {
            domain,
            place: plan.place,
        }),
        Err(why) => {
            control::undo(domain);
            Err(why)
        }
    }
}

/// Refuses what there is no memory for before any is zeroed.
fn check_memory(plan: &Plan) -> Result<(), Refused> {
    let free = memory().guest_pages();
    let need = plan.pages.saturating_add(plan.tables);
    match need <= free {
        true => Ok(()),
        false => Err(Refused(format!(
            "memory: {} MiB and {} MiB of tables, {} MiB are free",
            plan.pages >> 8,
            plan.tables >> 8,
            free >> 8
        ))),
    }
}

fn create(
    options: &Options,
    config: &Config,
    id: DomId,
    plan: &Plan,
) -> Result<Arc<Domain>, Refused> {
    let grants = Limits::new(
        options.gnttab_max_frames,
        options.gnttab_max_maptrack_frames,
    );
    control::at_boot(&Spec {
        id,
        rights: Rights::GUEST,
        max_vcpus: config.vcpus,
        nr_spis: plan.spis,
        event_irq: guest_map::event_irq().ok_or_else(|| Refused("no event interrupt".into()))?,
        gic: guest_map::gic(),
        max_port: MAX_PORT,
        grants: grants.ok_or_else(|| Refused("grant table limits out of range".into()))?,
        max_pages: plan.pages,
        tables: PoolLimit::Pages(plan.tables),
        pool: PoolId::FIRST,
        monitors: pmu::Access::Traps,
    })
    .map_err(|error| Refused(format!("it cannot be created: {error}")))
}

/// Gives a domain its RAM, all zeroes.
fn populate(domain: &Domain, plan: &Plan) -> Result<(), Refused> {
    for bank in &plan.banks {
        let mut at = bank.base() >> PAGE_SHIFT;
        let end = bank.end() >> PAGE_SHIFT;
        while at < end {
            at += extent(domain, at, end - at)?;
        }
    }
    Ok(())
}

/// Gives a domain the largest piece of RAM that fits at guest frame `at`; returns its pages, at most `most`.
fn extent(domain: &Domain, at: u64, most: u64) -> Result<u64, Refused> {
    let fits = most.ilog2().min(at.trailing_zeros()).min(ORDER_2M);
    let short = |why: AllocError| Refused(format!("memory: {why:?} at guest frame {at:#x}"));
    let gfn = Gfn::new(at).ok_or_else(|| Refused("memory: beyond 40 bits".into()))?;
    let mut order = fits;
    let mfn = loop {
        match memory().alloc_domain_pages(domain.id, order) {
            Ok(mfn) => break mfn,
            Err(AllocError::NoMemory) if order > 0 => order -= 1,
            Err(error) => return Err(short(error)),
        }
    };
    let count = 1u32 << order;
    let mapped = domain
        .p2m
        .lock()
        .map(gfn, mfn, count, P2mType::RamRw, u32::MAX);
    // Frames that are not in the map would be lost when the domain is undone.
    let done = mapped.as_ref().map_or(0, |done| *done);
    if done != count {
        if let Some(rest) = mfn.checked_add(done) {
            memory().put_run(rest, count - done);
        }
        let limit = "xen,domain-p2m-mem-mb";
        return Err(Refused(format!(
            "{limit}: its memory map needs more tables"
        )));
    }
    Ok(count.into())
}

/// Gives a domain a device of the machine.
fn pass(domain: &Domain, device: &Passed) -> Result<(), Refused> {
    let node = &device.node;
    let refused = |refusal: Refusal| Refused(format!("{node}: {refusal}"));
    let word = device.word;
    if let Some(path) = &device.host {
        passthrough::claim(domain, &Want::Node(path), word).map_err(refused)?;
        for intid in passthrough::lines_of(path) {
            passthrough::claim(domain, &Want::Line(intid), word).map_err(refused)?;
            passthrough::route(domain, intid).map_err(refused)?;
            log::info!("{domain}: interrupt {intid} for {node}");
        }
    }
    for (from, to) in &device.pages {
        passthrough::claim(domain, &Want::Pages(*from), word).map_err(refused)?;
        let gfn = Gfn::new(to.base() >> PAGE_SHIFT);
        let gfn = gfn.ok_or_else(|| Refused(format!("{node}: beyond 40 bits")))?;
        passthrough::map(domain, gfn, from).map_err(refused)?;
        log::info!("{domain}: {from} at {:#x} for {node}", to.base());
    }
    Ok(())
}

/// Connects a domain to the console, and to dom0's xenstore if it is told of that: Linux waits for an event on the port until
/// dom0's `init-dom0less` has given it the page (the parameter is all ones until then).
fn connect(domain: &Domain, config: &Config) -> Result<(), Refused> {
    if config.uart {
        let opened = uart::open_on_console(domain);
        opened.map_err(|error| Refused(format!("vpl011: {error}")))?;
    }
    if config.enhanced == Enhanced::Full {
        let port = domain.events.lock().alloc_unbound(DomId::DOM0);
        let port = port.map_err(|_| Refused("no event channel for xenstore".into()))?;
        let params = &mut domain.state.lock().params;
        params.store_evtchn = port.0.into();
        params.store_pfn = u64::MAX;
    }
    Ok(())
}
