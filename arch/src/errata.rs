//! Errata of this processor, as pure functions of MIDR and REVIDR (Cortex-A15 MPCore Software Developers Errata
//! Notice).
//!
//! Workarounds elsewhere check here; bits that only firmware can set are reported at boot. docs/errata.md lists all
//! known errata, and why some need no workaround.

use core::sync::atomic::{AtomicU8, Ordering};

use crate::cp15;
use crate::syndrome::{DataAccess, Extend, Width};

/// Errata that need ACTLR bits which only secure firmware can set: number and bits.
const BY_FIRMWARE: [(u32, u32); 2] = [
    // Disables the loop buffer.
    (773_022, 1 << 1),
    (774_769, 1 << 25),
];

/// Returns variant and revision of a Cortex-A15, as 0xVR.
const fn cortex_a15(midr: u32) -> Option<u32> {
    match midr & 0xFF0F_FFF0 {
        0x410F_C0F0 => Some(midr >> 16 & 0xF0 | midr & 0xF),
        _ => None,
    }
}

/// Erratum 766422: HSR holds the wrong register and size for a Thumb store. Cortex-A15 r0p4.
pub const fn misreports_thumb_stores(midr: u32) -> bool {
    matches!(cortex_a15(midr), Some(0x04))
}

/// Steps of a broadcast TLB invalidate (erratum 798181): on some processors it completes at its DSB before other CPUs
/// have performed it, or while their accesses by the old translation are still in progress.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Invalidation {
    /// One invalidate and a DSB.
    Plain,
    /// Two invalidates, each with a DSB.
    Repeated,
    /// Two invalidates, each with a DSB, and a DMB on all other CPUs ([`crate::fence`]).
    RepeatedAndFenced,
}

/// Erratum 798181: Cortex-A15 up to r3p3, unless REVIDR reports it fixed (bit 9) or partly fixed (bit 4), and
/// Brahma-B15 up to r0p2.
pub const fn invalidation_of(midr: u32, revidr: u32) -> Invalidation {
    const HALF_MENDED: u32 = 1 << 4;
    const MENDED: u32 = 1 << 9;
    if matches!(midr, 0x420F_00F0..=0x420F_00F2) {
        return Invalidation::RepeatedAndFenced;
    }
    let half = match revidr & HALF_MENDED {
        0 => Invalidation::RepeatedAndFenced,
        _ => Invalidation::Repeated,
    };
    match cortex_a15(midr) {
        // REVIDR has no meaning up to this revision.
        Some(..=0x21) => Invalidation::RepeatedAndFenced,
        Some(0x22 | 0x23) => half,
        Some(0x24..=0x3F) if revidr & MENDED != 0 => Invalidation::Plain,
        Some(0x24..=0x32) => half,
        Some(0x33..=0x3F) => Invalidation::Repeated,
        _ => Invalidation::Plain,
    }
}

/// The most steps that a CPU needs which has started.
struct Needed(AtomicU8);

impl Needed {
    /// Adds a CPU's need.
    fn add(&self, steps: Invalidation) {
        self.0.fetch_max(steps as u8, Ordering::Relaxed);
    }

    fn get(&self) -> Invalidation {
        match self.0.load(Ordering::Relaxed) {
            0 => Invalidation::Plain,
            1 => Invalidation::Repeated,
            _ => Invalidation::RepeatedAndFenced,
        }
    }
}

static NEEDED: Needed = Needed(AtomicU8::new(0));

/// Records what this CPU needs, for invalidates by others: it is the receiver that has the erratum.
pub fn add_this_cpu() {
    NEEDED.add(of_this_cpu());
}

/// Returns the steps of a broadcast TLB invalidate from this CPU on.
pub fn invalidation() -> Invalidation {
    NEEDED.get().max(of_this_cpu())
}

fn of_this_cpu() -> Invalidation {
    invalidation_of(cp15::Midr::read(), cp15::Revidr::read())
}

/// How to flush the branch predictor on entry from a guest (CVE-2017-5715).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Predictor {
    /// No flush: the processor does not use what a guest has trained.
    Kept,
    /// By ICIALLU, which needs ACTLR.IBE from firmware.
    EmptiedByIciallu,
    /// By BPIALL.
    EmptiedByBpiall,
}

/// Returns how to flush the branch predictor of the processor with this MIDR.
pub const fn predictor_of(midr: u32) -> Predictor {
    match midr & 0xFF0F_FFF0 {
        // Cortex-A15 and Brahma-B15.
        0x410F_C0F0 | 0x420F_00F0 => Predictor::EmptiedByIciallu,
        // Cortex-A12 and A17.
        0x410F_C0D0 | 0x410F_C0E0 => Predictor::EmptiedByBpiall,
        _ => Predictor::Kept,
    }
}

/// Returns whether exceptions to HYP flush the branch predictor of this processor.
pub fn empties_predictor() -> bool {
    predictor_of(cp15::Midr::read()) != Predictor::Kept
}

