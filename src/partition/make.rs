//! Makes one domain that the tree names, piece by piece: at boot all at once, and again when it has ended.

use alloc::format;
use alloc::sync::Arc;

use armv7::addr::{Gfn, Mfn, ORDER_2M, PAGE_SHIFT};
use armv7::cpu::CpuSet;
use armv7::pmu;

use super::layout::Piece;
use super::partial::Passed;
use super::plan::Plan;
use super::{channels, shared};
use crate::cmdline::Options;
use crate::control;
use crate::domain::guest_map::{self, Layout};
use crate::domain::shutdown::Reason;
use crate::domain::{Domain, Rights, Spec, uart};
use crate::error::Errno;
use crate::grant::Limits;
use crate::id::{DomId, VcpuId};
use crate::loader::Refused;
use crate::loader::copy::{Loading, Parts};
use crate::loader::kernel::KernelImage;
use crate::loader::place::Placement;
use crate::mem::frame_table::Kind;
use crate::mem::p2m::{P2mType, PoolLimit};
use crate::mem::{AllocError, memory};
use crate::passthrough::rule::Want;
use crate::passthrough::{self, Refusal};
use crate::platform::partitions::Ending;
use crate::platform::partitions::memory::STATIC;
use crate::platform::partitions::{Config, Enhanced};
use crate::platform::ranges::PhysRange;
use crate::sched::{self, PoolId};

/// Highest event port, as libxl has it for its domains.
const MAX_PORT: u32 = 1023;
/// Pages that one piece of the work zeroes.
const ZEROED_AT_ONCE: u32 = 8;

/// A domain that is ready to be started.
pub struct Built {
    /// The domain.
    pub domain: Arc<Domain>,
    /// Where its kernel, RAM disk and tree are.
    pub place: Placement,
}

/// Returns the limits of grant tables that the options say.
pub fn grant_limits(options: &Options) -> Result<Limits, Refused> {
    let (frames, maptrack) = (
        options.gnttab_max_frames,
        options.gnttab_max_maptrack_frames,
    );
    let limits = Limits::new(frames, maptrack);
    limits.ok_or_else(|| Refused("grant table limits out of range".into()))
}

/// Everything that a domain is made from.
pub struct Blueprint {
    /// Its id.
    pub id: DomId,
    /// The properties of its node.
    pub config: Config,
    /// Its kernel.
    pub image: KernelImage,
    /// Its memory, tree and devices.
    pub plan: Plan,
    /// The pool of CPUs that it runs in.
    pub pool: PoolId,
    /// Limits of its grant table.
    pub grants: Limits,
}

/// Makes a domain with everything but a start, as planned; nothing is left of one that cannot be made.
pub fn make(blueprint: &Blueprint) -> Result<Built, Refused> {
    let busy = || Refused("another domain is being made or destroyed".into());
    let mut making = Making::begin(blueprint)?.ok_or_else(busy)?;
    loop {
        match making.step(blueprint) {
            Ok(true) => return Ok(making.finish(blueprint)),
            Ok(false) => {}
            Err(why) => {
                control::undo(making.domain);
                return Err(why);
            }
        }
    }
}

/// A domain on the way, made in pieces. Whoever gives it up destroys the domain.
pub struct Making {
    /// The domain.
    pub domain: Arc<Domain>,
    stage: Stage,
}

/// The part that a domain gets next.
enum Stage {
    Vcpus,
    /// RAM from `at` on of this piece.
    Ram {
        piece: usize,
        at: u64,
    },
    Parts(Loading),
    Connections,
    /// Memory shared with others, from this page on of a region.
    Shared {
        region: usize,
        page: u32,
    },
    /// The device with this number.
    Device(usize),
}

impl Making {
    /// Creates the domain. Returns `None` while another one is being made or destroyed.
    pub fn begin(blueprint: &Blueprint) -> Result<Option<Self>, Refused> {
        check_memory(&blueprint.config, &blueprint.plan)?;
        check_affinities(&blueprint.config, blueprint.pool)?;
        let spec = spec(blueprint)?;
        match control::begin(&spec, &blueprint.plan.layout) {
            Ok(domain) => Ok(Some(Self {
                domain,
                stage: Stage::Vcpus,
            })),
            Err(Errno::Busy) => Ok(None),
            Err(error) => Err(not_created(error)),
        }
    }

