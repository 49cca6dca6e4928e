//! Emulation of coprocessor registers that trap.
//!
//! Pure: from a trapped access and a little vCPU state to an [`Outcome`]. Default deny: registers missing from the
//! tables below are undefined for the guest, in kernel and user mode alike (XSA-93, XSA-102).
//!
//! The registers that trap (DDI 0406C.d B1.14.3): ACTLR (HCR.TAC), set/way cache maintenance (HCR.TSW), lockdown and
//! implementation-defined c9 to c11 (HCR.TIDCP), c15 (HSTR.T15), the physical timer (CNTHCTL.PL1PCEN clear),
//! performance monitors (HDCR.TPM, TPMCR), debug registers (HDCR.TDA, TDOSA, TDRA), trace (HCPTR.TTA) and coprocessors
//! 0 to 9, 12 and 13 (HCPTR). tests/trap_controls.rs gives the reason of each control. A register that keeps a value
//! and does not trap is part of a vCPU (`armv7::guest`). Identification registers do not trap: HCR.TID3 is clear, as
//! Linux reads MVFR0 in each context switch.
//!
//! Set/way maintenance is not passed on: a guest would reach lines of other guests, and DCISW would discard their data.
//! [`super::set_way`] describes the emulation.

use armv7::syndrome::{CpAccess, CpWideAccess, Direction};

/// Registers that results depend on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cp15State {
    /// ACTLR as read by the guest: the host's at boot.
    pub actlr: u32,
    /// MIDR, for the revision fields of DBGDIDR.
    pub midr: u32,
    /// The guest's CNTKCTL, which controls user mode's access to the physical timer.
    pub cntkctl: u32,
}

/// Privilege of the trapped access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Privilege {
    /// User mode (PL0).
    User,
    /// Any other guest mode (PL1).
    Kernel,
}

impl Privilege {
    /// Returns the privilege of the mode in `cpsr`.
    pub const fn of(cpsr: u32) -> Self {
        if cpsr & armv7::syndrome::psr::MODE == armv7::syndrome::psr::MODE_USR {
            Self::User
        } else {
            Self::Kernel
        }
    }
}

/// Result of a trapped access. Unless it is `Undefined`, the instruction is then skipped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Write the value to Rt.
    Read(u32),
    /// No effect.
    Ignored,
    /// Inject an undefined instruction exception.
    Undefined,
    /// Cache maintenance by set and way, with the operand in Rt.
    SetWay,
    /// An access to the emulated physical timer.
    Timer(TimerAccess),
}

/// An access to the emulated PL1 physical timer (DDI 0406C.d B8.1.3). For a write the value is in Rt (and Rt2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimerAccess {
    /// CNTP_CTL into Rt.
    ReadControl,
    /// Rt into CNTP_CTL.
    WriteControl,
    /// CNTP_TVAL into Rt.
    ReadValue,
    /// Rt into CNTP_TVAL.
    WriteValue,
    /// CNTP_CVAL into Rt and Rt2.
    ReadCompare,
    /// Rt and Rt2 into CNTP_CVAL.
    WriteCompare,
}

/// CNTKCTL.PL0PTEN: user mode may use the physical timer (DDI 0406C.d B4.1.26).
const CNTKCTL_PL0PTEN: u32 = 1 << 9;

/// Decodes an MCR or MRC to CP15.
pub fn cp15(access: &CpAccess, privilege: Privilege, state: &Cp15State) -> Outcome {
    let CpAccess {
        opc1,
        crn,
        crm,
        opc2,
        direction,
        ..
    } = *access;
    let kernel = privilege == Privilege::Kernel;
    match (crn, opc1, crm, opc2) {
        // ACTLR
        (1, 0, 0, 1) if kernel => read_or_ignore(direction, state.actlr),
        // DCISW, DCCSW, DCCISW: write-only
        (7, 0, 6 | 10 | 14, 2) if kernel && direction == Direction::Write => Outcome::SetWay,
        // PMUSERENR reads as zero in user mode too, so user mode may access no other register of the monitors.
        (9, 0, 14, 0) if kernel || direction == Direction::Read => read_or_ignore(direction, 0),
        // PMCR PMCNTENSET PMCNTENCLR PMOVSR PMSWINC PMSELR PMCEID0 PMCEID1
        (9, 0, 12, 0..=7) if kernel => read_or_ignore(direction, 0),
        // PMCCNTR PMXEVTYPER PMXEVCNTR
        (9, 0, 13, 0..=2) if kernel => read_or_ignore(direction, 0),
        // PMINTENSET PMINTENCLR PMOVSSET
        (9, 0, 14, 1..=3) if kernel => read_or_ignore(direction, 0),
        // CNTP_TVAL
        (14, 0, 2, 0) => timer(
            direction,
            TimerAccess::ReadValue,
            TimerAccess::WriteValue,
            privilege,
            state,
        ),
        // CNTP_CTL
        (14, 0, 2, 1) => timer(
            direction,
            TimerAccess::ReadControl,
            TimerAccess::WriteControl,
            privilege,
            state,
        ),
        _ => Outcome::Undefined,
    }
}

