//! CPU pools: disjoint sets of CPUs, each with its own domains. A CPU in no pool is idle.
//!
//! Pool 0 exists from the start, with all CPUs and dom0. It cannot be removed, and CPU 0 stays in it, as in Xen. The
//! exclusive right to change domains' lives protects what holds between pools: a CPU is in one at most, and no domain is in
//! a pool without CPUs.

use core::sync::atomic::{AtomicU32, Ordering};

use armv7::cpu::{CpuId, CpuSet};

use super::bitmap;
use crate::abi::domctl::{SCHEDULER_CREDIT2, SCHEDULER_NULL};
use crate::abi::sysctl::{self as abi, CpupoolOp};
use crate::call::{Caller, target};
use crate::cpu::{self, power};
use crate::domain::{Domain, registry};
use crate::error::Errno;
use crate::options;
use crate::sched::{self, DEFAULT_RATELIMIT_US, MAX_POOLS, PoolId};
use crate::time;

/// The toolstack's number of each pool, by the scheduler's number; [`NONE`] where there is no pool. Changed only with the
/// exclusive right.
static NUMBERS: [AtomicU32; MAX_POOLS] = {
    let mut numbers = [const { AtomicU32::new(NONE) }; MAX_POOLS];
    numbers[PoolId::FIRST.index()] = AtomicU32::new(0);
    numbers
};

/// Stands for any number. No pool has it.
const NONE: u32 = abi::CPUPOOL_ANY;

/// Returns the CPUs in no pool.
pub fn free() -> CpuSet {
    cpus().minus(sched::lock().online())
}

/// Returns all CPUs that are on, free ones among them.
pub fn cpus() -> CpuSet {
    power::all(|state| state == power::State::On)
}

/// Returns one more than the highest CPU number.
pub fn nr_cpus() -> u32 {
    let known = power::all(|state| state != power::State::Absent);
    u32::BITS - known.bits().leading_zeros()
}

/// Returns all pools: the toolstack's number, and the scheduler's.
fn all() -> impl Iterator<Item = (u32, PoolId)> {
    NUMBERS.iter().enumerate().filter_map(|(n, number)| {
        let number = number.load(Ordering::Relaxed);
        Some((number, PoolId::new(n)?)).filter(|_| number != NONE)
    })
}

/// Returns the pool with that number.
fn find(number: u32) -> Result<PoolId, Errno> {
    all()
        .find(|(other, _)| *other == number)
        .map(|(_, pool)| pool)
        .ok_or(Errno::NoEnt)
}

/// Returns the pool with that number. Fails if it has no CPUs, as no domain could run in it.
pub fn for_domain(number: u32) -> Result<PoolId, Errno> {
    let pool = find(number)?;
    if sched::lock().pool(pool).is_empty() {
        return Err(Errno::NoEnt);
    }
    Ok(pool)
}

/// Returns the number of the pool that a domain is in.
pub fn number_of(domain: &Domain) -> u32 {
    let pool = sched::lock().pool_of(domain.group.id());
    pool.map_or(0, number)
}

/// Returns the toolstack's number of a pool.
pub fn number(pool: PoolId) -> u32 {
    let number = NUMBERS.get(pool.index());
    number.map_or(0, |number| number.load(Ordering::Relaxed))
}

/// Leaves pool 0 these CPUs, before there are domains; the others become free.
pub fn set_first(cpus: CpuSet, dedicated: bool) -> PoolId {
    sched::lock().set_dedicated(PoolId::FIRST, dedicated);
    change(PoolId::FIRST, |_| cpus);
    PoolId::FIRST
}

/// Makes a pool of free CPUs, before there are domains.
pub fn make_with(cpus: CpuSet, dedicated: bool) -> Result<PoolId, Errno> {
    let pool = find(create(NONE, scheduler(dedicated))?)?;
    change(pool, |_| cpus);
    Ok(pool)
}

/// Returns the toolstack's number of a pool's scheduler.
pub fn scheduler_of(pool: PoolId) -> u32 {
    scheduler(sched::lock().is_dedicated(pool))
}

/// Returns the toolstack's number of the scheduler that gives each vCPU a CPU of its own, or not.
fn scheduler(dedicated: bool) -> u32 {
    match dedicated {
        true => SCHEDULER_NULL,
        false => SCHEDULER_CREDIT2,
    }
}

/// Returns the domains of a pool.
fn domains(pool: PoolId) -> impl Iterator<Item = impl core::ops::Deref<Target = Domain>> {
    registry::all().filter(move |domain| sched::lock().pool_of(domain.group.id()) == Some(pool))
}

