//! PSCI and the SMC Calling Convention for guests: the result or action of a call.
//!
//! Pure: [`call`] takes registers and a [`View`] of the domain, and returns an action. Guests call by `HVC #0` or by
//! SMC (trapped by HCR.TSC); for an SMC the caller skips the instruction. Ids and results are Xen 4.17's (ARM DEN 0022D
//! for PSCI 1.1, ARM DEN 0028B for the convention).
//!
//! No call causes an exception: an unknown one returns -1, as the convention requires.

use crate::id::{MAX_VCPUS, VcpuId};

/// Return values (ARM DEN 0022D 5.2.2).
pub mod status {
    /// Success.
    pub const SUCCESS: i32 = 0;
    /// Not implemented; also the convention's "unknown function".
    pub const NOT_SUPPORTED: i32 = -1;
    /// A parameter is invalid.
    pub const INVALID_PARAMETERS: i32 = -2;
    /// The caller may not do this.
    pub const DENIED: i32 = -3;
    /// CPU_ON of a CPU that is already on.
    pub const ALREADY_ON: i32 = -4;
    /// SYSTEM_OFF or SYSTEM_RESET returned.
    pub const INTERNAL_FAILURE: i32 = -6;
}

/// The function ids implemented.
mod fid {
    pub use armv7::smc::psci::{
        AFFINITY_INFO, CPU_OFF, CPU_OFF_0_1, CPU_ON, CPU_ON_0_1, CPU_SUSPEND, FEATURES,
        MIGRATE_INFO_TYPE, SYSTEM_OFF, SYSTEM_RESET, VERSION,
    };

    pub const SMCCC_VERSION: u32 = 0x8000_0000;
    pub const ARCH_FEATURES: u32 = 0x8000_0001;
    pub const WORKAROUND_1: u32 = 0x8000_8000;
    pub const WORKAROUND_2: u32 = 0x8000_7FFF;
    pub const WORKAROUND_3: u32 = 0x8000_3FFF;

    pub const STANDARD_COUNT: u32 = 0x8400_FF00;
    pub const STANDARD_UID: u32 = 0x8400_FF01;
    pub const STANDARD_REVISION: u32 = 0x8400_FF03;
    pub const HYPERVISOR_COUNT: u32 = 0x8500_FF00;
    pub const HYPERVISOR_UID: u32 = 0x8500_FF01;
    pub const HYPERVISOR_REVISION: u32 = 0x8500_FF03;
}

/// PSCI 1.1.
const PSCI_1_1: u32 = 0x0001_0001;
/// SMCCC 1.1.
const SMCCC_1_1: u32 = 0x0001_0001;
/// MIGRATE_INFO_TYPE: no trusted OS that needs migration.
const MIGRATION_NOT_REQUIRED: u32 = 2;
/// Functions of the hypervisor service: count, UID, revision.
const HYPERVISOR_CALLS: u32 = 3;
/// Functions of the standard service: count, UID, revision and Xen 4.17's twelve PSCI functions.
const STANDARD_CALLS: u32 = 15;
/// a71812dc-c698-4369-9acf-79d18ddee667, four bytes per register, first byte lowest.
const HYPERVISOR_UID: [u32; 4] = [0xDC12_18A7, 0x6943_98C6, 0xD179_CF9A, 0x67E6_DE8D];
/// f863386f-4b39-4cbd-9220-ce1641e59f6f, as above.
const STANDARD_UID: [u32; 4] = [0x6F38_63F8, 0xBD4C_394B, 0x16CE_2092, 0x6F9F_E541];

/// Affinity fields of an MPIDR: Aff2, Aff1, Aff0 (DDI 0406C.d B4.1.106).
const AFFINITY_MASK: u32 = 0x00FF_FFFF;

/// Power state of a vCPU in PSCI's sense: a paused or blocked one is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Power {
    /// Started and not switched off.
    On,
    /// Not started, or switched off.
    Off,
}

/// Facts about the domain that [`call`] needs.
pub trait View {
    /// Returns whether vCPU `id` is on; `None` if the domain has no such vCPU.
    fn power(&self, id: VcpuId) -> Option<Power>;

    /// Returns whether exceptions to Hyp mode invalidate the branch predictor on every CPU, as SMCCC_ARCH_WORKAROUND_1
    /// guarantees.
    fn hardens_branch_predictor(&self) -> bool;
}

/// Action that a call requires.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Return a value in r0; r1 to r3 are unchanged.
    Return(u32),
    /// Return values in r0 to r3.
    ReturnAll([u32; 4]),
    /// Change nothing, not even r0.
    Nothing,
    /// Start `vcpu` at `entry`, with [`status::SUCCESS`] in r0.
    CpuOn(CpuOn),
    /// Switch the calling vCPU off. The call does not return.
    CpuOff,
    /// Block the calling vCPU until an event is pending, with [`status::SUCCESS`] in r0.
    Suspend,
    /// Shut the domain down (SHUTDOWN_poweroff), with [`status::INTERNAL_FAILURE`] in r0 in case it continues.
    SystemOff,
    /// Shut the domain down (SHUTDOWN_reboot), with [`status::INTERNAL_FAILURE`] in r0 in case it continues.
    SystemReset,
}

/// A vCPU to start. Two vCPUs may start the same third one at once, so the caller checks again, under a lock of that
/// vCPU, that it is off, and otherwise returns [`CpuOn::already_on`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuOn {
    /// The vCPU to start.
    pub vcpu: VcpuId,
    /// First PC.
    pub entry: u32,
    /// Instruction set to start in: bit 0 of the entry point.
    pub state: EntryState,
    /// Its r0.
    pub context: u32,
    /// r0 of the caller if `vcpu` is already on.
    pub already_on: u32,
}