/// Decodes an MCRR or MRRC to CP15.
pub fn cp15_wide(access: &CpWideAccess, privilege: Privilege, state: &Cp15State) -> Outcome {
    match (access.opc1, access.crm) {
        // CNTP_CVAL
        (2, 14) => timer(
            access.direction,
            TimerAccess::ReadCompare,
            TimerAccess::WriteCompare,
            privilege,
            state,
        ),
        _ => Outcome::Undefined,
    }
}

/// Decodes an MCR or MRC to CP14. MCRR, MRRC, LDC and STC to CP14 are undefined, as is all of CP10 that traps and every
/// other coprocessor.
pub fn cp14(access: &CpAccess, privilege: Privilege, state: &Cp15State) -> Outcome {
    let CpAccess {
        opc1,
        crn,
        crm,
        opc2,
        direction,
        ..
    } = *access;
    let kernel = privilege == Privilege::Kernel;
    // Opc1 0 is the debug unit; there is no trace unit (1). ThumbEE (6) and Jazelle (7) do not trap: TEECR and TEEHBR
    // are part of a vCPU (`armv7::guest`), and the trivial Jazelle has no state.
    if opc1 != 0 {
        return Outcome::Undefined;
    }
    match (crn, crm, opc2) {
        // DBGDIDR and DBGDSCRint: user mode may read them while DBGDSCR.UDCCdis is clear, as emulated here.
        (0, 0, 0) if direction == Direction::Read => Outcome::Read(dbgdidr(state.midr)),
        (0, 1, 0) if direction == Direction::Read => Outcome::Read(0),
        // DBGVCR, DBGDSCRext, DBGBVR0, DBGBVR1, DBGBCR0, DBGBCR1, DBGWVR0, DBGWCR0
        (0, 7, 0) | (0, 2, 2) | (0, 0 | 1, 4 | 5) | (0, 0, 6 | 7) if kernel => {
            read_or_ignore(direction, 0)
        }
        // DBGOSLAR, write-only
        (1, 0, 4) if kernel && direction == Direction::Write => Outcome::Ignored,
        // DBGOSLSR, read-only: no OS lock is implemented
        (1, 1, 4) if kernel && direction == Direction::Read => Outcome::Read(0),
        // DBGOSDLR
        (1, 3, 4) if kernel => read_or_ignore(direction, 0),
        _ => Outcome::Undefined,
    }
}

/// Returns DBGDIDR: 1 watchpoint, 2 breakpoints, v7.1 Debug, variant and revision of the CPU (DDI 0406C.d C11.11.15).
/// Xen 4.17 puts the variant over the revision; here both are at the architecture's bits.
const fn dbgdidr(midr: u32) -> u32 {
    1 << 24 | 5 << 16 | (midr >> 20 & 0xF) << 4 | midr & 0xF
}

const fn read_or_ignore(direction: Direction, value: u32) -> Outcome {
    match direction {
        Direction::Read => Outcome::Read(value),
        Direction::Write => Outcome::Ignored,
    }
}

fn timer(
    direction: Direction,
    read: TimerAccess,
    write: TimerAccess,
    privilege: Privilege,
    state: &Cp15State,
) -> Outcome {
    if privilege == Privilege::User && state.cntkctl & CNTKCTL_PL0PTEN == 0 {
        return Outcome::Undefined;
    }
    Outcome::Timer(match direction {
        Direction::Read => read,
        Direction::Write => write,
    })
}

#[cfg(test)]
mod tests;