/// Handles a cpupool operation. Its result is in `op`. The caller has the exclusive right to change domains' lives.
pub fn operation(caller: &Caller<'_>, op: &mut CpupoolOp) -> Result<(), Errno> {
    match op.op {
        abi::CPUPOOL_CREATE => {
            op.cpupool_id = create(op.cpupool_id, op.sched_id)?;
            Ok(())
        }
        abi::CPUPOOL_DESTROY => destroy(find(op.cpupool_id)?),
        abi::CPUPOOL_INFO => {
            let (number, pool) = at_or_after(op.cpupool_id, all()).ok_or(Errno::NoEnt)?;
            op.cpupool_id = number;
            op.sched_id = scheduler_of(pool);
            op.n_dom = domains(pool).count() as u32;
            let members = sched::lock().pool(pool);
            bitmap::write(caller, &op.cpumap, members.bits())
        }
        abi::CPUPOOL_FREEINFO => bitmap::write(caller, &op.cpumap, free().bits()),
        abi::CPUPOOL_ADDCPU => {
            let pool = find(op.cpupool_id)?;
            let cpu = choose_free(op.cpu, nr_cpus(), free())?;
            change(pool, |members| members.with(cpu));
            Ok(())
        }
        abi::CPUPOOL_RMCPU => {
            let pool = find(op.cpupool_id)?;
            let members = sched::lock().pool(pool);
            let left = without(members, op.cpu, nr_cpus())?;
            if pool == PoolId::FIRST && !left.contains(CpuId::BOOT) {
                return Err(Errno::Inval);
            }
            if left.is_empty() && domains(pool).next().is_some() {
                return Err(Errno::Busy);
            }
            change(pool, |_| left);
            Ok(())
        }
        abi::CPUPOOL_MOVEDOMAIN => {
            let id = u16::try_from(op.domid).map_err(|_| Errno::Srch)?;
            let domain = target::remote(caller, id)?;
            if number_of(&domain) != op.cpupool_id {
                move_domain(&domain, for_domain(op.cpupool_id)?);
            }
            Ok(())
        }
        _ => Err(Errno::NoSys),
    }
}

/// Returns the pool with the lowest number from `wanted` on.
fn at_or_after(wanted: u32, pools: impl Iterator<Item = (u32, PoolId)>) -> Option<(u32, PoolId)> {
    pools
        .filter(|(number, _)| *number >= wanted)
        .min_by_key(|(number, _)| *number)
}

/// Makes a pool without CPUs, and returns its number.
fn create(wanted: u32, scheduler: u32) -> Result<u32, Errno> {
    let number = choose_number(wanted, all().map(|(number, _)| number))?;
    if ![SCHEDULER_CREDIT2, SCHEDULER_NULL].contains(&scheduler) {
        return Err(Errno::NoEnt);
    }
    let (index, slot) = NUMBERS
        .iter()
        .enumerate()
        .find(|(_, slot)| slot.load(Ordering::Relaxed) == NONE)
        .ok_or(Errno::NoMem)?;
    let pool = PoolId::new(index).ok_or(Errno::NoMem)?;
    let ratelimit =
        options::get().map_or(DEFAULT_RATELIMIT_US, |options| options.sched_ratelimit_us);
    let mut state = sched::lock();
    state.set_ratelimit(pool, ratelimit);
    state.set_dedicated(pool, scheduler == SCHEDULER_NULL);
    drop(state);
    slot.store(number, Ordering::Relaxed);
    Ok(number)
}

/// Returns the number of a new pool: `wanted`, or one more than the highest in use.
fn choose_number(wanted: u32, mut numbers: impl Iterator<Item = u32>) -> Result<u32, Errno> {
    if wanted != NONE {
        return match numbers.any(|number| number == wanted) {
            true => Err(Errno::Exist),
            false => Ok(wanted),
        };
    }
    let next = numbers.max().map_or(0, |highest| highest + 1);
    if next == NONE {
        Err(Errno::NoMem)
    } else {
        Ok(next)
    }
}

/// Removes a pool. Fails for pool 0, and while it has CPUs or domains.
fn destroy(pool: PoolId) -> Result<(), Errno> {
    let members = sched::lock().pool(pool);
    if pool == PoolId::FIRST || !members.is_empty() || domains(pool).next().is_some() {
        return Err(Errno::Busy);
    }
    if let Some(number) = NUMBERS.get(pool.index()) {
        number.store(NONE, Ordering::Relaxed);
    }
    Ok(())
}

/// Moves a domain to another pool. The caller has the exclusive right to change domains' lives.
pub fn move_domain(domain: &Domain, pool: PoolId) {
    let moved = sched::lock().move_group(domain.group.id(), pool, time::now());
    if let Ok(kick) = moved {
        cpu::repick_all(kick);
    }
}

/// Returns the CPU with that number, if it is below `count`.
fn numbered(cpu: u32, count: u32) -> Result<CpuId, Errno> {
    CpuId::new(cpu)
        .filter(|cpu| cpu.raw() < count)
        .ok_or(Errno::Inval)
}

