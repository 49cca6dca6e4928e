//! CPU pools that exist from the boot (`xen,cpupool`), and the CPUs on which a domain's vCPUs may run (`xen,vcpu`).

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use armv7::cpu::{CpuSet, MAX_CPUS};
use armv7::gic::MAX_CPU_INTERFACES;
use dt::{Node, Tree};

use super::fault;

/// A CPU pool that the tree names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pool {
    /// Its node.
    pub path: String,
    /// Its members, or the property at fault.
    pub members: Result<Members, String>,
}

/// The CPUs of a pool, and how they are shared out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Members {
    /// Affinity fields of the MPIDR of each CPU.
    pub cpus: Vec<u32>,
    /// Each vCPU has a CPU of its own (`null`), or not (`credit2`); as on the command line without a word.
    pub dedicated: Option<bool>,
}

/// The CPUs on which each vCPU of a domain may run.
pub type Affinities = [CpuSet; MAX_CPU_INTERFACES as usize];

/// Finds all pools, in the tree's order.
pub fn find(tree: &Tree<'_>) -> Vec<Pool> {
    let mut pools: Vec<Pool> = Vec::new();
    let chosen = tree.find("/chosen");
    let children = chosen.into_iter().flat_map(|chosen| chosen.children());
    for node in children.filter(|node| node.is_compatible(&["xen,cpupool"])) {
        let members = members(&node);
        let path = node.path().to_string();
        pools.push(Pool { path, members });
    }
    pools
}

fn members(node: &Node<'_>) -> Result<Members, String> {
    const CPUS: &str = "cpupool-cpus";
    let mut cpus = Vec::new();
    for phandle in node.cells(CPUS) {
        let cpu = node.tree().by_phandle(phandle);
        let cpu = cpu.filter(|cpu| cpu.parent().is_some_and(|above| above.name() == "cpus"));
        let Some(mpidr) = cpu.and_then(|cpu| cpu.u32("reg")) else {
            return Err(fault(CPUS, &format_args!("{phandle:#x} is no CPU")));
        };
        cpus.push(mpidr);
    }
    if cpus.is_empty() {
        return Err(fault(CPUS, &"none"));
    }
    const SCHEDULER: &str = "cpupool-sched";
    let dedicated = match (node.has(SCHEDULER), node.string(SCHEDULER)) {
        (false, _) => None,
        (_, Some("credit2")) => Some(false),
        (_, Some("null")) => Some(true),
        _ => return Err(fault(SCHEDULER, &"neither \"credit2\" nor \"null\"")),
    };
    Ok(Members { cpus, dedicated })
}

/// Returns the place in `pools` of the one that a domain is to run in, if it names one.
pub fn of_domain(domain: &Node<'_>, pools: &[Pool]) -> Result<Option<usize>, String> {
    const POOL: &str = "domain-cpupool";
    if !domain.has(POOL) {
        return Ok(None);
    }
    let node = domain
        .u32(POOL)
        .and_then(|phandle| domain.tree().by_phandle(phandle));
    let pool = node.and_then(|node| {
        let path = node.path();
        pools.iter().position(|pool| path == pool.path.as_str())
    });
    match pool {
        Some(place) => Ok(Some(place)),
        None => Err(fault(POOL, &"no xen,cpupool has this phandle")),
    }
}

/// Reads a node that says on which CPUs a vCPU may run.
pub fn read_vcpu(node: &Node<'_>, vcpus: u8, affinities: &mut Affinities) -> Result<(), String> {
    const HARD: &str = "hard-affinity";
    let id = node.u32("id").filter(|id| *id < vcpus.into());
    let set = id.and_then(|id| affinities.get_mut(id as usize));
    let Some(set) = set.filter(|set| **set == CpuSet::ALL) else {
        let why = "id: not the number of one of its vCPUs, or another node has it";
        return Err(fault(node.name(), &why));
    };
    if node.has(HARD) {
        let cpus = node.string(HARD).and_then(cpu_list);
        *set = cpus.ok_or_else(|| {
            let why = "hard-affinity: no list of CPUs, such as \"0-2,5\"";
            fault(node.name(), &why)
        })?;
    }
    Ok(())
}

/// Reads numbers and ranges of CPUs, such as `0-2,5`. All numbers have one digit.
fn cpu_list(text: &str) -> Option<CpuSet> {
    let (mut bits, mut first, mut last) = (0, None, None);
    for byte in text.bytes().chain([b',']) {
        match byte {
            b'0'..=b'9' if last.is_none() => last = Some(byte - b'0'),
            b'-' if first.is_none() && last.is_some() => first = last.take(),
            b',' => {
                let last = last.take()?;
                let first = first.take().unwrap_or(last);
                if first > last || usize::from(last) >= MAX_CPUS {
                    return None;
                }
                bits |= (2 << last) - (1 << first);
            }
            _ => return None,
        }
    }
    Some(CpuSet::from_bits(bits))
}
