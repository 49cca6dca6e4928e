//! Makes the CPU pools that the tree names, before any domain.

use alloc::vec::Vec;

use armv7::cpu::{CpuId, CpuSet};
use armv7::smp;

use crate::control::cpupool;
use crate::platform::host_dt::HostInfo;
use crate::platform::partitions::pools::Members;
use crate::sched::{self, PoolId};

/// The pools of the tree, in its order; none in the place of one that could not be made.
pub type Pools = Vec<Option<PoolId>>;

/// Makes the pools that the tree names. That of the boot CPU is pool 0; CPUs that none has are one more pool, which is pool 0
/// if the boot CPU is among them. `dedicated` is how CPUs are shared out where a pool does not say it.
pub fn make(host: &HostInfo, dedicated: bool) -> Pools {
    let mut pools = Pools::new();
    if host.pools.is_empty() {
        return pools;
    }
    let mut rest = sched::lock().online();
    cpupool::set_first(CpuSet::of(CpuId::BOOT), dedicated);
    for pool in &host.pools {
        let (cpus, dedicated) = match &pool.members {
            Ok(members) => (
                running(&pool.path, members, rest),
                members.dedicated.unwrap_or(dedicated),
            ),
            Err(why) => {
                log::error!("BOOT: {} is not made: {why}", pool.path);
                (CpuSet::EMPTY, false)
            }
        };
        rest = rest.minus(cpus);
        pools.push(make_one(&pool.path, cpus, dedicated));
    }
    make_one("other CPUs", rest, dedicated);
    pools
}

/// Returns the members of a pool that run and that no pool has.
fn running(path: &str, members: &Members, rest: CpuSet) -> CpuSet {
    let mut cpus = CpuSet::EMPTY;
    for mpidr in &members.cpus {
        match smp::by_affinity(*mpidr) {
            Some(cpu) if rest.contains(cpu) => cpus.insert(cpu),
            _ => {
                log::warn!("BOOT: {path}: cpupool-cpus: CPU {mpidr:#x} does not run, or has a pool")
            }
        }
    }
    cpus
}

/// Makes a pool of these CPUs, if there are any.
fn make_one(name: &str, cpus: CpuSet, dedicated: bool) -> Option<PoolId> {
    if cpus.is_empty() {
        return None;
    }
    let pool = match cpus.contains(CpuId::BOOT) {
        true => Ok(cpupool::set_first(cpus, dedicated)),
        false => cpupool::make_with(cpus, dedicated),
    };
    match pool {
        Ok(pool) => log::info!(
            "Pool {}: CPUs {:#x} ({name})",
            cpupool::number(pool),
            cpus.bits()
        ),
        Err(error) => log::error!("BOOT: {name} is not made: {error}"),
    }
    pool.ok()
}
