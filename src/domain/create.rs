//! Makes a domain: its parts, then its vCPUs. When a step fails, the parts made before are dropped.

use alloc::sync::Arc;

use armv7::cpu::CpuSet;
use armv7::errata;
use armv7::guest::Identity;
use armv7::{heap, pmu};

use super::memory::shared_page;
use super::{Domain, Parts, Spec, registry};
use crate::cpu::flush;
use crate::emulate::psci;
use crate::error::Errno;
use crate::event::EventTable;
use crate::id::{IntId, VcpuId};
use crate::mem::memory;
use crate::mem::p2m::{P2m, Tlb};
use crate::sched::{self, UnitParams};
use crate::vcpu::{Timers, Vcpu};
use crate::vgic::Vgic;

/// Returns the TLB and barrier operations of this machine for stage 2.
fn tlb() -> Tlb {
    Tlb {
        flush: flush::by(errata::invalidation()),
        publish: || {
            armv7::barrier::dsb_ishst();
            armv7::barrier::isb();
        },
    }
}

/// Makes a domain without vCPUs and enters it into the registry.
pub fn domain(spec: &Spec) -> Result<Arc<Domain>, Errno> {
    domain_with(spec, tlb())
}

/// [`domain`] with `tlb` for its map.
pub(super) fn domain_with(spec: &Spec, tlb: Tlb) -> Result<Arc<Domain>, Errno> {
    if !memory().open_account(spec.id, spec.max_pages) {
        return Err(Errno::NoMem);
    }
    let made = parts(spec, tlb).and_then(|domain| {
        registry::insert(domain.clone()).map_err(|error| match error {
            registry::RegistryError::Exists => Errno::Exist,
            registry::RegistryError::NoMemory => Errno::NoMem,
        })?;
        Ok(domain)
    });
    if made.is_err() {
        memory().close_account(spec.id);
    }
    made
}

fn parts(spec: &Spec, tlb: Tlb) -> Result<Arc<Domain>, Errno> {
    let group = sched::Group::new(spec.pool).map_err(|_| Errno::NoMem)?;
    let p2m = P2m::new(memory(), tlb, spec.tables)?;
    let shared = shared_page(spec.id)?;
    let shared_info = shared.mfn();
    let events = EventTable::new(spec.id, spec.max_port, spec.max_vcpus, shared)?;
    let mut vgic = Vgic::new(spec.max_vcpus, spec.nr_spis).map_err(|_| Errno::Inval)?;
    vgic.route_hw(IntId::VIRTUAL_TIMER, IntId::VIRTUAL_TIMER)
        .map_err(|_| Errno::Inval)?;
    if spec.monitors == pmu::Access::Native {
        // The CPU that loads a vCPU puts its own interrupt behind it.
        vgic.route_hw(IntId::MONITORS, IntId::MONITORS)
            .map_err(|_| Errno::Inval)?;
    }
    let parts = Parts {
        p2m,
        events,
        vgic,
        group,
        shared_info,
    };
    let domain = Domain::new(spec, parts);
    while !domain.grow_grants(crate::grant::INITIAL_FRAMES.into())? {}
    heap::try_arc(domain).ok_or(Errno::NoMem)
}

/// Makes the next vCPU of a domain, offline. Returns true when it was the last one, and sets the domain's vCPUs then.
/// `affinity` returns the CPUs on which each may run. On failure all vCPUs made so far are removed. There is one caller at a
/// time.
pub fn next_vcpu(domain: &Arc<Domain>, affinity: impl Fn(VcpuId) -> CpuSet) -> Result<bool, Errno> {
    let mut made = core::mem::take(&mut domain.state.lock().unfinished);
    let all = usize::from(domain.max_vcpus);
    let next = made
        .try_reserve_exact(all.saturating_sub(made.len()))
        .map_err(|_| Errno::NoMem)
        .and_then(|()| {
            let id = VcpuId::new(made.len() as u32).ok_or(Errno::Inval)?;
            vcpu(domain, id, affinity(id))
        });
    match next {
        Ok(vcpu) => made.push(vcpu),
        Err(error) => {
            remove_vcpus(&made);
            return Err(error);
        }
    }
    let done = made.len() == all;
    if done {
        domain.set_vcpus(made);
    } else {
        domain.state.lock().unfinished = made;
    }
    Ok(done)
}

fn vcpu(domain: &Arc<Domain>, id: VcpuId, hard: CpuSet) -> Result<Arc<Vcpu>, Errno> {
    let unit = sched::lock().add(UnitParams {
        group: domain.group.id(),
        hard,
        soft: CpuSet::ALL,
    });
    let unit = unit.map_err(|_| Errno::NoMem)?;
    let made = Timers::new(unit).ok().and_then(|timers| {
        let identity = Identity {
            vttbr: domain.vttbr,
            vmpidr: psci::vmpidr(id),
            monitors: domain.monitors,
        };
        let vcpu = heap::try_arc(Vcpu::new(domain.id, id, unit, timers, identity));
        vcpu.filter(|vcpu| registry::insert_unit(unit, domain.clone(), vcpu.clone()).is_ok())
    });
    if made.is_none() && sched::lock().remove(unit).is_err() {
        log::error!(
            "{}: a vCPU that never ran cannot leave the scheduler",
            domain.id
        );
    }
    made.ok_or(Errno::NoMem)
}

/// Removes vCPUs that are halted and saved from the scheduler and the registry. Their timers end with them.
pub fn remove_vcpus(vcpus: &[Arc<Vcpu>]) {
    for vcpu in vcpus {
        if sched::lock().remove(vcpu.unit).is_err() {
            log::error!("{vcpu} is still scheduled");
            continue;
        }
        registry::remove_unit(vcpu.unit);
    }
}