    /// Does the next piece. Returns true when the domain has all but its start.
    pub fn step(&mut self, blueprint: &Blueprint) -> Result<bool, Refused> {
        let Blueprint {
            config,
            image,
            plan,
            ..
        } = blueprint;
        let domain = &self.domain;
        match &mut self.stage {
            Stage::Vcpus => {
                if add_vcpu(domain, config)? {
                    self.stage = ram_of(plan, 0);
                }
            }
            Stage::Ram { piece, at } => {
                if let Some(part) = plan.pieces.get(*piece) {
                    *at += ram(domain, part, *at)?;
                    if *at >= part.guest.end() >> PAGE_SHIFT {
                        self.stage = ram_of(plan, *piece + 1);
                    }
                } else {
                    self.stage = Stage::Parts(Loading::default());
                }
            }
            Stage::Parts(loading) => {
                let parts = Parts {
                    kernel: &config.kernel,
                    image,
                    ramdisk: config.ramdisk.as_ref(),
                    tree: &plan.tree,
                };
                if loading.step(domain, &parts, &plan.place)? {
                    self.stage = Stage::Connections;
                }
            }
            Stage::Connections => {
                for end in &config.channels {
                    channels::open(domain, end)?;
                }
                connect(domain, config, &plan.layout)?;
                self.stage = Stage::Shared { region: 0, page: 0 };
            }
            Stage::Shared { region, page } => {
                if let Some(part) = config.shared.get(*region) {
                    *page += shared::map_some(domain, part, *page)?;
                    if *page >= part.pages() {
                        (*region, *page) = (*region + 1, 0);
                    }
                } else {
                    if config.direct_map || !config.shared.is_empty() {
                        domain.set_fixed();
                    }
                    self.stage = Stage::Device(0);
                }
            }
            Stage::Device(next) => {
                let Some(device) = plan.devices.get(*next) else {
                    return Ok(true);
                };
                pass(domain, device)?;
                *next += 1;
            }
        }
        Ok(false)
    }

    /// Returns the domain, of which nothing is missing.
    pub fn finish(self, blueprint: &Blueprint) -> Built {
        let endings = blueprint.config.restart_on.iter();
        let endings = endings.map(|ending| reason(*ending));
        self.domain.set_restart_on(endings);
        Built {
            domain: self.domain,
            place: blueprint.plan.place,
        }
    }
}

/// Returns the stage in which a domain gets a piece of its RAM.
fn ram_of(plan: &Plan, piece: usize) -> Stage {
    let part = plan.pieces.get(piece);
    let at = part.map_or(0, |part| part.guest.base() >> PAGE_SHIFT);
    Stage::Ram { piece, at }
}

/// Refuses vCPUs that no CPU of their domain's pool may run.
fn check_affinities(config: &Config, pool: PoolId) -> Result<(), Refused> {
    let cpus = sched::lock().pool(pool);
    let vcpus = config.affinities.iter().zip(0..config.vcpus);
    for (affinity, vcpu) in vcpus {
        if affinity.and(cpus).is_empty() {
            let why = format!("hard-affinity: no CPU of vCPU {vcpu} is in its pool");
            return Err(Refused(why));
        }
    }
    Ok(())
}

/// Refuses what there is no memory for before any is zeroed.
fn check_memory(config: &Config, plan: &Plan) -> Result<(), Refused> {
    let free = memory().guest_pages();
    let pages = match config.static_memory.is_empty() {
        true => plan.pages,
        false => 0,
    };
    let need = pages.saturating_add(plan.tables);
    match need <= free {
        true => Ok(()),
        false => Err(Refused(format!(
            "memory: {} MiB and {} MiB of tables, {} MiB are free",
            pages >> 8,
            plan.tables >> 8,
            free >> 8
        ))),
    }
}