/// Returns the free CPU that `cpu` names. `count` is the number of CPUs.
fn choose_free(cpu: u32, count: u32, free: CpuSet) -> Result<CpuId, Errno> {
    if cpu == abi::CPUPOOL_ANY {
        return free.first().ok_or(Errno::NoDev);
    }
    let cpu = numbered(cpu, count)?;
    if free.contains(cpu) {
        Ok(cpu)
    } else {
        Err(Errno::NoDev)
    }
}

/// Returns `members` without the CPU that `cpu` names. `count` is the number of CPUs.
fn without(members: CpuSet, cpu: u32, count: u32) -> Result<CpuSet, Errno> {
    let cpu = match cpu {
        abi::CPUPOOL_ANY => members.iter().last().ok_or(Errno::Inval)?,
        number => numbered(number, count)?,
    };
    if members.contains(cpu) {
        Ok(members.without(cpu))
    } else {
        Err(Errno::AddrNotAvail)
    }
}

/// Takes a CPU, not CPU 0, from pool 0, so that it can be switched off. Fails if it is in another pool.
pub fn take(cpu: CpuId) -> Result<(), Errno> {
    let scheduler = sched::lock();
    let (first, all) = (scheduler.pool(PoolId::FIRST), scheduler.online());
    drop(scheduler);
    if first.contains(cpu) {
        change(PoolId::FIRST, |members| members.without(cpu));
    } else if all.contains(cpu) {
        return Err(Errno::NoDev);
    }
    Ok(())
}

/// Puts a CPU into pool 0 if it is free.
pub fn give(cpu: CpuId) {
    if free().contains(cpu) {
        change(PoolId::FIRST, |members| members.with(cpu));
    }
}

/// Sets the CPUs of a pool. Only free CPUs join; the ones that leave become free.
fn change(pool: PoolId, f: impl FnOnce(CpuSet) -> CpuSet) {
    let now = time::now();
    let mut scheduler = sched::lock();
    let members = f(scheduler.pool(pool));
    let kick = scheduler.set_pool(pool, members, now);
    drop(scheduler);
    cpu::repick_all(kick);
}

#[cfg(test)]
mod tests {
    use super::{NONE, PoolId, at_or_after, choose_free, choose_number, without};
    use crate::abi::sysctl::CPUPOOL_ANY;
    use crate::error::Errno;
    use armv7::cpu::CpuSet;

    #[test]
    fn a_cpu_is_taken_from_its_own_pool_only() {
        let without = |members, cpu| without(CpuSet::from_bits(members), cpu, 3).map(CpuSet::bits);
        assert_eq!(without(3, CPUPOOL_ANY), Ok(1));
        assert_eq!(without(3, 0), Ok(2));
        assert_eq!(without(3, 2), Err(Errno::AddrNotAvail));
        assert_eq!(without(3, 3), Err(Errno::Inval));
        assert_eq!(without(1, 0), Ok(0));
        assert_eq!(without(0, CPUPOOL_ANY), Err(Errno::Inval));
    }

    #[test]
    fn only_a_free_cpu_is_given() {
        let choose = |cpu| choose_free(cpu, 3, CpuSet::from_bits(4)).map(|cpu| cpu.raw());
        assert_eq!(choose(CPUPOOL_ANY), Ok(2));
        assert_eq!(choose(2), Ok(2));
        assert_eq!(choose(1), Err(Errno::NoDev));
        assert_eq!(choose(3), Err(Errno::Inval));
        assert_eq!(
            choose_free(CPUPOOL_ANY, 3, CpuSet::EMPTY),
            Err(Errno::NoDev)
        );
    }

    #[test]
    fn a_new_pool_comes_behind_the_others_unless_it_has_a_number() {
        let choose = |wanted, numbers: &[u32]| choose_number(wanted, numbers.iter().copied());
        assert_eq!(choose(NONE, &[0]), Ok(1));
        assert_eq!(choose(NONE, &[0, 7, 3]), Ok(8));
        assert_eq!(choose(NONE, &[0, NONE - 1]), Err(Errno::NoMem));
        assert_eq!(choose(7, &[0]), Ok(7));
        assert_eq!(choose(0, &[0]), Err(Errno::Exist));
    }

    #[test]
    fn pools_are_listed_by_number() {
        let pools = || {
            [
                (0, PoolId::FIRST),
                (9, PoolId::new(1).unwrap()),
                (4, PoolId::new(2).unwrap()),
            ]
            .into_iter()
        };
        let next = |wanted| at_or_after(wanted, pools()).map(|(number, _)| number);
        assert_eq!(
            [0, 1, 4, 5, 9, 10].map(next),
            [Some(0), Some(4), Some(4), Some(9), Some(9), None]
        );
    }
}
