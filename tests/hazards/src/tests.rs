//! The rules, each with a machine that keeps it and one that does not.

use crate::decode::{Barrier, Instruction, Operation, condition_holds, decode};
use crate::{Access, Erratum, Kind, Machine, Mode};

const BASE: u64 = 0x4000_0000;
/// The hypervisor's map: one block of 1 GiB that maps RAM to itself.
const ROOT: u64 = BASE + 0x10_0000;
/// A guest's root: two pages.
const STAGE2: u64 = BASE + 0x20_0000;
const LEVEL2: u64 = BASE + 0x30_0000;
const LEVEL3: u64 = BASE + 0x31_0000;
const PAGE: u64 = BASE + 0x40_0000;
const VMID: u64 = 5;
const VTTBR: u64 = STAGE2 | VMID << 48;
/// A page or block: valid, accessed, write-back.
const LEAF: u64 = 0x7FD;
const PAGE_LEAF: u64 = LEAF | 3;

struct Test(Machine);

impl Test {
    /// Returns a machine with translation on, and a guest's map with tables down to level 3.
    fn new(erratum: Erratum) -> Self {
        let mut test = Self(Machine::new(BASE, 0x80_0000, 2, erratum));
        for cpu in 0..2 {
            test.store(cpu, ROOT + 8, BASE | 0x7FD);
            test.dsb(cpu);
            test.operate(cpu, Operation::Httbr, ROOT);
            test.operate(cpu, Operation::TlbiHyp, 0);
            test.dsb(cpu);
            test.isb(cpu);
            test.operate(cpu, Operation::Dcimvac, ROOT);
            test.dsb(cpu);
            test.operate(cpu, Operation::Hsctlr, 0x1005);
            test.isb(cpu);
        }
        test.store(0, STAGE2 + 8, LEVEL2 | 3);
        test.store(0, LEVEL2, LEVEL3 | 3);
        test.dsb(0);
        test.enter(0);
        assert_eq!(test.found(), []);
        test
    }
    fn store(&mut self, cpu: usize, pa: u64, value: u64) {
        self.access(Mode::Hyp, cpu, pa, Some(value));
    }
    fn access(&mut self, mode: Mode, cpu: usize, pa: u64, value: Option<u64>) {
        self.0.access(
            mode,
            Access {
                cpu,
                pc: pa as u32,
                va: pa as u32,
                pa,
                size: 8,
                value,
            },
        );
    }
    fn operate(&mut self, cpu: usize, operation: Operation, value: u64) {
        self.0.operate(Mode::Hyp, cpu, 1, operation, value);
    }
    fn dsb(&mut self, cpu: usize) {
        self.0.barrier(Mode::Hyp, cpu, Barrier::Dsb);
    }
    fn isb(&mut self, cpu: usize) {
        self.0.barrier(Mode::Hyp, cpu, Barrier::Isb);
    }
    /// Enters the guest, with its caches off.
    fn enter(&mut self, cpu: usize) {
        self.operate(cpu, Operation::Vttbr, VTTBR);
        self.0.enter_guest(cpu, 2);
    }
    /// As the hypervisor does it.
    fn flush(&mut self, cpu: usize) {
        self.dsb(cpu);
        self.operate(cpu, Operation::TlbiGuestAll, 0);
        self.dsb(cpu);
    }
    fn found(&mut self) -> Vec<Kind> {
        let reports = self.0.take_reports();
        reports.iter().map(|report| report.kind).collect()
    }
    /// Maps the guest's page 0, with all that it takes.
    fn map(&mut self) {
        self.store(0, LEVEL3, PAGE | PAGE_LEAF);
        self.dsb(0);
        self.enter(0);
        assert_eq!(self.found(), []);
    }
}

#[test]
fn a_line_is_clean_after_the_operation_and_the_barrier_and_not_before() {
    let mut test = Test::new(Erratum::None);
    test.store(0, PAGE, 1);
    test.operate(0, Operation::Dccmvac, PAGE);
    test.access(Mode::Guest, 0, PAGE, None);
    assert_eq!(test.found(), [Kind::ReadPastDirtyLine]);
    test.store(0, PAGE + 64, 1);
    test.operate(0, Operation::Dccmvac, PAGE + 64);
    test.dsb(0);
    test.access(Mode::Guest, 0, PAGE + 64, None);
    assert_eq!(test.found(), []);
    // A store after the clean makes it dirty again.
    test.store(0, PAGE + 128, 1);
    test.operate(0, Operation::Dccmvac, PAGE + 128);
    test.store(0, PAGE + 128, 2);
    test.dsb(0);
    test.access(Mode::Guest, 0, PAGE + 128, Some(3));
    assert_eq!(test.found(), [Kind::WrittenPastDirtyLine]);
}