/// Instruction set of the first instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryState {
    /// CPSR.T clear.
    Arm,
    /// CPSR.T set.
    Thumb,
}

/// Returns the MPIDR that a vCPU reads: 16 vCPUs per cluster, as in Xen.
pub const fn vmpidr(vcpu: VcpuId) -> u32 {
    let id = vcpu.raw() as u32;
    0x8000_0000 | id & 0xF | (id >> 4) << 8
}

/// Returns the vCPU whose [`vmpidr`] has these affinity fields.
const fn vcpu_of(mpidr: u32) -> Option<VcpuId> {
    let (aff2, aff1, aff0) = (mpidr >> 16 & 0xFF, mpidr >> 8 & 0xFF, mpidr & 0xFF);
    if aff2 != 0 || aff0 > 0xF {
        return None;
    }
    VcpuId::new(aff1 << 4 | aff0)
}

/// Decodes the call `function` (r0) with `args` (r1 to r3).
pub fn call(function: u32, args: [u32; 3], view: &impl View) -> Action {
    let [arg1, arg2, arg3] = args;
    match function {
        fid::SMCCC_VERSION => Action::Return(SMCCC_1_1),
        fid::ARCH_FEATURES => returns(arch_feature(arg1, view)),
        // The entry to Hyp mode has already flushed the predictor.
        fid::WORKAROUND_1 | fid::WORKAROUND_2 | fid::WORKAROUND_3 => Action::Nothing,

        fid::VERSION => Action::Return(PSCI_1_1),
        // A power-down request is served as standby, which PSCI allows (DEN 0022D 5.4.5).
        fid::CPU_SUSPEND => Action::Suspend,
        fid::CPU_OFF | fid::CPU_OFF_0_1 => Action::CpuOff,
        fid::CPU_ON => cpu_on(arg1, arg2, arg3, status::ALREADY_ON, view),
        // PSCI 0.1 has no ALREADY_ON and no context.
        fid::CPU_ON_0_1 => cpu_on(arg1, arg2, 0, status::INVALID_PARAMETERS, view),
        fid::AFFINITY_INFO => returns(affinity_info(arg1, arg2, view)),
        fid::MIGRATE_INFO_TYPE => Action::Return(MIGRATION_NOT_REQUIRED),
        fid::SYSTEM_OFF => Action::SystemOff,
        fid::SYSTEM_RESET => Action::SystemReset,
        fid::FEATURES => returns(feature(arg1)),

        fid::STANDARD_COUNT => Action::Return(STANDARD_CALLS),
        fid::STANDARD_UID => Action::ReturnAll(STANDARD_UID),
        fid::HYPERVISOR_COUNT => Action::Return(HYPERVISOR_CALLS),
        fid::HYPERVISOR_UID => Action::ReturnAll(HYPERVISOR_UID),
        // Revision 0.1 in r0 and r1.
        fid::STANDARD_REVISION | fid::HYPERVISOR_REVISION => Action::ReturnAll([0, 1, arg2, arg3]),

        // All others: 64-bit calls (bit 30), other owners (SiP, OEM, trusted OS), gaps.
        _ => returns(status::NOT_SUPPORTED),
    }
}

const fn returns(status: i32) -> Action {
    Action::Return(status as u32)
}

fn cpu_on(target: u32, entry: u32, context: u32, already_on: i32, view: &impl View) -> Action {
    let Some(vcpu) = vcpu_of(target) else {
        return returns(status::INVALID_PARAMETERS);
    };
    match view.power(vcpu) {
        None => returns(status::INVALID_PARAMETERS),
        Some(Power::On) => returns(already_on),
        Some(Power::Off) => Action::CpuOn(CpuOn {
            vcpu,
            entry: entry & !1,
            state: if entry & 1 == 0 {
                EntryState::Arm
            } else {
                EntryState::Thumb
            },
            context,
            already_on: already_on as u32,
        }),
    }
}

/// Returns 0 if a vCPU under the affinity node is on, 1 if none is or the node is empty.
fn affinity_info(target: u32, lowest_level: u32, view: &impl View) -> i32 {
    let mask = match lowest_level {
        0 => AFFINITY_MASK,
        1 => AFFINITY_MASK & !0xFF,
        2 => AFFINITY_MASK & !0xFFFF,
        _ => return status::INVALID_PARAMETERS,
    };
    let under_node = |id: &VcpuId| vmpidr(*id) & mask == target & mask;
    let is_on = |id| view.power(id) == Some(Power::On);
    let vcpus = (0..u32::from(MAX_VCPUS)).filter_map(VcpuId::new);
    let any_on = vcpus.filter(under_node).any(is_on);
    if any_on { 0 } else { 1 }
}

fn feature(function: u32) -> i32 {
    match function {
        fid::VERSION
        | fid::CPU_SUSPEND
        | fid::CPU_OFF
        | fid::CPU_ON
        | fid::AFFINITY_INFO
        | fid::MIGRATE_INFO_TYPE
        | fid::SYSTEM_OFF
        | fid::SYSTEM_RESET
        | fid::FEATURES
        | fid::SMCCC_VERSION => status::SUCCESS,
        _ => status::NOT_SUPPORTED,
    }
}

fn arch_feature(function: u32, view: &impl View) -> i32 {
    match function {
        fid::WORKAROUND_1 if view.hardens_branch_predictor() => status::SUCCESS,
        _ => status::NOT_SUPPORTED,
    }
}

#[cfg(test)]
mod tests;
