//! Return addresses on the stack, and the names of the functions they are in.
//!
//! Code is compiled without frame pointers, which would cost every function a register. So the walk is conservative: each
//! word of the stack that follows a call instruction in our text is reported. Stale words can appear; none is missing.
//!
//! Names come from a table that the build puts into the image after linking (`SYMBOLS`): all function addresses, sorted,
//! and their demangled names.

use core::str;

/// Bytes set aside in the image for the symbol table.
pub const SYMBOL_SPACE: usize = 48 * 1024;

/// The table: number of entries, then per entry the address and the offset of its name, then the names, each with its
/// length before it (one byte). All numbers are 32-bit little-endian; all zero when the build filled nothing in.
#[cfg(target_os = "none")]
#[unsafe(link_section = ".symbols")]
#[used]
static SYMBOLS: [u8; SYMBOL_SPACE] = [0; SYMBOL_SPACE];

/// Words of a stack that are looked at.
#[cfg(target_arch = "arm")]
const DEPTH: usize = 1024;
/// Return addresses that are reported.
#[cfg(target_arch = "arm")]
const MOST: usize = 24;

fn word(table: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(
        table.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

/// The entry of `table` that `address` is in: its name and how far in.
fn find(table: &[u8], address: u32) -> Option<(&str, u32)> {
    let count = word(table, 0)? as usize;
    let entry = |n: usize| word(table, 4 + n * 8);
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low.midpoint(high);
        if entry(middle)? <= address {
            low = middle + 1
        } else {
            high = middle
        }
    }
    let n = low.checked_sub(1)?;
    let names = 4 + count * 8;
    let at = names.checked_add(word(table, 8 + n * 8)? as usize)?;
    let len = usize::from(*table.get(at)?);
    let name = table.get(at + 1..at + 1 + len)?;
    Some((str::from_utf8(name).ok()?, address - entry(n)?))
}

/// Name of the function that holds `address`, and the offset in it.
#[cfg(target_os = "none")]
pub fn symbol(address: u32) -> Option<(&'static str, u32)> {
    // Read through a volatile pointer: the build changes the table after the compiler has seen it as zeroes.
    let table = core::hint::black_box(&SYMBOLS);
    find(table, address)
}

/// Name of the function that holds `address`: a host keeps no table.
#[cfg(not(target_os = "none"))]
pub fn symbol(address: u32) -> Option<(&'static str, u32)> {
    find(&[], address)
}

/// Calls `report` with each return address on this CPU's stack, innermost first.
#[cfg(target_arch = "arm")]
pub fn walk(mut report: impl FnMut(u32)) {
    use crate::layout;
    let local = 0u32;
    let start = crate::fault::stack_of_fault().unwrap_or(&raw const local as u32) as usize;
    // The stack's end: the next stack's guard page.
    let base = layout::stacks_start();
    if start < base || start >= layout::image_end() {
        return;
    }
    // An overflow's stack pointer is in the guard page.
    let guard_end = base
        + (start - base) / layout::STACK_STRIDE * layout::STACK_STRIDE
        + crate::addr::PAGE_SIZE;
    let end = (base + ((start - base) / layout::STACK_STRIDE + 1) * layout::STACK_STRIDE)
        .min(layout::image_end());
    let mut found = 0;
    for at in (start.max(guard_end) & !3..end).step_by(4).take(DEPTH) {
        // SAFETY: the range is within one CPU's stack, which is mapped.
        let value = unsafe { core::ptr::read_volatile(at as *const u32) };
        if is_return_address(value as usize) {
            report(value);
            found += 1;
            if found == MOST {
                return;
            }
        }
    }
}

/// Calls `report` with nothing: a host's stack is none of ours.
#[cfg(not(target_arch = "arm"))]
pub fn walk(_report: impl FnMut(u32)) {}

/// Whether the instruction before `address` is a call: BL or BLX in ARM state.
#[cfg(target_arch = "arm")]
fn is_return_address(address: usize) -> bool {
    use crate::layout;
    if address & 3 != 0 || address <= layout::boot_end() + 4 || address > layout::text_end() {
        return false;
    }
    // SAFETY: the address is inside our text.
    let instruction = unsafe { core::ptr::read_volatile((address - 4) as *const u32) };
    let is_bl = instruction & 0x0F00_0000 == 0x0B00_0000;
    let is_blx_register = instruction & 0x0FFF_FFF0 == 0x012F_FF30;
    is_bl || is_blx_register
}

#[cfg(test)]
mod tests {
    use super::find;

    fn table() -> Vec<u8> {
        let mut table = Vec::new();
        for n in [2u32, 0x1000, 0, 0x2000, 4] {
            table.extend(n.to_le_bytes());
        }
        table.extend(b"\x03one\x03two");
        table
    }

    #[test]
    fn an_address_belongs_to_the_function_that_starts_before_it() {
        let table = table();
        assert_eq!(find(&table, 0x1000), Some(("one", 0)));
        assert_eq!(find(&table, 0x1FFF), Some(("one", 0xFFF)));
        assert_eq!(find(&table, 0x2004), Some(("two", 4)));
        assert_eq!(find(&table, 0xFFF), None);
    }

    #[test]
    fn an_empty_or_damaged_table_names_nothing() {
        assert_eq!(find(&[], 0x1000), None);
        assert_eq!(find(&[0; 64], 0x1000), None);
        let mut damaged = table();
        damaged[0] = 200;
        assert_eq!(find(&damaged, 0xFFFF_FFFF), None);
    }
}
