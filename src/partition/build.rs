//! Making the domains of a boot: memory, tree, kernel and RAM disk in place.
//!
//! A domain that cannot be made is named with the reason, and nothing of it is left; the others are made all the same.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use armv7::addr::PAGE_SHIFT;
use dt::{Blob, Tree};

use super::make::{Blueprint, Built, grant_limits, make};
use super::partial::Partial;
use super::plan::{self, Machine};
use super::pools::Pools;
use super::{channels, restart};
use crate::cmdline::Options;
use crate::domain::registry;
use crate::id::DomId;
use crate::loader::copy::{self};
use crate::loader::{Refused, place};
use crate::mem::frame_table::{State, Use};
use crate::mem::memory;
use crate::platform::console::UartInfo;
use crate::platform::host_dt::HostInfo;
use crate::platform::partitions::Config;
use crate::platform::partitions::channels::End;
use crate::platform::ranges::PhysRange;
use crate::platform::{BootError, tree};
use crate::sched::PoolId;

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
    /// The console's UART.
    pub console: Option<&'a UartInfo>,
    /// The pools of the tree.
    pub pools: &'a Pools,
}

/// Makes all domains that the tree names, each with the id of its place there, from 1 on.
pub fn build_all(host: &Host<'_>) -> Vec<Built> {
    let first_cpu = first_cpu(host.tree);
    let machine = Machine {
        gic_lines: host.gic_lines,
        clock_frequency: host.info.timer.frequency,
        cpu: first_cpu.and_then(|cpu| cpu.property("compatible")),
        cpu_frequency: first_cpu.and_then(|cpu| cpu.u32("clock-frequency")),
        distributor: host.info.gic.distributor.base(),
        cpu_interface: host.info.gic.cpu.base(),
        console: host.console.and_then(|uart| {
            let intid = u16::try_from(uart.interrupt?.intid).ok()?;
            Some((uart.reg, intid))
        }),
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
            domain(host, config, DomId(id), &machine).map_err(|why| why.to_string())
        });
        match made {
            Ok(domain) => built.push(domain),
            Err(why) => log::error!("BOOT: {path} is not started: {why}"),
        }
    }
    open_of_dom0(&host.info.dom0_channels);
    channels::connect(&host.info.dom0_channels);
    for partition in &host.info.partitions {
        let Ok(config) = &partition.config else {
            continue;
        };
        channels::connect(&config.channels);
    }
    host.info.kept_ram().iter().for_each(give_back);
    built
}

/// Frees RAM that was kept for a domain that could not be made.
fn give_back(range: &PhysRange) {
    let first = range.start().frame();
    if memory().state(first) == State::Used(Use::Domain) {
        memory().release(first, (range.size() >> PAGE_SHIFT) as u32);
    }
}

/// Opens dom0's ends of event channels.
fn open_of_dom0(ends: &[End]) {
    let Some(dom0) = registry::get(DomId::DOM0) else {
        return;
    };
    for end in ends {
        if let Err(why) = channels::open(&dom0, end) {
            log::error!("BOOT: {why}");
        }
    }
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
    host: &Host<'_>,
    config: &Config,
    id: DomId,
    machine: &Machine<'_>,
) -> Result<Built, Refused> {
    let image = copy::kernel_of(&config.kernel)?;
    let pool = match config.pool {
        None => Some(PoolId::FIRST),
        Some(place) => host.pools.get(place).copied().flatten(),
    };
    let pool = pool.ok_or_else(|| Refused("domain-cpupool: it is not made".into()))?;
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
    let grants = grant_limits(host.options)?;
    let blueprint = Blueprint {
        id,
        config: config.clone(),
        image,
        plan,
        pool,
        grants,
    };
    let built = make(&blueprint)?;
    if !blueprint.config.restart_on.is_empty() {
        restart::keep(&built.domain, blueprint);
    }
    Ok(built)
}
