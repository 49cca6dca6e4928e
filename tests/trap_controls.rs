//! Each bit of the registers that say what traps from a guest (DDI 0406C.d B1.14, B4.1): why it is set or clear.
//!
//! A control that is clear leaves state to guests, which must then be part of a vCPU; the test guest `registers` looks for
//! what is not. For each armed one a guest has what only the trap makes so, or the row says why none can.

use std::fs;
use std::path::Path;

use armv7::controls;
use armv7::timer;

enum Bit {
    /// Always set.
    Set(Seen),
    /// Set where WFI and WFE of guests trap.
    Wait(Seen),
    Clear,
    /// Clear, and by that a trap.
    ClearTraps(Seen),
    /// As it was.
    Kept,
}
use Bit::{Clear, ClearTraps, Kept, Set, Wait};

/// Where it is seen that the bit does what it is for.
enum Seen {
    /// In the guest that has this text: the name of a sentence, or what it says of an access.
    Guest(&'static str),
    /// Nowhere, and why.
    Nowhere(&'static str),
}
use Seen::{Guest, Nowhere};

/// Lowest bit, number of bits, name, state, why.
type Row = (u32, u32, &'static str, Bit, &'static str);

#[rustfmt::skip]
const HCR: &[Row] = &[
    (0, 1, "VM", Set(Guest("a_load_from_nowhere_is_a_data_abort")), "stage 2 confines the guest"),
    (1, 1, "SWIO", Set(Nowhere("QEMU has no caches")), "an invalidation by set and way cleans too"),
    (2, 1, "PTW", Set(Nowhere("no guest has tables there")), "a walk of the guest's tables in device memory is an error"),
    (3, 1, "FMO", Set(Nowhere("the machine raises no FIQ")), "physical FIQs come to HYP"),
    (4, 1, "IMO", Set(Guest("an_expired_virtual_timer_is_taken_once")), "physical IRQs come to HYP"),
    (5, 1, "AMO", Set(Nowhere("QEMU raises no such abort")), "physical asynchronous aborts come to HYP"),
    (6, 1, "VF", Clear, "virtual FIQs come from list registers, never"),
    (7, 1, "VI", Clear, "virtual IRQs come from list registers"),
    (8, 1, "VA", Clear, "set with the vCPU that has an abort to take"),
    (9, 1, "FB", Set(Nowhere("QEMU's maintenance reaches all CPUs")), "maintenance reaches the CPUs that the vCPU was on"),
    (10, 2, "BSU", Set(Nowhere("QEMU's barriers reach all CPUs")), "barriers reach the inner shareable domain, for the same reason"),
    (12, 1, "DC", Clear, "with its MMU off a guest's accesses are as the architecture says"),
    (13, 1, "TWI", Wait(Guest("a_vcpu_in_wfi_is_blocked")), "a waiting vCPU gives its CPU away"),
    (14, 1, "TWE", Wait(Nowhere("QEMU's WFE does not trap")), "a spinning vCPU gives its CPU away"),
    (15, 1, "TID0", Clear, "JIDR and FPSID tell what there is"),
    (16, 1, "TID1", Clear, "TCMTR, TLBTR, REVIDR and AIDR tell what there is"),
    (17, 1, "TID2", Clear, "cache identification is the hardware's; CSSELR belongs to the vCPU"),
    (18, 1, "TID3", Clear, "Linux reads MVFR0 in each context switch"),
    (19, 1, "TSC", Set(Guest("HCR.TSC:")), "firmware is not the guest's to call"),
    (20, 1, "TIDCP", Set(Guest("HCR.TIDCP:")), "lockdown and implementation-defined registers are shared"),
    (21, 1, "TAC", Set(Guest("HCR.TAC:")), "ACTLR is the CPU's, not a guest's"),
    (22, 1, "TSW", Set(Nowhere("QEMU's Cortex-A15 does not trap it")), "set and way reach everybody's lines"),
    (23, 1, "TPC", Clear, "maintenance by address reaches what the guest may read"),
    (24, 1, "TPU", Clear, "the same"),
    (25, 1, "TTLB", Clear, "TLB maintenance is confined to the guest's VMID"),
    (26, 1, "TVM", Clear, "the translation registers belong to the vCPU"),
    (27, 1, "TGE", Clear, "guests have their own kernel mode"),
];

#[rustfmt::skip]
const HSTR: &[Row] = &[
    (0, 1, "T0", Clear, "identification; CSSELR belongs to the vCPU"),
    (1, 1, "T1", Clear, "SCTLR and CPACR belong to the vCPU; HCR.TAC has ACTLR"),
    (2, 1, "T2", Clear, "TTBR0, TTBR1 and TTBCR belong to the vCPU"),
    (3, 1, "T3", Clear, "DACR belongs to the vCPU"),
    (5, 1, "T5", Clear, "fault status belongs to the vCPU"),
    (6, 1, "T6", Clear, "fault addresses belong to the vCPU"),
    (7, 1, "T7", Clear, "maintenance by address; HCR.TSW has set and way; PAR belongs to the vCPU"),
    (8, 1, "T8", Clear, "TLB maintenance of the guest's VMID"),
    (9, 1, "T9", Clear, "HCR.TIDCP has lockdown, HDCR.TPM the performance monitors"),
    (10, 1, "T10", Clear, "memory attributes belong to the vCPU; HCR.TIDCP has lockdown"),
    (11, 1, "T11", Clear, "HCR.TIDCP has it"),
    (12, 1, "T12", Clear, "VBAR belongs to the vCPU"),
    (13, 1, "T13", Clear, "FCSEIDR, CONTEXTIDR and the thread registers belong to the vCPU"),
    (15, 1, "T15", Set(Guest("HSTR.T15:")), "implementation-defined access to RAM and tests"),
    (16, 1, "TTEE", Clear, "TEECR and TEEHBR belong to the vCPU: kernels use what ID_PFR0 names"),
    (17, 1, "TJDBX", Clear, "the trivial Jazelle keeps nothing"),
];

#[rustfmt::skip]
const HCPTR: &[Row] = &[
    (0, 10, "TCP0 to TCP9", Set(Guest("HCPTR.TCP0")), "there is no such coprocessor"),
    (10, 2, "TCP10, TCP11", Clear, "VFP and Advanced SIMD belong to the vCPU"),
    (12, 2, "TCP12, TCP13", Set(Guest("HCPTR.TCP12")), "there is no such coprocessor"),
    (15, 1, "TASE", Clear, "Advanced SIMD belongs to the vCPU"),
    (20, 1, "TTA", Set(Guest("HCPTR.TTA")), "trace shows what others do"),
    (31, 1, "TCPAC", Clear, "CPACR belongs to the vCPU"),
];

#[rustfmt::skip]
const HDCR: &[Row] = &[
    (0, 5, "HPMN", Kept, "no more counters than there are"),
    (5, 1, "TPMCR", Set(Guest("HDCR.TPMCR:")), "the monitors show what others do"),
    (6, 1, "TPM", Set(Guest("HDCR.TPM:")), "the same; open for a domain that has vPMU, whose counters are switched"),
    (7, 1, "HPME", Clear, "HYP counts nothing"),
    (8, 1, "TDE", Clear, "a guest's BKPT is its own"),
    (9, 1, "TDA", Set(Guest("HDCR.TDA:")), "breakpoints and watchpoints are shared"),
    (10, 1, "TDOSA", Set(Guest("HDCR.TDOSA:")), "so is the OS lock"),
    (11, 1, "TDRA", Set(Guest("HDCR.TDRA:")), "the debug ROM's address is a physical one"),
];

#[rustfmt::skip]
const CNTHCTL: &[Row] = &[
    (0, 1, "PL1PCTEN", Set(Guest("the_virtual_counter_is_behind_the_physical_one_by_a_constant")), "the physical counter may be read"),
    (1, 1, "PL1PCEN", ClearTraps(Guest("CNTP_CVAL")), "the physical timer is emulated"),
    (2, 1, "EVNTEN", Clear, "HYP wants no event stream"),
    (3, 1, "EVNTDIR", Clear, "the same"),
    (4, 4, "EVNTI", Clear, "the same"),
];

fn bits(rows: &[Row], wanted: impl Fn(&Bit) -> bool) -> u32 {
    let mut seen = 0_u32;
    let mut all = 0;
    for (lowest, count, name, bit, why) in rows {
        let mask = ((1_u64 << count) - 1) as u32;
        let mask = mask << lowest;
        assert!(seen & mask == 0, "{name} is there once");
        assert!(!why.is_empty());
        seen |= mask;
        if wanted(bit) {
            // BSU is a number: 1 is the inner shareable domain.
            all |= if *name == "BSU" { 1 << lowest } else { mask };
        }
    }
    all
}

fn always(bit: &Bit) -> bool {
    matches!(bit, Set(_))
}

#[test]
fn what_traps_from_guests_is_what_the_table_says() {
    assert_eq!(bits(HCR, always), controls::HCR);
    assert_eq!(bits(HCR, |bit| matches!(bit, Wait(_))), controls::HCR_WAIT);
    assert_eq!(bits(HSTR, always), controls::HSTR);
    assert_eq!(bits(HCPTR, always), controls::HCPTR);
    assert_eq!(bits(HDCR, always), controls::HDCR);
    assert_eq!(bits(HDCR, |bit| matches!(bit, Kept)), controls::HDCR_HPMN);
    assert_eq!(bits(CNTHCTL, always), timer::CNTHCTL);
}

#[test]
fn no_bit_is_left_out() {
    let every = |rows| bits(rows, |_| true);
    // BSU's upper bit is not among them, as `bits` counts it.
    assert_eq!(every(HCR), 0x0FFF_FFFF & !(1 << 11));
    // T4 and T14 are reserved (DDI 0406C.d B4.1.78).
    assert_eq!(every(HSTR), 0x3_FFFF & !(1 << 4) & !(1 << 14));
    assert_eq!(every(HCPTR), 0x3FFF | 1 << 15 | 1 << 20 | 1 << 31);
    assert_eq!(every(HDCR), 0xFFF);
    assert_eq!(every(CNTHCTL), 0xFF);
}

/// All files of a folder and those in it, as one text.
fn text_below(folder: &Path) -> String {
    let entries = fs::read_dir(folder).expect("a folder of the repository");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .map(|path| match path.is_dir() {
            true => text_below(&path),
            false => fs::read_to_string(path).expect("a text"),
        })
        .collect()
}

#[test]
fn a_guest_sees_each_armed_trap_or_the_row_says_why_not() {
    let guests = text_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests/src/bin"));
    for (_, _, name, bit, _) in [HCR, HSTR, HCPTR, HDCR, CNTHCTL].into_iter().flatten() {
        match bit {
            Set(Guest(text)) | Wait(Guest(text)) | ClearTraps(Guest(text)) => {
                assert!(guests.contains(text), "no guest has {text} for {name}");
            }
            Set(Nowhere(why)) | Wait(Nowhere(why)) | ClearTraps(Nowhere(why)) => {
                assert!(!why.is_empty(), "{name}");
            }
            Clear | Kept => {}
        }
    }
}
