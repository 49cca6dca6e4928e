//! Return addresses on the stack, and the names of their functions.
//!
//! The walk needs no frame pointers, which assembly does not keep: it reports each word of the stack that follows a call
//! instruction in the hypervisor's text. Stale words may appear; none is missing.
//!
//! Names come from a table that the build adds to the image after linking (`krypton_symbol_table`), so that a report is
//! readable without the ELF file. Format, as written by tests/runner/src/symbols.rs:
//!
//! - the address of the first entry and the number of entries, 32-bit little-endian;
//! - per entry, in ascending order: the distance from the previous entry in halfwords (7 bits per byte, lowest
//!   first, bit 7: more follow), the length of the prefix shared with the previous name, the length of the rest, and
//!   the rest.
//!
//! An entry extends to the next one. An entry without a name ends the previous function.

#[cfg(any(target_arch = "arm", test))]
mod call;
#[cfg(test)]
mod sample;

use core::{fmt, str};

/// Size of the symbol table in the image, in bytes.
pub const SYMBOL_SPACE: usize = 8 * 1024;

/// The symbol table; all zero, which means no entries, if the build has not filled it.
#[cfg(target_os = "none")]
#[unsafe(link_section = ".symbols")]
#[unsafe(no_mangle)]
#[used]
static krypton_symbol_table: [u8; SYMBOL_SPACE] = [0; SYMBOL_SPACE];

/// Maximum length of a name, in bytes.
const LONGEST: usize = 40;

/// A function's name, decoded from the table.
#[derive(Clone, Copy)]
pub struct Name {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Name {
    const NONE: Self = Self {
        bytes: [0; LONGEST],
        len: 0,
    };

    /// Appends `own` to the first `shared` bytes of `self`.
    fn follow(&mut self, shared: usize, own: &[u8]) -> Option<()> {
        let len = shared.checked_add(own.len())?;
        if shared > self.len {
            return None;
        }
        self.bytes.get_mut(shared..len)?.copy_from_slice(own);
        self.len = len;
        Some(())
    }

    fn text(&self) -> Option<&str> {
        str::from_utf8(self.bytes.get(..self.len)?).ok()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().unwrap_or("?"))
    }
}

/// Maximum number of stack words to check.
#[cfg(target_arch = "arm")]
const DEPTH: usize = 1024;
/// Maximum number of return addresses to report.
#[cfg(target_arch = "arm")]
const MOST: usize = 24;

/// Splits `count` bytes off the front of `rest`.
fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (front, back) = rest.split_at_checked(count)?;
    *rest = back;
    Some(front)
}

fn word(rest: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(take(rest, 4)?.try_into().ok()?))
}

fn byte(rest: &mut &[u8]) -> Option<u8> {
    take(rest, 1)?.first().copied()
}

