//! createdomain and max_vcpus. All parameters are checked before anything is made.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU16, Ordering};

use armv7::cpu::CpuSet;
use armv7::pmu;

use super::reap::forget_abandoned;
use super::request::Request;
use super::{again, cpupool, exclusive};
use crate::abi::domctl as abi;
use crate::abi::domctl::CreateDomain;
use crate::call::{Outcome, Reply, must_pause};
use crate::domain::create;
use crate::domain::guest_map::Layout;
use crate::domain::{Domain, Life, Rights, Spec, guest_map, registry};
use crate::error::Errno;
use crate::grant::{DEFAULT_MAX_FRAMES, DEFAULT_MAX_MAPTRACK_FRAMES, Limits};
use crate::id::{DomId, MAX_SPIS, MAX_VCPUS, VcpuId};
use crate::mem::p2m::{P2mType, PoolLimit};
use crate::mem::{heap, memory};
use crate::options;
use crate::vcpu::{Vcpu, halt};

/// The size of the pool of stage-2 tables until the toolstack sets it, in pages.
const FIRST_POOL: u32 = 16;
/// The free bytes of the heap below which no domain or vCPU is made: small allocations on the way cannot fail.
const HEAP_OF_DOMAIN: usize = 128 << 10;
const _: () =
    assert!(size_of::<Domain>() + MAX_VCPUS as usize * size_of::<Vcpu>() < HEAP_OF_DOMAIN / 2);
/// The highest event port when the toolstack sets no limit.
const NO_PORT_LIMIT: u32 = i32::MAX as u32;

/// The id that was assigned last.
static ROVER: AtomicU16 = AtomicU16::new(0);

/// The checked parts of a [`CreateDomain`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Plan {
    max_vcpus: u8,
    nr_spis: u16,
    max_port: u32,
    grants: Limits,
    monitors: pmu::Access,
}

/// The highest limits of grant frames and of maptrack frames.
fn grant_limits() -> (u32, u32) {
    options::get().map_or(
        (DEFAULT_MAX_FRAMES, DEFAULT_MAX_MAPTRACK_FRAMES),
        |options| {
            (
                options.gnttab_max_frames,
                options.gnttab_max_maptrack_frames,
            )
        },
    )
}

/// Checks the parameters that do not depend on the machine's state.
fn check(config: &CreateDomain, (max_frames, max_maptrack): (u32, u32)) -> Result<Plan, Errno> {
    let arch = &config.arch;
    // There is no IOMMU.
    let refused = config.flags & !abi::CDF_VPMU != abi::CDF_HVM | abi::CDF_HAP
        || config.iommu_opts != 0
        || config.vmtrace_size != 0
        || config.grant_opts & !abi::GRANT_VERSION_MASK != 0
        || config.grant_opts & abi::GRANT_VERSION_MASK != crate::grant::VERSION
        || !matches!(arch.gic_version, abi::GIC_NATIVE | abi::GIC_V2)
        || arch.tee_type != abi::TEE_NONE
        || arch.nr_spis > MAX_SPIS.into();
    if refused {
        return Err(Errno::Inval);
    }
    let max_vcpus = u8::try_from(config.max_vcpus).map_err(|_| Errno::Inval)?;
    if max_vcpus == 0 || max_vcpus > MAX_VCPUS {
        return Err(Errno::Inval);
    }
    let frames = up_to(config.max_grant_frames, max_frames)?;
    let maptrack = up_to(config.max_maptrack_frames, max_maptrack)?;
    Ok(Plan {
        max_vcpus,
        nr_spis: arch.nr_spis.next_multiple_of(32) as u16,
        max_port: config.max_evtchn_port.min(NO_PORT_LIMIT),
        grants: Limits::new(frames, maptrack).ok_or(Errno::Inval)?,
        monitors: pmu::Access::wanted(config.flags & abi::CDF_VPMU != 0).ok_or(Errno::Inval)?,
    })
}

/// Returns `wanted`, or `limit` where `wanted` is negative. Fails above `limit`.
fn up_to(wanted: i32, limit: u32) -> Result<u32, Errno> {
    match u32::try_from(wanted) {
        Ok(wanted) if wanted <= limit => Ok(wanted),
        Ok(_) => Err(Errno::Inval),
        Err(_) => Ok(limit),
    }
}

/// Chooses a domain's id: `wanted` itself, or, when that is 0 or no domain's, the first free one after `rover`.
fn choose_id(wanted: u16, rover: u16, is_free: impl Fn(DomId) -> bool) -> Result<DomId, Errno> {
    let end = DomId::FIRST_RESERVED.0;
    if wanted > 0 && wanted < end {
        return if is_free(DomId(wanted)) {
            Ok(DomId(wanted))
        } else {
            Err(Errno::Exist)
        };
    }
    let after = rover.saturating_add(1)..end;
    after
        .chain(1..rover.min(end))
        .map(DomId)
        .find(|id| is_free(*id))
        .ok_or(Errno::NoMem)
}