#[test]
fn a_guest_with_its_caches_on_sees_dirty_lines() {
    let mut test = Test::new(Erratum::None);
    test.store(0, PAGE, 1);
    test.operate(0, Operation::Sctlr, 0x1005);
    test.access(Mode::Guest, 0, PAGE, None);
    assert_eq!(test.found(), []);
}

#[test]
fn what_was_written_past_the_caches_is_invalidated_before_it_is_read_through_them() {
    let mut test = Test::new(Erratum::None);
    test.operate(0, Operation::Hsctlr, 0);
    test.store(0, PAGE, 1);
    test.store(0, PAGE + 64, 1);
    test.operate(0, Operation::Dcimvac, PAGE);
    test.dsb(0);
    test.operate(0, Operation::Hsctlr, 0x1005);
    test.isb(0);
    test.access(Mode::Hyp, 0, PAGE, None);
    assert_eq!(test.found(), []);
    test.access(Mode::Hyp, 0, PAGE + 64, None);
    assert_eq!(test.found(), [Kind::StaleLine]);
}

#[test]
fn a_dirty_line_is_not_invalidated_without_a_clean() {
    let mut test = Test::new(Erratum::None);
    test.store(0, PAGE, 1);
    test.operate(0, Operation::Dcimvac, PAGE);
    assert_eq!(test.found(), [Kind::DirtyLineDropped]);
}

#[test]
fn code_is_fetched_after_a_clean_and_an_invalidate_of_instruction_caches() {
    let mut test = Test::new(Erratum::None);
    test.map();
    // The guest's page 0 is the input 1 GiB, as level 2 hangs at the root's entry 1.
    let at = 0x4000_0000;
    test.store(0, PAGE, 1);
    test.0.fetch(0, at);
    assert_eq!(test.found(), [Kind::FetchedDirtyLine]);
    test.operate(0, Operation::Dccmvac, PAGE);
    test.dsb(0);
    test.0.fetch(0, at);
    assert_eq!(test.found(), [Kind::FetchedStaleLine]);
    test.operate(0, Operation::Icialluis, 0);
    test.dsb(0);
    test.0.fetch(0, at + 4);
    assert_eq!(test.found(), []);
}

#[test]
fn an_entry_is_broken_flushed_and_made_in_this_order() {
    let mut test = Test::new(Erratum::None);
    test.map();
    test.store(0, LEVEL3, 0);
    test.flush(0);
    test.store(0, LEVEL3, (PAGE + 0x1000) | PAGE_LEAF);
    test.dsb(0);
    test.enter(0);
    assert_eq!(test.found(), []);
    // In place.
    test.store(0, LEVEL3, PAGE | PAGE_LEAF);
    assert_eq!(test.found(), [Kind::LiveEntryChanged]);
    // Without a flush.
    test.store(0, LEVEL3, 0);
    test.store(0, LEVEL3, PAGE | PAGE_LEAF);
    assert!(test.found().contains(&Kind::LiveEntryChanged) || test.0.seen().entries_broken > 2);
}

#[test]
fn rights_change_in_place_and_fewer_of_them_are_flushed() {
    const WRITE: u64 = 1 << 7;
    let mut test = Test::new(Erratum::None);
    test.map();
    test.store(0, LEVEL3, PAGE | PAGE_LEAF & !WRITE);
    test.flush(0);
    test.enter(0);
    test.store(0, LEVEL3, PAGE | PAGE_LEAF);
    test.dsb(0);
    test.enter(0);
    assert_eq!(test.found(), []);
    test.store(0, LEVEL3, PAGE | PAGE_LEAF & !WRITE);
    test.dsb(0);
    test.enter(0);
    assert_eq!(test.found(), [Kind::NotInvalidated]);
    test.store(0, LEVEL3, PAGE | PAGE_LEAF);
    test.enter(0);
    assert_eq!(test.found(), [Kind::NotPublished]);
}

#[test]
fn each_step_of_a_flush_is_missed() {
    type Step = fn(&mut Test);
    let steps: [Step; 3] = [
        |test| test.dsb(0),
        |test| test.operate(0, Operation::TlbiGuestAll, 0),
        |test| test.dsb(0),
    ];
    let expected = [
        Kind::InvalidatedTooEarly,
        Kind::NotInvalidated,
        Kind::NotInvalidated,
    ];
    for (left_out, kind) in expected.into_iter().enumerate() {
        let mut test = Test::new(Erratum::None);
        test.map();
        test.store(0, LEVEL3, 0);
        for (n, step) in steps.iter().enumerate() {
            if n != left_out {
                step(&mut test);
            }
        }
        test.enter(0);
        assert_eq!(test.found(), [kind], "without step {left_out}");
    }
}