/// Returns the errata whose workaround in `actlr` firmware should have enabled but did not. Cortex-A15 up to r0p4.
pub fn left_by_firmware(midr: u32, actlr: u32) -> impl Iterator<Item = u32> {
    let affected = matches!(cortex_a15(midr), Some(..=0x04));
    BY_FIRMWARE
        .into_iter()
        .filter(move |(_, bits)| affected && actlr & bits != *bits)
        .map(|(number, _)| number)
}

/// Returns whether a first halfword begins a 32-bit Thumb instruction (DDI 0406C.d A6.1).
pub const fn is_wide(first: u16) -> bool {
    first >= 0xE800
}

/// Decodes a Thumb store of one register without write-back. Returns `None` for other instructions (DDI 0406C.d A6.2.4
/// and A6.3.10).
pub const fn thumb_store(first: u16, second: u16) -> Option<DataAccess> {
    if is_wide(first) {
        return wide_store(first, second);
    }
    let (width, rt) = match first >> 9 {
        0b010_1000 => (Width::Word, first & 7),
        0b010_1001 => (Width::Half, first & 7),
        0b010_1010 => (Width::Byte, first & 7),
        _ => match first >> 11 {
            0b0_1100 => (Width::Word, first & 7),
            0b0_1110 => (Width::Byte, first & 7),
            0b1_0000 => (Width::Half, first & 7),
            0b1_0010 => (Width::Word, first >> 8 & 7),
            _ => return None,
        },
    };
    Some(access(width, rt))
}

const fn wide_store(first: u16, second: u16) -> Option<DataAccess> {
    let (rn, rt) = (first & 0xF, second >> 12);
    if first & 0xFF10 != 0xF800 || rn == 15 || rt == 15 {
        return None;
    }
    let width = match first >> 5 & 3 {
        0 => Width::Byte,
        1 => Width::Half,
        2 => Width::Word,
        _ => return None,
    };
    let offset_of_12_bits = first & 0x80 != 0;
    // Register, negative 8-bit offset, or unprivileged. HSR describes no access with write-back.
    let without_write_back =
        matches!(second >> 6 & 0x3F, 0) || matches!(second >> 8 & 0xF, 0xC | 0xE);
    if offset_of_12_bits || without_write_back {
        Some(access(width, rt))
    } else {
        None
    }
}

