//! CPU pools: there is pool 0, and CPUs that were taken out of it and are free.

use core::sync::atomic::{AtomicU32, Ordering};

use armv7::cpu::{CpuId, CpuSet};

use super::{bitmap, info};
use crate::abi::domctl::SCHEDULER_CREDIT2;
use crate::abi::sysctl::{self as abi, CpupoolOp};
use crate::call::{Caller, target};
use crate::domain::{registry, run};
use crate::error::Errno;

/// The only pool.
pub const POOL: u32 = 0;

/// CPUs in no pool, a bit each. Changed only together with the scheduler's CPUs, under its lock.
static FREE: AtomicU32 = AtomicU32::new(0);

/// CPUs in no pool.
pub fn free() -> CpuSet {
    CpuSet::from_bits(FREE.load(Ordering::Relaxed))
}

/// Carries out an operation; what it answers is in `op`.
pub fn operation(caller: &Caller<'_>, op: &mut CpupoolOp) -> Result<(), Errno> {
    match op.op {
        abi::CPUPOOL_INFO => {
            if op.cpupool_id > POOL {
                return Err(Errno::NoEnt);
            }
            op.cpupool_id = POOL;
            op.sched_id = SCHEDULER_CREDIT2;
            op.n_dom = registry::all().count() as u32;
            let members = run::scheduler().online();
            bitmap::write(caller, &op.cpumap, members.bits())
        }
        abi::CPUPOOL_FREEINFO => bitmap::write(caller, &op.cpumap, free().bits()),
        abi::CPUPOOL_ADDCPU => {
            known(op.cpupool_id)?;
            change(|members| Ok(members.with(choose_free(op.cpu, info_cpus(members))?)))
        }
        abi::CPUPOOL_RMCPU => {
            known(op.cpupool_id)?;
            change(|members| without(members, op.cpu))
        }
        abi::CPUPOOL_MOVEDOMAIN => {
            let id = u16::try_from(op.domid).map_err(|_| Errno::Srch)?;
            if target::any(caller, id)?.is_own() {
                return Err(Errno::Perm);
            }
            known(op.cpupool_id)
        }
        abi::CPUPOOL_DESTROY => known(op.cpupool_id).and(Err(Errno::Busy)),
        abi::CPUPOOL_CREATE if op.cpupool_id == POOL => Err(Errno::Exist),
        _ => Err(Errno::NoSys),
    }
}

fn known(pool: u32) -> Result<(), Errno> {
    if pool == POOL {
        Ok(())
    } else {
        Err(Errno::NoEnt)
    }
}

/// All CPUs, given those in the pool.
fn info_cpus(members: CpuSet) -> Machine {
    Machine {
        all: members.or(free()),
        free: free(),
    }
}

/// The CPUs to choose from.
struct Machine {
    all: CpuSet,
    free: CpuSet,
}

/// The free CPU that `cpu` names.
fn choose_free(cpu: u32, machine: Machine) -> Result<CpuId, Errno> {
    if cpu == abi::CPUPOOL_ANY {
        return machine.free.first().ok_or(Errno::NoDev);
    }
    let cpu = CpuId::new(cpu)
        .filter(|cpu| machine.all.contains(*cpu))
        .ok_or(Errno::Inval)?;
    if machine.free.contains(cpu) {
        Ok(cpu)
    } else {
        Err(Errno::NoDev)
    }
}

/// `members` without the CPU that `cpu` names; one must stay.
fn without(members: CpuSet, cpu: u32) -> Result<CpuSet, Errno> {
    let cpu = match cpu {
        abi::CPUPOOL_ANY => members.iter().last(),
        number => CpuId::new(number).filter(|cpu| members.contains(*cpu)),
    };
    let left = members.without(cpu.ok_or(Errno::Inval)?);
    if left.is_empty() {
        Err(Errno::Busy)
    } else {
        Ok(left)
    }
}

/// Changes who is in the pool.
fn change(f: impl FnOnce(CpuSet) -> Result<CpuSet, Errno>) -> Result<(), Errno> {
    let now = run::now();
    let mut scheduler = run::scheduler();
    let members = scheduler.online();
    let all = members.or(free());
    let members = f(members)?;
    FREE.store(all.minus(members).bits(), Ordering::Relaxed);
    let kick = scheduler.set_online(members, now);
    drop(scheduler);
    run::poke_all(kick);
    Ok(())
}

/// Whether `pool` exists, for a new domain.
pub fn exists(pool: u32) -> bool {
    pool == POOL
}

/// One more than the highest CPU number, for maps.
pub fn width() -> u32 {
    info::nr_cpus()
}

#[cfg(test)]
mod tests {
    use super::{Machine, choose_free, without};
    use crate::abi::sysctl::CPUPOOL_ANY;
    use crate::error::Errno;
    use armv7::cpu::CpuSet;

    #[test]
    fn the_last_cpu_of_the_pool_stays() {
        let two = CpuSet::from_bits(3);
        assert_eq!(without(two, CPUPOOL_ANY), Ok(CpuSet::from_bits(1)));
        assert_eq!(without(two, 0), Ok(CpuSet::from_bits(2)));
        assert_eq!(without(two, 2), Err(Errno::Inval));
        assert_eq!(without(CpuSet::from_bits(1), 0), Err(Errno::Busy));
    }

    #[test]
    fn only_a_free_cpu_is_given() {
        let machine = || Machine {
            all: CpuSet::from_bits(7),
            free: CpuSet::from_bits(4),
        };
        let choose = |cpu| choose_free(cpu, machine()).map(|cpu| cpu.raw());
        assert_eq!(choose(CPUPOOL_ANY), Ok(2));
        assert_eq!(choose(2), Ok(2));
        assert_eq!(choose(1), Err(Errno::NoDev));
        assert_eq!(choose(3), Err(Errno::Inval));
        let none = Machine {
            all: CpuSet::from_bits(7),
            free: CpuSet::EMPTY,
        };
        assert_eq!(choose_free(CPUPOOL_ANY, none), Err(Errno::NoDev));
    }
}