#[test]
fn a_frame_or_table_is_not_used_again_before_the_flush() {
    let mut test = Test::new(Erratum::None);
    test.map();
    test.store(0, LEVEL3, 0);
    test.store(0, PAGE, 0);
    assert_eq!(test.found(), [Kind::FrameWrittenTooEarly]);
    test.map();
    test.store(0, LEVEL2, 0);
    test.store(0, LEVEL3 + 8, 1);
    assert_eq!(test.found(), [Kind::TableReused]);
}

#[test]
fn a_new_entry_is_published_and_its_table_ordered() {
    let mut test = Test::new(Erratum::None);
    test.store(0, LEVEL3, PAGE | PAGE_LEAF);
    test.enter(0);
    assert_eq!(test.found(), [Kind::NotPublished]);
    let table = BASE + 0x50_0000;
    test.store(0, table, PAGE | PAGE_LEAF);
    test.store(0, LEVEL2 + 8, table | 3);
    assert_eq!(test.found(), [Kind::LinkedTooEarly]);
}

#[test]
fn bits_of_software_may_change_in_a_live_entry() {
    let mut test = Test::new(Erratum::None);
    test.map();
    test.store(0, LEVEL3, PAGE | PAGE_LEAF | 0xF << 55);
    test.store(0, LEVEL2, LEVEL3 | 3 | 0x3FF << 2 | 0x7F << 52);
    test.enter(0);
    assert_eq!(test.found(), []);
}

#[test]
fn a_regime_is_synchronized_before_operations_use_it() {
    let mut test = Test::new(Erratum::None);
    test.operate(0, Operation::Vttbr, 0);
    test.operate(0, Operation::TlbiGuestAll, 0);
    assert_eq!(test.found(), [Kind::RegimeNotSynchronized]);
    test.operate(0, Operation::Vttbr, VTTBR);
    test.isb(0);
    test.operate(0, Operation::Translate, 0);
    assert_eq!(test.found(), []);
    test.operate(0, Operation::ReadPar, 0);
    assert_eq!(test.found(), [Kind::ResultTooEarly]);
}

#[test]
fn an_interrupt_is_sent_after_what_it_tells_of() {
    let mut test = Test::new(Erratum::None);
    test.store(0, PAGE, 1);
    test.0.barrier(Mode::Hyp, 0, Barrier::DsbStores);
    test.0.send_interrupt(0, 1);
    assert_eq!(test.found(), []);
    test.store(0, PAGE, 2);
    test.0.send_interrupt(0, 1);
    assert_eq!(test.found(), [Kind::InterruptTooEarly]);
}

#[test]
fn a_vmid_of_another_map_is_flushed_first() {
    let other = (BASE + 0x60_0000) | VMID << 48;
    let mut test = Test::new(Erratum::None);
    test.operate(0, Operation::Vttbr, other);
    test.0.enter_guest(0, 2);
    assert_eq!(test.found(), [Kind::VmidReused]);
    let mut test = Test::new(Erratum::None);
    test.operate(0, Operation::Vttbr, other);
    test.isb(0);
    test.flush(0);
    test.operate(0, Operation::Vttbr, other);
    test.0.enter_guest(0, 2);
    assert_eq!(test.found(), []);
}

#[test]
fn on_a_processor_with_the_erratum_an_invalidate_is_repeated_and_others_answer() {
    let repeated = |erratum: Erratum, again: bool, fence: bool| {
        let mut test = Test::new(erratum);
        test.map();
        test.store(0, LEVEL3, 0);
        test.flush(0);
        if again {
            test.operate(0, Operation::TlbiGuestPage, 0);
            test.dsb(0);
        }
        if fence {
            test.0.barrier(Mode::Hyp, 1, Barrier::Dmb);
        }
        test.enter(0);
        test.found().is_empty()
    };
    assert!(repeated(Erratum::None, false, false));
    assert!(!repeated(Erratum::Repeat, false, false));
    assert!(repeated(Erratum::Repeat, true, false));
    assert!(!repeated(Erratum::RepeatAndFence, true, false));
    assert!(repeated(Erratum::RepeatAndFence, true, true));
}