/// Makes a domain, paused and without vCPUs.
pub fn create(request: &Request<'_>) -> Outcome {
    let mut config: CreateDomain = request.body()?;
    let Some(_exclusive) = exclusive() else {
        return again(request.args);
    };
    forget_abandoned();
    let is_free = |id| registry::get(id).is_none() && memory().account(id).is_none();
    let wanted = request.op.domain;
    let id = choose_id(wanted, ROVER.load(Ordering::Relaxed), is_free)?;
    let plan = check(&config, grant_limits())?;
    let pool = cpupool::for_domain(config.cpupool_id)?;
    let host = guest_map::host().ok_or(Errno::NoSys)?;
    let layout = Layout::new().ok_or(Errno::Inval)?;
    let spec = Spec {
        id,
        rights: Rights::GUEST,
        max_vcpus: plan.max_vcpus,
        nr_spis: plan.nr_spis,
        event_irq: guest_map::event_irq().ok_or(Errno::Inval)?,
        gic: layout.gic(),
        max_port: plan.max_port,
        grants: plan.grants,
        max_pages: 0,
        tables: PoolLimit::Pages(FIRST_POOL),
        monitors: plan.monitors,
        pool,
    };
    let domain = make(&spec, &layout)?;
    let mut state = domain.state.lock();
    state.pause_count = 1;
    state.handle = config.handle;
    drop(state);
    if id.0 != wanted {
        ROVER.store(id.0, Ordering::Relaxed);
    }
    config.arch.gic_version = abi::GIC_V2;
    config.arch.clock_frequency = host.clock_frequency;
    request.write_back_for(id, &config)
}

/// Makes a domain without memory. Nothing is left of it on failure. The caller has the exclusive right to change domains'
/// lives.
fn make(spec: &Spec, layout: &Layout) -> Result<Arc<Domain>, Errno> {
    let host = guest_map::host().ok_or(Errno::NoSys)?;
    check_heap()?;
    // The parts of a domain that failed are freed here, with its account.
    let domain = create::domain(spec).inspect_err(|_| {
        forget_abandoned();
    })?;
    if let Err(error) = furnish(&domain, layout, host) {
        registry::remove(spec.id);
        memory().close_account(spec.id);
        drop(domain);
        forget_abandoned();
        return Err(error);
    }
    Ok(domain)
}

/// Fails when the heap may be too small for what is to be made.
fn check_heap() -> Result<(), Errno> {
    heap::replenish();
    if armv7::heap::has_room(HEAP_OF_DOMAIN) {
        Ok(())
    } else {
        Err(Errno::NoMem)
    }
}

fn furnish(domain: &Domain, layout: &Layout, host: &guest_map::Host) -> Result<(), Errno> {
    crate::wallclock::publish(domain);
    let (gfn, count) = layout.cpu_frames(host).ok_or(Errno::Inval)?;
    domain
        .p2m
        .lock()
        .map(gfn, host.virtual_cpu, count, P2mType::GicV, u32::MAX)?;
    Ok(())
}

/// Makes a domain that the tree names, without vCPUs. The next id that is assigned is after its own.
pub fn begin(spec: &Spec, layout: &Layout) -> Result<Arc<Domain>, Errno> {
    let _exclusive = exclusive().ok_or(Errno::Busy)?;
    let domain = make(spec, layout)?;
    ROVER.fetch_max(spec.id.0, Ordering::Relaxed);
    Ok(domain)
}

/// Makes the next vCPU of a domain that the tree names, offline, which may run on the CPUs that `affinity` returns. Returns
/// true when it was the last one.
pub fn next_vcpu(domain: &Arc<Domain>, affinity: impl Fn(VcpuId) -> CpuSet) -> Result<bool, Errno> {
    let _exclusive = exclusive().ok_or(Errno::Busy)?;
    check_heap()?;
    create::next_vcpu(domain, affinity)
}

/// Makes all vCPUs of a domain, offline.
pub fn max_vcpus(request: &Request<'_>) -> Outcome {
    let domain: Arc<Domain> = request.other()?;
    let max: u32 = request.body()?;
    let Some(_exclusive) = exclusive() else {
        return again(request.args);
    };
    if max != u32::from(domain.max_vcpus) || domain.state.lock().life != Life::Alive {
        return Err(Errno::Inval);
    }
    if domain.vcpus().is_empty() {
        check_heap()?;
        while !create::next_vcpu(&domain, |_| CpuSet::ALL)? {
            if must_pause() {
                return again(request.args);
            }
        }
        let state = domain.state.lock();
        let paused = state.pause_count > 0;
        let down = state.shutdown.is_some();
        drop(state);
        for vcpu in domain.vcpus() {
            if paused {
                vcpu.halt(halt::PAUSED);
            }
            if down {
                vcpu.halt(halt::SHUTDOWN);
            }
        }
    }
    Ok(Reply::OK)
}

