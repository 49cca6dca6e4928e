//! The hypervisor's virtual address space, and the linker's symbols (linker.ld).
//!
//! | addresses | use |
//! |---|---|
//! | 0 | unmapped, so that a null pointer faults and FCSEIDR moves none of the hypervisor's addresses |
//! | [`PRIVATE`] | private memory of Rust: frame table and heap |
//! | [`FDT`] | the boot loader's device tree, until dom0 is built |
//! | [`PEEK`] | a block of RAM that boot reads |
//! | [`DEVICE`] | device registers |
//! | [`SLOTS`] | mappings of single frames outside the direct map |
//! | [`IMAGE`] | the image |
//! | [`DIRECT`] | direct map of RAM, up to 3 GiB from the first bank on |

/// Start of the direct map: GiB 1 to 3 of the address space.
pub const DIRECT: usize = 0x4000_0000;
/// Maximum size of the direct map, in bytes.
pub const DIRECT_SIZE: usize = 0xC000_0000;
/// Start of private memory: above the 32 MiB that a guest's FCSEIDR moves on processors that have it (DDI 0406C.d D11;
/// an emulator moves HYP's accesses too).
pub const PRIVATE: usize = 0x0200_0000;
/// End of private memory.
pub const PRIVATE_END: usize = 0x3000_0000;
/// The boot loader's device tree: two 2 MiB blocks.
pub const FDT: usize = 0x3C00_0000;
/// The window through which boot reads RAM: a 2 MiB block.
pub const PEEK: usize = 0x3C40_0000;
/// Device registers: one table of pages.
pub const DEVICE: usize = 0x3D00_0000;
/// Single-frame mappings: [`SLOT_TABLES`] tables of pages.
pub const SLOTS: usize = 0x3D20_0000;
/// Number of tables of single-frame mappings.
pub const SLOT_TABLES: usize = 4;
/// Number of slots among the single-frame mappings. Four mappings of each CPU are its windows instead.
pub const KEPT_FRAMES: usize = SLOT_TABLES * 512 - 4 * crate::cpu::MAX_CPUS;
/// Start of the image, as in linker.ld and boot/head.S.
pub const IMAGE: usize = 0x3E00_0000;

#[cfg(target_os = "none")]
mod symbols {
    unsafe extern "C" {
        static __boot_end: u8;
        static __text_end: u8;
        static __image_end: u8;
        static __stacks_start: u8;
        static __fault_stack_start: u8;
    }

    macro_rules! address {
        ($(#[$doc:meta])* $name:ident, $symbol:ident) => {
            $(#[$doc])*
            pub fn $name() -> usize {
                &raw const $symbol as usize
            }
        };
    }

    address!(/// End of the code that is used only during boot; the image starts with it.
        boot_end, __boot_end);
    address!(/// End of executable code.
        text_end, __text_end);
    address!(/// End of the image in memory, BSS and stacks included.
        image_end, __image_end);
    address!(/// First guard page of the CPU stacks.
        stacks_start, __stacks_start);
    address!(/// Guard page of the stack for exceptions taken in HYP.
        fault_stack_start, __fault_stack_start);
}
#[cfg(target_os = "none")]
pub use symbols::{boot_end, fault_stack_start, image_end, stacks_start, text_end};

/// Returns the number of pages that `len` bytes at `offset` of a page cover; `None` if it is 0, or above `most`.
pub fn pages(offset: usize, len: u64, most: usize) -> Option<usize> {
    let end = u64::try_from(offset).ok()?.checked_add(len)?;
    let pages = usize::try_from(end.div_ceil(crate::addr::PAGE_SIZE as u64)).ok()?;
    (len > 0 && pages <= most).then_some(pages)
}

/// Distance in bytes between the guard pages of adjacent CPUs' stacks.
pub const STACK_STRIDE: usize = 0xC000;

/// Returns the linker's build id of the image: 20 bytes.
#[cfg(target_os = "none")]
pub fn build_id() -> &'static [u8] {
    /// Bytes of the ELF note before its descriptor: sizes, type and the name "GNU".
    const NOTE_HEADER: usize = 16;
    unsafe extern "C" {
        static __build_id_start: u8;
        static __build_id_end: u8;
    }
    let start = &raw const __build_id_start as usize + NOTE_HEADER;
    let end = &raw const __build_id_end as usize;
    // SAFETY: the linker script puts the note between the two symbols, in read-only data.
    unsafe { core::slice::from_raw_parts(start as *const u8, end.saturating_sub(start)) }
}

/// Returns an empty build id: a host has none.
#[cfg(not(target_os = "none"))]
pub fn build_id() -> &'static [u8] {
    &[]
}

/// Size in bytes of the heap before the machine's memory is known: enough for the largest device tree
/// (tests/early_heap.rs).
pub const EARLY_HEAP: usize = 512 << 10;

#[cfg(test)]
mod tests {
    use super::pages;

    #[test]
    fn a_length_is_looked_at_whole() {
        assert_eq!(pages(0, 1, 512), Some(1));
        assert_eq!(pages(0xFFF, 2, 512), Some(2));
        assert_eq!(pages(0, 512 << 12, 512), Some(512));
        assert_eq!(pages(1, 512 << 12, 512), None);
        for len in [0, 1 << 32, 1 << 32 | 0x1000, u64::MAX] {
            assert_eq!(pages(0, len, 512), None, "{len:#x}");
        }
    }
}