#[test]
fn translation_is_switched_on_after_its_tables_and_roots_are_ready() {
    let mut test = Test(Machine::new(BASE, 0x80_0000, 1, Erratum::None));
    test.store(0, ROOT + 8, BASE | 0x7FD);
    test.operate(0, Operation::Httbr, ROOT);
    test.operate(0, Operation::Hsctlr, 0x1005);
    let found = test.found();
    assert!(found.contains(&Kind::RootNotSynchronized), "{found:?}");
    assert!(found.contains(&Kind::TablesNotReady), "{found:?}");
    test.access(Mode::Hyp, 0, PAGE, None);
    assert_eq!(test.found(), [Kind::RootNotSynchronized], "no ISB");
}

#[test]
fn instructions_are_told_by_their_encodings() {
    let operation = |word| match decode(word) {
        Some(Instruction::Operation(operation, low, high)) => Some((operation, low, high)),
        _ => None,
    };
    let barrier = |word| match decode(word) {
        Some(Instruction::Barrier(barrier)) => Some(barrier),
        _ => None,
    };
    assert_eq!(operation(0xEE07_0F3A), Some((Operation::Dccmvac, 0, None)));
    assert_eq!(operation(0xEE07_0F36), Some((Operation::Dcimvac, 0, None)));
    assert_eq!(operation(0xEE88_1F17), Some((Operation::TlbiHyp, 1, None)));
    assert_eq!(operation(0xEC41_0F42), Some((Operation::Httbr, 0, Some(1))));
    assert_eq!(
        operation(0xEC54_2F07),
        Some((Operation::ReadPar, 2, Some(4)))
    );
    assert_eq!(operation(0xEE10_0F10), None, "MIDR");
    assert_eq!(barrier(0xF57F_F05B), Some(Barrier::Dmb));
    assert_eq!(barrier(0xF57F_F04F), Some(Barrier::Dsb));
    assert_eq!(barrier(0xF57F_F04A), Some(Barrier::DsbStores));
    assert_eq!(barrier(0xF57F_F06F), Some(Barrier::Isb));
    assert_eq!(decode(0xE160_006E), Some(Instruction::Eret));
    assert!(condition_holds(0xE, 0) && condition_holds(0, 1 << 30) && !condition_holds(1, 1 << 30));
}

#[test]
fn instructions_of_thumb_state_are_those_of_arm_state() {
    use crate::decode::{Barrier, Instruction, ItState, Operation, decode, is_strd, of_thumb};
    for (thumb, decoded) in [
        (0xF3BF_8F4F, Instruction::Barrier(Barrier::Dsb)),
        (0xF3BF_8F4A, Instruction::Barrier(Barrier::DsbStores)),
        (0xF3BF_8F5B, Instruction::Barrier(Barrier::Dmb)),
        (0xF3BF_8F6F, Instruction::Barrier(Barrier::Isb)),
        (0xF3DE_8F00, Instruction::Eret),
        // mcr p15, 4, r3, c8, c7, 0
        (
            0xEE88_3F17,
            Instruction::Operation(Operation::TlbiHyp, 3, None),
        ),
        // mcrr p15, 6, r2, r3, c2
        (
            0xEC43_2F62,
            Instruction::Operation(Operation::Vttbr, 2, Some(3)),
        ),
    ] {
        assert_eq!(decode(of_thumb(thumb, 0xE)), Some(decoded), "{thumb:#x}");
    }
    // strd r0, r1, [r2, #8]; ldrd; strexd r3, r0, r1, [r2]; movw r0, #0
    let stores = [0xE9C2_0102, 0xE9D2_0102, 0xE8C2_0173, 0xF240_0000];
    assert_eq!(
        stores.map(|word| of_thumb(word, 0xE) != 0 && is_strd(of_thumb(word, 0xE))),
        [true, false, false, false]
    );
    // itte ne, then three instructions, then one behind.
    let mut state = ItState::of(0);
    let conditions = [0xBF1A, 0xEE88, 0xEE88, 0xEE88, 0xEE88].map(|half| state.next(half));
    assert_eq!(conditions, [0xE, 1, 1, 0, 0xE]);
    assert_eq!(of_thumb(0xEE88_3F17, 1) >> 28, 1);
    // The same, two instructions behind the IT, as CPSR tells it.
    let state_of_cpsr = 0x18u32;
    let cpsr = (state_of_cpsr & 0xFC) << 8 | (state_of_cpsr & 3) << 25;
    assert_eq!(ItState::of(cpsr).next(0xEE88), 1);
}
