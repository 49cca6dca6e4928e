//! For each trap that the hypervisor arms, what only the trap makes so (DDI 0406C.d B1.14, B3.17).
//!
//! The physical timer's (CNTHCTL.PL1PCEN) is seen in the list of registers: CNTP_CVAL is there, and would be every vCPU's if
//! it were the hardware's. What QEMU never traps is not seen: WFE, and on a Cortex-A15
//! maintenance by set and way.

use guests::abi::DOM0;
use guests::domain::Domain;
use guests::exception::{Kind, catch};
use guests::gic::{self, Target};
use guests::harness::Verdict;
use guests::memory::Frame;
use guests::{clock, cp15, ensure, ensure_eq, smp};

use crate::Register::Narrow;
use crate::{Code, RETURN};

/// The outcome of an access by the kernel where its trap is armed.
#[derive(Clone, Copy)]
enum Answer {
    Undefined,
    Reads(u32),
}

/// Each trap, by the bits of tests/trap_controls.rs, and an access that it catches. Where the trap is what makes a difference
/// on the machine of the tests too, what came of the access without it is said.
#[rustfmt::skip]
const ARMED: [(&str, u32, Answer); 20] = [
    // SMC #0 with function 0, which nobody has.
    ("HCR.TSC: else undefined, or the firmware's", 0xe160_0070, Answer::Reads(!0)),
    ("HCR.TIDCP: c9", Narrow(15, 0, 9, 5, 0).read(0, 1), Answer::Undefined),
    ("HCR.TIDCP: L2CTLR, else the number of CPUs", Narrow(15, 1, 9, 0, 2).read(0, 1), Answer::Undefined),
    ("HCR.TIDCP: c10", Narrow(15, 0, 10, 4, 0).read(0, 1), Answer::Undefined),
    ("HCR.TIDCP: c11", Narrow(15, 0, 11, 0, 0).read(0, 1), Answer::Undefined),
    ("HSTR.T15: c15", Narrow(15, 0, 15, 0, 0).read(0, 1), Answer::Undefined),
    ("HSTR.T15: CBAR, else the GIC's address", Narrow(15, 4, 15, 0, 0).read(0, 1), Answer::Undefined),
    ("HCPTR.TCP0", Narrow(0, 0, 0, 0, 0).read(0, 1), Answer::Undefined),
    ("HCPTR.TCP1", Narrow(1, 0, 0, 0, 0).read(0, 1), Answer::Undefined),
    ("HCPTR.TCP5", Narrow(5, 0, 0, 0, 0).read(0, 1), Answer::Undefined),
    ("HCPTR.TCP9", Narrow(9, 0, 0, 0, 0).read(0, 1), Answer::Undefined),
    ("HCPTR.TCP12", Narrow(12, 0, 0, 0, 0).read(0, 1), Answer::Undefined),
    ("HCPTR.TCP13", Narrow(13, 0, 0, 0, 0).read(0, 1), Answer::Undefined),
    ("HCPTR.TTA", Narrow(14, 1, 0, 0, 0).read(0, 1), Answer::Undefined),
    ("HDCR.TDRA: DBGDRAR, else the ROM's address", Narrow(14, 0, 1, 0, 0).read(0, 1), Answer::Undefined),
    ("HDCR.TDRA: DBGDSAR", Narrow(14, 0, 2, 0, 0).read(0, 1), Answer::Undefined),
    ("HDCR.TDOSA: DBGOSLSR, else the lock's form", Narrow(14, 0, 1, 1, 4).read(0, 1), Answer::Reads(0)),
    ("HDCR.TDA: DBGDSCRint, else HDBGen", Narrow(14, 0, 0, 1, 0).read(0, 1), Answer::Reads(0)),
    ("HDCR.TPMCR: PMCR, else the implementer", Narrow(15, 0, 9, 12, 0).read(0, 1), Answer::Reads(0)),
    ("HDCR.TPM: PMCCNTR", Narrow(15, 0, 9, 13, 0).read(0, 1), Answer::Reads(0)),
];

pub fn each_armed_trap_is_armed() -> Verdict {
    let code = Code(Frame::take().address());
    for (index, (_, instruction, answer)) in ARMED.iter().enumerate() {
        match (catch(code.put(&[*instruction, RETURN]), 0, 0), answer) {
            (Err(fault), Answer::Undefined) => ensure!(fault.kind == Kind::Undefined, index),
            (Ok(value), Answer::Reads(wanted)) => ensure_eq!(value, *wanted, index),
            (Ok(_), Answer::Undefined) | (Err(_), Answer::Reads(_)) => ensure!(false, index),
        }
    }
    // HCR.TAC: a write that went through would show.
    let actlr = cp15::actlr();
    cp15::write_actlr(actlr ^ 1 << 6);
    ensure_eq!(cp15::actlr(), actlr);
    Ok(())
}

/// HCR.TWI: else the processor waits, with a vCPU that is running.
pub fn a_vcpu_in_wfi_is_blocked() -> Verdict {
    const WAKE: u32 = 1;
    let waiting = || matches!(Domain(DOM0).vcpu_info(1), Ok(vcpu) if vcpu.is_online && vcpu.is_blocked);
    // Where interrupts are masked, one ends the wait without being taken.
    ensure_eq!(
        smp::start(1, || {
            gic::enable(WAKE);
            cp15::wfi();
        }),
        0
    );
    let was_blocked = clock::poll(waiting);
    gic::send_sgi(Target::List(1 << 1), WAKE);
    ensure!(smp::goes_off(1));
    ensure!(was_blocked);
    Ok(())
}
