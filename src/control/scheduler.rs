//! Weight and cap of a domain, affinity of its vCPUs, and the scheduler's rate limit.
//!
//! Each vCPU of a domain has its weight. All of them together have its cap.

use armv7::cpu::CpuSet;

use super::{bitmap, cpupool};
use crate::abi::domctl::{self, SCHEDULER_CREDIT2, VcpuAffinity};
use crate::abi::sysctl;
use crate::call::Caller;
use crate::cpu;
use crate::domain::Domain;
use crate::error::Errno;
use crate::id::VcpuId;
use crate::sched::{self, SchedError};
use crate::time;
use crate::vcpu::Vcpu;

impl From<SchedError> for Errno {
    fn from(error: SchedError) -> Self {
        match error {
            SchedError::NoMemory | SchedError::NoId => Self::NoMem,
            SchedError::NoUnit | SchedError::NoGroup => Self::Srch,
            SchedError::ZeroWeight | SchedError::EmptyAffinity => Self::Inval,
            SchedError::Busy => Self::Busy,
        }
    }
}

/// Parameters of the scheduler of one pool.
pub fn of_pool(op: &mut sysctl::SchedulerOp) -> Result<(), Errno> {
    if !matches!(op.cmd, sysctl::SCHEDOP_PUTINFO | sysctl::SCHEDOP_GETINFO) {
        return Err(Errno::Inval);
    }
    let pool = cpupool::for_domain(op.cpupool_id).map_err(|_| Errno::Srch)?;
    if op.sched_id != cpupool::scheduler_of(pool) {
        return Err(Errno::Inval);
    }
    // The null scheduler has no parameters.
    if op.sched_id != SCHEDULER_CREDIT2 {
        return Ok(());
    }
    if op.cmd == sysctl::SCHEDOP_PUTINFO {
        if !is_ratelimit(op.ratelimit_us) {
            return Err(Errno::Inval);
        }
        sched::lock().set_ratelimit(pool, op.ratelimit_us);
    }
    op.ratelimit_us = sched::lock().ratelimit(pool);
    Ok(())
}

/// Returns whether a rate limit is off or in range.
const fn is_ratelimit(us: u32) -> bool {
    us == 0 || us >= sysctl::RATELIMIT_MIN && us <= sysctl::RATELIMIT_MAX
}

/// Parameters of one domain.
pub fn of_domain(domain: &Domain, op: &mut domctl::SchedulerOp) -> Result<(), Errno> {
    let pool = sched::lock().pool_of(domain.group.id());
    if pool.map(cpupool::scheduler_of) != Some(op.sched_id) {
        return Err(Errno::Inval);
    }
    if op.sched_id != SCHEDULER_CREDIT2 {
        return Ok(());
    }
    match op.cmd {
        domctl::SCHEDOP_GETINFO => {
            let share = sched::lock().share(domain.group.id());
            (op.weight, op.cap) = share.ok_or(Errno::Srch)?;
            Ok(())
        }
        domctl::SCHEDOP_PUTINFO => {
            let group = domain.group.id();
            let mut scheduler = sched::lock();
            if op.weight != 0 {
                scheduler.set_weight(group, op.weight)?;
            }
            if usize::from(op.cap) > 100 * domain.vcpus().len() {
                return Err(Errno::Inval);
            }
            let kick = scheduler.set_cap(group, op.cap, time::now())?;
            drop(scheduler);
            cpu::repick_all(kick);
            Ok(())
        }
        // These are for schedulers with deadlines.
        _ => Err(Errno::Inval),
    }
}

/// Returns the vCPU that a domctl names.
pub fn named(domain: &Domain, vcpu: u32) -> Result<&Vcpu, Errno> {
    let id = VcpuId::new(vcpu)
        .filter(|id| id.raw() < domain.max_vcpus)
        .ok_or(Errno::Inval)?;
    domain.vcpu(id).map(|vcpu| &**vcpu).ok_or(Errno::Srch)
}

/// Returns the parts of the affinity that an operation reads or sets.
fn parts(op: &VcpuAffinity) -> Result<(bool, bool), Errno> {
    let hard = op.flags & domctl::VCPUAFFINITY_HARD != 0;
    let soft = op.flags & domctl::VCPUAFFINITY_SOFT != 0;
    let missing = hard && op.hard.bitmap.is_null() || soft && op.soft.bitmap.is_null();
    if op.flags == 0 || missing {
        Err(Errno::Inval)
    } else {
        Ok((hard, soft))
    }
}

