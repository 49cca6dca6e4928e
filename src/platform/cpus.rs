//! Processors, and the methods to start them.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use armv7::smc::psci::{CPU_OFF, CPU_ON};
use dt::{Node, Tree};

use super::BootError;

/// CPU interfaces of a GICv2 (IHI 0048B 1.2.1).
pub const MAX_CPUS: usize = 8;
/// Affinity fields of MPIDR (DDI 0406C.d B4.1.106).
const AFFINITY: u32 = 0x00ff_ffff;
pub(crate) const PSCI: &[&str] = &["arm,psci-1.0", "arm,psci-0.2", "arm,psci"];

/// Method to start a processor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EnableMethod {
    /// PSCI.
    Psci,
    /// Not in the tree; the board's quirk decides.
    Unsaid,
    /// Another method.
    Other(String),
}

/// A processor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuInfo {
    /// Affinity fields of its MPIDR.
    pub mpidr: u32,
    /// Method to start it.
    pub enable_method: EnableMethod,
    /// Its type, such as "arm,cortex-a15".
    pub compatible: String,
    /// Frequency in Hz, if in the tree.
    pub clock_frequency: Option<u32>,
}

/// The instruction that calls firmware.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduit {
    /// SMC, the only one possible from HYP mode.
    Smc,
    /// HVC, if firmware acts as hypervisor.
    Hvc,
}

/// Firmware's PSCI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PsciInfo {
    /// Instruction to call it.
    pub conduit: Conduit,
    /// The ids are version 0.2's, so PSCI_VERSION, SYSTEM_OFF and SYSTEM_RESET exist.
    pub standard: bool,
    /// Function id of CPU_ON.
    pub cpu_on: u32,
    /// Function id of CPU_OFF.
    pub cpu_off: Option<u32>,
}

pub(super) fn cpus(tree: &Tree<'_>, notes: &mut Vec<String>) -> Result<Vec<CpuInfo>, BootError> {
    let mut cpus: Vec<CpuInfo> = Vec::new();
    let parent = tree.find("/cpus");
    let nodes = parent.into_iter().flat_map(|parent| parent.children());
    let nodes = nodes.filter(|n| n.is_type("cpu") || n.base_name() == "cpu");
    for node in nodes {
        let path = node.path();
        let Some(mpidr) = mpidr(&node) else {
            notes.push(format!("SMP: {path} has no usable reg, ignored"));
            continue;
        };
        if cpus.iter().any(|cpu| cpu.mpidr == mpidr) {
            notes.push(format!("SMP: {path} repeats MPIDR {mpidr:#x}, ignored"));
            continue;
        }
        if node.string("status").is_some_and(|s| s.starts_with("fail")) {
            notes.push(format!("SMP: {path} has failed, ignored"));
            continue;
        }
        if cpus.len() >= MAX_CPUS {
            notes.push(format!("SMP: {path} is beyond {MAX_CPUS} CPUs, ignored"));
            continue;
        }
        cpus.push(CpuInfo {
            mpidr,
            enable_method: enable_method(&node),
            compatible: node.strings("compatible").next().unwrap_or("").to_string(),
            clock_frequency: node.u32("clock-frequency"),
        });
    }
    match cpus.is_empty() {
        true => Err(BootError::Cpus("no usable cpu node".to_string())),
        false => Ok(cpus),
    }
}

/// Returns the affinity fields of the MPIDR of a processor's node.
pub(super) fn mpidr(cpu: &Node<'_>) -> Option<u32> {
    let reg = u32::try_from(cpu.number("reg")?).ok()?;
    (reg & !AFFINITY == 0).then_some(reg)
}

fn enable_method(cpu: &Node<'_>) -> EnableMethod {
    let own = cpu.string("enable-method");
    let shared = cpu.parent().and_then(|cpus| cpus.string("enable-method"));
    match own.or(shared) {
        Some("psci") => EnableMethod::Psci,
        Some(other) => EnableMethod::Other(other.to_string()),
        None => EnableMethod::Unsaid,
    }
}

pub(super) fn psci(tree: &Tree<'_>, notes: &mut Vec<String>) -> Option<PsciInfo> {
    let node = tree
        .all()
        .find(|n| n.is_compatible(PSCI) && n.is_enabled())?;
    let path = node.path();
    let conduit = match node.string("method") {
        Some("smc") => Conduit::Smc,
        Some("hvc") => Conduit::Hvc,
        other => {
            let method = other.unwrap_or("");
            notes.push(format!("SMP: {path} has method \"{method}\", ignored"));
            return None;
        }
    };
    let standard = node.is_compatible(&["arm,psci-1.0", "arm,psci-0.2"]);
    let (cpu_on, cpu_off) = match standard {
        true => (Some(CPU_ON), Some(CPU_OFF)),
        false => (node.u32("cpu_on"), node.u32("cpu_off")),
    };
    let Some(cpu_on) = cpu_on else {
        notes.push(format!("SMP: {path} names no cpu_on, ignored"));
        return None;
    };
    Some(PsciInfo {
        conduit,
        standard,
        cpu_on,
        cpu_off,
    })
}