#[cfg(test)]
mod tests {
    use armv7::host::registers;

    use super::{CreateDomain, check, choose_id, pmu};
    use crate::error::Errno;
    use crate::id::DomId;

    const LIMITS: (u32, u32) = (64, 1024);

    /// Returns what Debian's libxl asks for.
    fn libxl() -> CreateDomain {
        CreateDomain {
            ssidref: 12,
            flags: 3,
            max_vcpus: 2,
            max_evtchn_port: 1023,
            max_grant_frames: 64,
            max_maptrack_frames: 1024,
            grant_opts: 1,
            ..CreateDomain::ZERO
        }
    }

    #[test]
    fn what_libxl_asks_for_is_accepted() {
        let plan = check(&libxl(), LIMITS).unwrap();
        assert_eq!((plan.max_vcpus, plan.nr_spis, plan.max_port), (2, 0, 1023));
        let defaults = CreateDomain {
            max_grant_frames: -1,
            max_maptrack_frames: -1,
            max_evtchn_port: u32::MAX,
            ..libxl()
        };
        let plan = check(&defaults, LIMITS).unwrap();
        assert_eq!(
            (plan.grants.max_frames(), plan.grants.max_maptrack_frames()),
            (64, 1024)
        );
        assert_eq!(plan.max_port, i32::MAX as u32);
    }

    #[test]
    fn everything_else_is_refused() {
        let mut wrong = vec![
            CreateDomain {
                iommu_opts: 1,
                ..libxl()
            },
            CreateDomain {
                max_vcpus: 0,
                ..libxl()
            },
            CreateDomain {
                max_vcpus: 9,
                ..libxl()
            },
            CreateDomain {
                max_vcpus: 257,
                ..libxl()
            },
            CreateDomain {
                max_grant_frames: 0,
                ..libxl()
            },
            CreateDomain {
                max_grant_frames: 65,
                ..libxl()
            },
            CreateDomain {
                max_maptrack_frames: 1025,
                ..libxl()
            },
            CreateDomain {
                grant_opts: 0,
                ..libxl()
            },
            CreateDomain {
                grant_opts: 2,
                ..libxl()
            },
            CreateDomain {
                grant_opts: 0x11,
                ..libxl()
            },
            CreateDomain {
                vmtrace_size: 4096,
                ..libxl()
            },
        ];
        wrong.extend(
            [0, 1, 2, 7, 11, 19, 35, 67, 130, 163, u32::MAX]
                .map(|flags| CreateDomain { flags, ..libxl() }),
        );
        let mut arch = libxl();
        arch.arch.gic_version = 2;
        wrong.push(arch);
        arch = libxl();
        arch.arch.nr_spis = 961;
        wrong.push(arch);
        arch = libxl();
        arch.arch.tee_type = 1;
        wrong.push(arch);
        for config in wrong {
            assert_eq!(
                check(&config, LIMITS).err(),
                Some(Errno::Inval),
                "{config:?}"
            );
        }
    }

    #[test]
    fn performance_monitors_are_given_when_asked_for_and_refused_where_there_are_none() {
        let monitors =
            |flags| check(&CreateDomain { flags, ..libxl() }, LIMITS).map(|plan| plan.monitors);
        for version in [0, 1, 0xF] {
            registers::set_monitors(version);
            assert_eq!(monitors(3), Ok(pmu::Access::Traps));
            assert_eq!(monitors(3 | 1 << 7), Err(Errno::Inval), "{version}");
        }
        registers::set_monitors(2);
        assert_eq!(monitors(3), Ok(pmu::Access::Traps));
        assert_eq!(monitors(3 | 1 << 7), Ok(pmu::Access::Native));
    }

    #[test]
    fn shared_interrupts_come_in_banks() {
        let mut config = libxl();
        config.arch.nr_spis = 33;
        assert_eq!(check(&config, LIMITS).map(|plan| plan.nr_spis), Ok(64));
    }

    #[test]
    fn ids_go_round_and_are_not_reused_at_once() {
        let none_taken = |_| true;
        assert_eq!(choose_id(0xFFFF, 0, none_taken), Ok(DomId(1)));
        assert_eq!(choose_id(0, 5, none_taken), Ok(DomId(6)));
        assert_eq!(choose_id(0xFFFF, 0x7FEF, none_taken), Ok(DomId(1)));
        assert_eq!(choose_id(0xFFFF, 5, |id| id.0 == 3), Ok(DomId(3)));
        assert_eq!(choose_id(0xFFFF, 5, |_| false), Err(Errno::NoMem));
    }

    #[test]
    fn a_given_id_is_taken_or_refused() {
        assert_eq!(choose_id(7, 100, |_| true), Ok(DomId(7)));
        assert_eq!(choose_id(7, 100, |_| false), Err(Errno::Exist));
        assert_eq!(choose_id(0x7FF0, 0, |_| true), Ok(DomId(1)));
    }
}