/// Handles getvcpuaffinity: writes the hard and soft affinity of a vCPU.
pub fn affinity(caller: &Caller<'_>, domain: &Domain, op: &VcpuAffinity) -> Result<(), Errno> {
    let vcpu = named(domain, op.vcpu)?;
    let (hard, soft) = parts(op)?;
    let (hard_now, soft_now) = sched::lock().affinity(vcpu.unit).ok_or(Errno::Srch)?;
    let existing = CpuSet::from_bits(((1u64 << cpupool::nr_cpus()) - 1) as u32);
    if hard {
        bitmap::write(caller, &op.hard, hard_now.and(existing).bits())?;
    }
    if soft {
        bitmap::write(caller, &op.soft, soft_now.and(existing).bits())?;
    }
    Ok(())
}

/// Handles setvcpuaffinity: sets the hard and soft affinity of a vCPU, and writes back those in effect.
pub fn set_affinity(caller: &Caller<'_>, domain: &Domain, op: &VcpuAffinity) -> Result<(), Errno> {
    let vcpu = named(domain, op.vcpu)?;
    let (hard, soft) = parts(op)?;
    let online = sched::lock().cpus_of(domain.group.id());
    let wanted_hard = if hard {
        let wanted = bitmap::read(caller, &op.hard)?;
        // An error of the hard affinity takes precedence over one of the soft affinity.
        if CpuSet::from_bits(wanted).and(online).is_empty() {
            return Err(Errno::Inval);
        }
        Some(wanted)
    } else {
        None
    };
    let wanted_soft = if soft {
        Some(bitmap::read(caller, &op.soft)?)
    } else {
        None
    };

    let now = time::now();
    let mut scheduler = sched::lock();
    let before = scheduler.affinity(vcpu.unit).ok_or(Errno::Srch)?;
    let after = combine(before, wanted_hard, wanted_soft, online)?;
    let kick = scheduler.set_affinity(vcpu.unit, after.0, after.1, now)?;
    drop(scheduler);
    if let Some(cpu) = kick {
        cpu::repick(cpu);
    }

    if hard {
        bitmap::write(caller, &op.hard, after.0.and(online).bits())?;
    }
    if soft {
        bitmap::write(caller, &op.soft, after.0.and(after.1).and(online).bits())?;
    }
    Ok(())
}

/// Returns the affinity after a change. A hard affinity needs a CPU of the domain's pool.
fn combine(
    (hard, soft): (CpuSet, CpuSet),
    wanted_hard: Option<u32>,
    wanted_soft: Option<u32>,
    online: CpuSet,
) -> Result<(CpuSet, CpuSet), Errno> {
    let hard = wanted_hard.map_or(hard, CpuSet::from_bits);
    let soft = wanted_soft.map_or(soft, CpuSet::from_bits);
    if wanted_hard.is_some() && hard.and(online).is_empty() || soft.is_empty() {
        return Err(Errno::Inval);
    }
    Ok((hard, soft))
}

#[cfg(test)]
mod tests {
    use super::{combine, is_ratelimit};
    use crate::error::Errno;
    use armv7::cpu::CpuSet;

    #[test]
    fn a_hard_affinity_needs_a_cpu_that_is_there() {
        let online = CpuSet::from_bits(3);
        let all = (CpuSet::ALL, CpuSet::ALL);
        assert_eq!(combine(all, Some(4), None, online), Err(Errno::Inval));
        assert_eq!(
            combine(all, Some(6), None, online),
            Ok((CpuSet::from_bits(6), CpuSet::ALL))
        );
        assert_eq!(combine(all, None, Some(0), online), Err(Errno::Inval));
        assert_eq!(
            combine(all, None, Some(8), online),
            Ok((CpuSet::ALL, CpuSet::from_bits(8)))
        );
    }

    #[test]
    fn rate_limits_are_off_or_in_range() {
        assert!(is_ratelimit(0) && is_ratelimit(100) && is_ratelimit(500_000));
        assert!(!is_ratelimit(99) && !is_ratelimit(500_001));
    }
}