const fn access(width: Width, rt: u16) -> DataAccess {
    DataAccess {
        width,
        extend: Extend::Zero,
        rt: (rt & 0xF) as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::Invalidation::{Plain, Repeated, RepeatedAndFenced};
    use super::{
        AtomicU8, Needed, Predictor, invalidation_of, left_by_firmware, misreports_thumb_stores,
        predictor_of, thumb_store,
    };
    use crate::syndrome::Width::{self, Byte, Half, Word};

    const EXYNOS5250: u32 = 0x410F_C0F4;
    const TC2: u32 = 0x412F_C0F1;
    const R3P2: u32 = 0x413F_C0F2;
    const R3P3: u32 = 0x413F_C0F3;
    const QEMU: u32 = 0x414F_C0F0;
    const CORTEX_A7: u32 = 0x410F_C075;

    #[test]
    fn errata_are_those_of_the_revision() {
        for (midr, misreports) in [
            (EXYNOS5250, true),
            (TC2, false),
            (R3P2, false),
            (QEMU, false),
            (CORTEX_A7, false),
        ] {
            assert_eq!(misreports_thumb_stores(midr), misreports, "{midr:#x}");
        }
    }

    #[test]
    fn one_cpu_of_two_kinds_decides_for_all() {
        let needed = Needed(AtomicU8::new(0));
        for (midr, steps) in [
            (CORTEX_A7, Plain),
            (R3P3, Repeated),
            (TC2, RepeatedAndFenced),
            (CORTEX_A7, RepeatedAndFenced),
        ] {
            needed.add(invalidation_of(midr, 0));
            assert_eq!(needed.get(), steps, "{midr:#x}");
        }
    }

    #[test]
    fn invalidates_are_late_by_revision_and_by_what_is_mended() {
        let (none, half, all) = (0, 1 << 4, 1 << 9);
        for (midr, by_revidr) in [
            (EXYNOS5250, [RepeatedAndFenced; 4]),
            (TC2, [RepeatedAndFenced; 4]),
            (
                0x412F_C0F2,
                [RepeatedAndFenced, Repeated, RepeatedAndFenced, Repeated],
            ),
            (
                0x412F_C0F3,
                [RepeatedAndFenced, Repeated, RepeatedAndFenced, Repeated],
            ),
            (0x412F_C0F4, [RepeatedAndFenced, Repeated, Plain, Plain]),
            (R3P2, [RepeatedAndFenced, Repeated, Plain, Plain]),
            (R3P3, [Repeated, Repeated, Plain, Plain]),
            (QEMU, [Plain; 4]),
            (CORTEX_A7, [Plain; 4]),
            (0x420F_00F0, [RepeatedAndFenced; 4]),
            (0x420F_00F2, [RepeatedAndFenced; 4]),
            (0x420F_00F3, [Plain; 4]),
        ] {
            for (revidr, wanted) in [none, half, all, half | all].into_iter().zip(by_revidr) {
                let found = invalidation_of(midr, revidr);
                assert_eq!(found, wanted, "{midr:#x}, REVIDR {revidr:#x}");
            }
        }
    }

    #[test]
    fn what_firmware_has_not_switched_on_is_named() {
        let left = |midr, actlr| left_by_firmware(midr, actlr).collect::<Vec<_>>();
        assert_eq!(left(EXYNOS5250, 0), [773_022, 774_769]);
        assert_eq!(left(EXYNOS5250, 1 << 1), [774_769]);
        assert_eq!(left(EXYNOS5250, 1 << 25 | 1 << 1), []);
        assert_eq!(left(QEMU, 0), []);
        assert_eq!(left(CORTEX_A7, 0), []);
    }

    fn is(code: u32, width: Width, rt: u8) {
        let (first, second) = match code >> 16 {
            0 => (code as u16, 0),
            first => (first as u16, code as u16),
        };
        let access = thumb_store(first, second).unwrap_or_else(|| panic!("{code:#x}"));
        assert_eq!((access.width, access.rt), (width, rt), "{code:#x}");
    }

    #[test]
    fn every_form_of_store_is_read() {
        is(0x5088, Word, 0); // str r0, [r1, r2]
        is(0x528B, Half, 3); // strh r3, [r1, r2]
        is(0x548F, Byte, 7); // strb r7, [r1, r2]
        is(0x604A, Word, 2); // str r2, [r1, #4]
        is(0x704D, Byte, 5); // strb r5, [r1, #1]
        is(0x804E, Half, 6); // strh r6, [r1, #2]
        is(0x9401, Word, 4); // str r4, [sp, #4]
        is(0xF8C1_C004, Word, 12); // str.w r12, [r1, #4]
        is(0xF8A1_B004, Half, 11); // strh.w r11, [r1, #4]
        is(0xF881_A004, Byte, 10); // strb.w r10, [r1, #4]
        is(0xF8C1_D004, Word, 13); // str.w sp, [r1, #4]
        is(0xF841_9C04, Word, 9); // str r9, [r1, #-4]
        is(0xF821_8C04, Half, 8); // strh r8, [r1, #-4]
        is(0xF801_EC04, Byte, 14); // strb lr, [r1, #-4]
        is(0xF841_9022, Word, 9); // str.w r9, [r1, r2, lsl #2]
        is(0xF821_9002, Half, 9); // strh.w r9, [r1, r2]
        is(0xF801_9002, Byte, 9); // strb.w r9, [r1, r2]
        is(0xF841_0E04, Word, 0); // strt r0, [r1, #4]
        is(0xF821_1E04, Half, 1); // strht r1, [r1, #4]
        is(0xF801_2E04, Byte, 2); // strbt r2, [r1, #4]
    }

    #[test]
    fn what_is_no_store_of_one_register_or_writes_back_is_nothing() {
        for (first, second) in [
            (0x6848, 0),      // ldr r0, [r1, #4]
            (0x5888, 0),      // ldr r0, [r1, r2]
            (0x5688, 0),      // ldrsb r0, [r1, r2]
            (0xC103, 0),      // stm r1!, {r0, r1}
            (0xB403, 0),      // push {r0, r1}
            (0xF841, 0x0B04), // str r0, [r1], #4
            (0xF841, 0x0D04), // str r0, [r1, #-4]!
            (0xF841, 0x0F04), // str r0, [r1, #4]!
            (0xF841, 0x0904), // undefined
            (0xF8CF, 0x0004), // from PC: undefined
            (0xF8C1, 0xF004), // str pc
            (0xF8E1, 0x0004), // undefined
            (0xF8D1, 0x0004), // ldr.w
            (0xE841, 0x0200), // strex
            (0xE9C1, 0x0100), // strd
        ] {
            assert_eq!(thumb_store(first, second), None, "{first:#x} {second:#x}");
        }
    }

    #[test]
    fn any_two_halfwords_are_answered() {
        for first in 0..=u16::MAX {
            for second in [0, 0x0C00, 0x0E00, 0xFFFF] {
                if let Some(access) = thumb_store(first, second) {
                    assert!(access.rt < 15);
                }
            }
        }
    }

    #[test]
    fn each_processor_has_its_predictor_emptied_by_what_does_that_there() {
        let by_iciallu = [0x412F_C0F1, 0x413F_C0F3, 0x420F_00F0];
        let by_bpiall = [0x410F_C0D1, 0x410F_C0E0, 0x411F_C0E2];
        assert!(by_iciallu.map(predictor_of) == [Predictor::EmptiedByIciallu; 3]);
        assert!(by_bpiall.map(predictor_of) == [Predictor::EmptiedByBpiall; 3]);
        assert_eq!(predictor_of(0x410F_C075), Predictor::Kept, "Cortex-A7");
    }
}