fn spec(blueprint: &Blueprint) -> Result<Spec, Refused> {
    let Blueprint { config, plan, .. } = blueprint;
    Ok(Spec {
        id: blueprint.id,
        rights: Rights::GUEST,
        max_vcpus: config.vcpus,
        nr_spis: plan.spis,
        event_irq: guest_map::event_irq().ok_or_else(|| Refused("no event interrupt".into()))?,
        gic: plan.layout.gic(),
        max_port: MAX_PORT,
        grants: blueprint.grants,
        max_pages: plan.pages,
        tables: PoolLimit::Pages(plan.tables),
        pool: blueprint.pool,
        monitors: pmu::Access::wanted(config.monitors)
            .ok_or_else(|| Refused("vpmu: the processor has no monitors".into()))?,
    })
}

fn not_created(error: Errno) -> Refused {
    Refused(format!("it cannot be created: {error}"))
}

/// Makes the next vCPU of a domain. Returns true after the last one.
fn add_vcpu(domain: &Arc<Domain>, config: &Config) -> Result<bool, Refused> {
    let affinity = |vcpu: VcpuId| {
        let set = config.affinities.get(vcpu.index());
        set.copied().unwrap_or(CpuSet::ALL)
    };
    match control::next_vcpu(domain, affinity) {
        Ok(done) => Ok(done),
        Err(Errno::Busy) => Ok(false),
        Err(error) => Err(not_created(error)),
    }
}

/// Gives a domain some RAM, all zeroes, from guest frame `at` of a piece on. Returns its pages; none when a part of them was
/// zeroed, and the rest is to follow.
fn ram(domain: &Domain, piece: &Piece, at: u64) -> Result<u64, Refused> {
    let end = piece.guest.end() >> PAGE_SHIFT;
    match piece.host {
        Some(host) => {
            give_kept(domain, &piece.guest, &host)?;
            Ok(end - at)
        }
        None => extent(domain, at, end.saturating_sub(at)),
    }
}

/// Gives a domain RAM that was kept for it.
fn give_kept(domain: &Domain, guest: &PhysRange, host: &PhysRange) -> Result<(), Refused> {
    let (gfn, mfn) = (Gfn::new(guest.base() >> PAGE_SHIFT), host.start().frame());
    let count = (host.size() >> PAGE_SHIFT) as u32;
    let given = memory().alloc_kept(domain.id, mfn, count, Kind::Ram);
    let Some((gfn, ())) = gfn.zip(given.ok()) else {
        return Err(Refused(format!("{STATIC}: {host} is not free")));
    };
    map_ram(domain, gfn, mfn, count)
}

/// Gives a domain the largest piece of RAM that fits at guest frame `at`; returns its pages, at most `most`, or none when a
/// part of them was zeroed.
fn extent(domain: &Domain, at: u64, most: u64) -> Result<u64, Refused> {
    let fits = most.max(1).ilog2().min(at.trailing_zeros()).min(ORDER_2M);
    let short = |why: AllocError| Refused(format!("memory: {why:?} at guest frame {at:#x}"));
    let gfn = Gfn::new(at).ok_or_else(|| Refused("memory: beyond 40 bits".into()))?;
    let mut order = fits;
    let mfn = loop {
        match memory().alloc_domain_pages_by(domain.id, order, ZEROED_AT_ONCE) {
            Ok(mfn) => break mfn,
            Err(AllocError::Zeroing) => return Ok(0),
            Err(AllocError::NoMemory) if order > 0 => order -= 1,
            Err(error) => return Err(short(error)),
        }
    };
    let count = 1u32 << order;
    map_ram(domain, gfn, mfn, count)?;
    Ok(count.into())
}

/// Maps a domain's own frames. Those that cannot be mapped are freed.
fn map_ram(domain: &Domain, gfn: Gfn, mfn: Mfn, count: u32) -> Result<(), Refused> {
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
    Ok(())
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
fn connect(domain: &Domain, config: &Config, layout: &Layout) -> Result<(), Refused> {
    if config.uart {
        let opened = uart::open_on_console(domain, layout);
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

/// Returns the reason of a shutdown that is such an end.
fn reason(ending: Ending) -> Reason {
    match ending {
        Ending::Poweroff => Reason::Poweroff,
        Ending::Reboot => Reason::Reboot,
        Ending::Crash => Reason::Crash,
        Ending::Watchdog => Reason::Watchdog,
    }
}