/// Decodes a number of up to 28 bits.
fn distance(rest: &mut &[u8]) -> Option<u32> {
    let mut value = 0;
    for shift in [0, 7, 14, 21] {
        let byte = byte(rest)?;
        value |= u32::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Returns the name of the entry of `table` that contains `address`, and the offset in it. A damaged table may yield a
/// wrong name, or none.
fn find(table: &[u8], address: u32) -> Option<(Name, u32)> {
    let mut rest = table;
    let (mut start, count) = (word(&mut rest)?, word(&mut rest)?);
    let mut name = Name::NONE;
    for _ in 0..count {
        let next = start.checked_add(distance(&mut rest)?.checked_mul(2)?)?;
        if next > address {
            break;
        }
        let (shared, own) = (byte(&mut rest)?, byte(&mut rest)?);
        name.follow(shared.into(), take(&mut rest, own.into())?)?;
        start = next;
    }
    (name.len > 0 && name.text().is_some()).then_some((name, address.checked_sub(start)?))
}

/// Returns the name of the function that contains `address`, and the offset in it.
#[cfg(target_os = "none")]
pub fn symbol(address: u32) -> Option<(Name, u32)> {
    // Hides the contents from the compiler: the build changes the table after compilation.
    let table = core::hint::black_box(&krypton_symbol_table);
    find(table, address)
}

/// Returns no name: a host has no table.
#[cfg(not(target_os = "none"))]
pub fn symbol(address: u32) -> Option<(Name, u32)> {
    find(&[], address)
}

/// Returns the used part of this CPU's stack, from the fault's stack pointer on, or from the current one.
#[cfg(target_arch = "arm")]
fn used() -> core::ops::Range<usize> {
    use crate::layout;
    let local = 0u32;
    let start = crate::fault::stack_of_fault().unwrap_or(&raw const local as u32) as usize;
    // The end of the stack is the next stack's guard page.
    let base = layout::stacks_start();
    if start < base || start >= layout::image_end() {
        return 0..0;
    }
    // After an overflow the stack pointer is in the guard page.
    let guard_end = base
        + (start - base) / layout::STACK_STRIDE * layout::STACK_STRIDE
        + crate::addr::PAGE_SIZE;
    let end = (base + ((start - base) / layout::STACK_STRIDE + 1) * layout::STACK_STRIDE)
        .min(layout::image_end());
    start.max(guard_end) & !3..end & !3
}

/// Returns the word at an address inside [`used`].
#[cfg(target_arch = "arm")]
fn peek(at: usize) -> u32 {
    // SAFETY: the address is within one CPU's stack, which is mapped.
    unsafe { core::ptr::read_volatile(at as *const u32) }
}

/// Words per line of [`stack`].
pub const LINE: usize = 8;

/// Calls `show` with address and words of each of the first `lines` lines of this CPU's stack, innermost first. The
/// last line may be shorter.
#[cfg(target_arch = "arm")]
pub fn stack(lines: u32, mut show: impl FnMut(u32, &[u32])) {
    let used = used();
    for at in used.clone().step_by(4 * LINE).take(lines as usize) {
        let mut words = [0; LINE];
        let mut count = 0;
        for (word, at) in words.iter_mut().zip((at..used.end).step_by(4)) {
            *word = peek(at);
            count += 1;
        }
        show(at as u32, words.get(..count).unwrap_or(&[]));
    }
}

/// Does nothing: a host's stack is not shown.
#[cfg(not(target_arch = "arm"))]
pub fn stack(_lines: u32, _show: impl FnMut(u32, &[u32])) {}

/// Calls `report` with each return address on this CPU's stack, innermost first.
#[cfg(target_arch = "arm")]
pub fn walk(mut report: impl FnMut(u32)) {
    let mut found = 0;
    for at in used().step_by(4).take(DEPTH) {
        let value = peek(at);
        if is_return_address(value as usize) {
            report(value & !1);
            found += 1;
            if found == MOST {
                return;
            }
        }
    }
}

/// Does nothing: a host's stack is not walked.
#[cfg(not(target_arch = "arm"))]
pub fn walk(_report: impl FnMut(u32)) {}

/// Returns whether the instruction before `address` is a call. Bit 0 of a return address says that the caller is Thumb code.
#[cfg(target_arch = "arm")]
fn is_return_address(address: usize) -> bool {
    use crate::layout;
    let place = address & !1;
    if place <= layout::boot_end() + 4 || place > layout::text_end() {
        return false;
    }
    // SAFETY: the address is inside our text, and even.
    let half = |at: usize| unsafe { core::ptr::read_volatile(at as *const u16) };
    let [first, second] = [half(place - 4), half(place - 2)];
    if address & 1 == 1 {
        return call::is_call([first, second]);
    }
    // Arm code: BL, or BLX to a label or to a register.
    let to_label = second & 0x0F00 == 0x0B00 || second & 0xFE00 == 0xFA00;
    let to_register = second & 0x0FFF == 0x012F && first & 0xFFF0 == 0xFF30;
    place & 2 == 0 && (to_label || to_register)
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, find, sample};
    use proptest::prelude::{any, proptest};
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn named(table: &[u8], address: u32) -> Option<(String, u32)> {
        find(table, address).map(|(name, offset)| (name.to_string(), offset))
    }

    #[test]
    fn an_address_belongs_to_the_function_around_it() {
        let table = [sample::TABLE, &[0; 16]].concat();
        for (start, size, name) in sample::FUNCTIONS {
            for offset in [0, 4, size - 4] {
                assert_eq!(
                    named(&table, start + offset),
                    Some((name.into(), offset)),
                    "{start:#x}"
                );
            }
        }
    }

    #[test]
    fn before_between_and_behind_functions_there_is_no_name() {
        for address in [0, 0x3E00_0FFC, 0x3E00_1430, 0x3E00_14FC, 0x3E00_1508, !3] {
            assert_eq!(named(sample::TABLE, address), None, "{address:#x}");
        }
    }

    #[test]
    fn a_call_of_thumb_code_is_told_from_a_branch() {
        const BL: [u16; 2] = [0xF7FF, 0xFFFE];
        const BLX: [u16; 2] = [0xF000, 0xE800];
        const BLX_R3_BEHIND_NOP: [u16; 2] = [0xBF00, 0x4798];
        const B: [u16; 2] = [0xF000, 0xB800];
        const BX_LR_BEHIND_NOP: [u16; 2] = [0xBF00, 0x4770];
        const ADDW: [u16; 2] = [0xF200, 0x0001];
        for (halves, is_call) in [
            (BL, true),
            (BLX, true),
            (BLX_R3_BEHIND_NOP, true),
            (B, false),
            (BX_LR_BEHIND_NOP, false),
            (ADDW, false),
        ] {
            assert_eq!(super::call::is_call(halves), is_call, "{halves:x?}");
        }
    }

    #[test]
    fn an_empty_or_cut_table_names_nothing_wrong() {
        assert_eq!(named(&[], 0x1000), None);
        assert_eq!(named(&[0; 64], 0x1000), None);
        for len in 0..sample::TABLE.len() {
            if let Some(found) = named(&sample::TABLE[..len], 0x3E00_1014) {
                assert_eq!(found, ("domain::run::pick".into(), 4));
            }
        }
    }

    proptest! {
        #[test]
        fn no_table_is_read_out_of_bounds(table: Vec<u8>, address: u32) {
            if let Some((name, _)) = find(&table, address) {
                assert!(name.len <= LONGEST);
            }
        }

        #[test]
        fn one_damaged_byte_does_no_harm(at in 0..sample::TABLE.len(), byte: u8, address in any::<u32>()) {
            let mut table = sample::TABLE.to_vec();
            table[at] = byte;
            let _ = find(&table, address).map(|(name, _)| name.to_string());
            let _ = find(&table, 0x3E00_1500);
        }
    }
}
