//! Where a guest's kernel, tree and RAM disk go in its first bank of RAM.
//!
//! The places are Xen's: an image that runs anywhere ends at 128 MiB into the bank, the tree starts there and the RAM
//! disk 2 MiB blocks after it, out of the decompressor's way; less RAM moves the two to the bank's end or below the kernel.

use alloc::format;

use super::Refused;
use super::kernel::KernelImage;
use crate::platform::ranges::PhysRange;

/// A mebibyte.
pub const MIB: u64 = 1 << 20;
/// The unit of places.
pub const BLOCK: u64 = 2 * MIB;
/// The distance from the start of RAM that the ARM boot protocol recommends for tree and RAM disk.
pub const NEAR: u64 = 128 * MIB;

/// Where things are in a guest's first bank.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    /// The kernel image.
    pub kernel: PhysRange,
    /// Its first instruction: the guest's PC.
    pub entry: u64,
    /// The tree: the guest's r2.
    pub tree: PhysRange,
    /// The RAM disk, to the byte.
    pub ramdisk: Option<PhysRange>,
}

/// Places kernel, tree and RAM disk in a guest's first bank.
pub fn place(
    bank: &PhysRange,
    kernel: &KernelImage,
    tree_size: u64,
    ramdisk_size: Option<u64>,
) -> Result<Placement, Refused> {
    let ramdisk = ramdisk_size.unwrap_or(0);
    let too_little = || {
        let (ram, image) = (bank.size() / MIB, kernel.size / MIB);
        let ramdisk = ramdisk / MIB;
        Refused(format!(
            "kernel ({image} MiB), device tree and ramdisk ({ramdisk} MiB) do not fit into the first bank {bank} ({ram} MiB)"
        ))
    };
    let image = place_kernel(bank, kernel)?;
    let blocks = |size: u64| size.checked_next_multiple_of(BLOCK);
    let tree_room = blocks(tree_size).ok_or_else(too_little)?;
    let rest = blocks(ramdisk).and_then(|room| room.checked_add(tree_room));
    let rest = rest.ok_or_else(too_little)?;
    let kernel_blocks = PhysRange::from_ends(
        image.base() & !(BLOCK - 1),
        image.end().next_multiple_of(BLOCK),
    )
    .ok_or_else(too_little)?;
    let ends = bank.end() & !(BLOCK - 1);
    let at = [
        bank.base().checked_add(NEAR),
        ends.checked_sub(rest),
        kernel_blocks.base().checked_sub(rest),
    ];
    let spot = at.into_iter().flatten().find_map(|at| {
        let spot = PhysRange::new(at, rest)?;
        (bank.contains(&spot) && !spot.overlaps(&kernel_blocks)).then_some(spot)
    });
    let spot = spot.ok_or_else(too_little)?;
    Ok(Placement {
        kernel: image,
        entry: image.base() + kernel.entry_offset,
        tree: PhysRange::new(spot.base(), tree_size).ok_or_else(too_little)?,
        ramdisk: PhysRange::new(spot.base() + tree_room, ramdisk),
    })
}

fn place_kernel(bank: &PhysRange, kernel: &KernelImage) -> Result<PhysRange, Refused> {
    let at = match kernel.load {
        Some(load) => Some(load),
        None => {
            // In a bank that is not aligned the kernel stays in the first 128 MiB block, where it cannot mistake a later
            // block for the start of RAM; if it does not fit there, it ends 128 MiB into the bank.
            let block_end = (bank.base() / NEAR + 1) * NEAR;
            let below = |end: u64| {
                let start = end.min(bank.end()).checked_sub(kernel.size)? & !(BLOCK - 1);
                (start >= bank.base()).then_some(start)
            };
            below(block_end).or_else(|| below(bank.base() + NEAR))
        }
    };
    let image = at.and_then(|at| PhysRange::new(at, kernel.size));
    image.filter(|image| bank.contains(image)).ok_or_else(|| {
        let size = kernel.size / MIB;
        Refused(match kernel.load {
            Some(load) => format!("kernel ({size} MiB) wants {load:#x}, the first bank is {bank}"),
            None => format!("kernel ({size} MiB) does not fit into the first bank {bank}"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::{MIB, Placement, place};
    use crate::loader::kernel::KernelImage;
    use crate::platform::ranges::PhysRange;
    use alloc::string::ToString;
    use proptest::prelude::{prop_assert, proptest};

    fn range(base: u64, size: u64) -> PhysRange {
        PhysRange::new(base, size).unwrap()
    }

    fn kernel(size: u64, load: Option<u64>) -> KernelImage {
        KernelImage {
            offset: 0,
            size,
            load,
            entry_offset: 0,
        }
    }

    #[test]
    fn the_places_are_those_of_xen() {
        let bank = range(0x6000_0000, 512 * MIB);
        let place = place(&bank, &kernel(0x5a_7000, None), 0x1_2000, Some(0xe0_0123)).unwrap();
        let expected = Placement {
            kernel: range(0x67a0_0000, 0x5a_7000),
            entry: 0x67a0_0000,
            tree: range(0x6800_0000, 0x1_2000),
            ramdisk: PhysRange::new(0x6820_0000, 0xe0_0123),
        };
        assert_eq!(place, expected);
    }

    #[test]
    fn a_small_bank_has_tree_and_ramdisk_at_its_end_or_below_the_kernel() {
        let bank = range(0x4000_0000, 64 * MIB);
        let low = kernel(4 * MIB, Some(0x4000_8000));
        let at_end = place(&bank, &low, 1, Some(20 * MIB)).unwrap();
        assert_eq!(at_end.tree.base(), 0x4000_0000 + 42 * MIB);
        let below = place(&bank, &kernel(5 * MIB, None), 1, Some(20 * MIB)).unwrap();
        assert_eq!(below.kernel.base(), 0x4000_0000 + 58 * MIB);
        assert_eq!(below.tree.base(), 0x4000_0000 + 36 * MIB);
        assert_eq!(below.ramdisk.unwrap().base(), 0x4000_0000 + 38 * MIB);
    }

    #[test]
    fn what_does_not_fit_is_told_in_mib() {
        let bank = range(0x4000_0000, 64 * MIB);
        let line = place(&bank, &kernel(5 * MIB, None), 1, Some(60 * MIB))
            .unwrap_err()
            .to_string();
        assert!(line.contains("ramdisk (60 MiB) do not fit"), "{line}");
        let line = place(&bank, &kernel(80 * MIB, None), 1, None)
            .unwrap_err()
            .to_string();
        assert!(line.contains("kernel (80 MiB) does not fit"), "{line}");
        let line = place(&bank, &kernel(MIB, Some(0x8000)), 1, None)
            .unwrap_err()
            .to_string();
        assert!(line.contains("wants 0x8000"), "{line}");
        let huge = place(&bank, &kernel(MIB, None), u64::MAX, Some(u64::MAX));
        assert!(huge.is_err());
    }

    #[test]
    fn a_kernel_in_an_unaligned_bank_stays_in_the_first_block_of_128_mib() {
        let bank = range(0x5500_0000, 512 * MIB);
        let place = place(&bank, &kernel(5 * MIB, None), 1, None).unwrap();
        assert_eq!(place.kernel.base(), 0x57a0_0000);
        assert_eq!(place.tree.base(), 0x5500_0000 + 128 * MIB);
    }

    proptest! {
        #[test]
        fn placed_things_lie_in_the_bank_and_apart(
            base in 0u64..0x800, blocks in 1u64..512, size in 1u64..0x400_0000, tree in 1u64..0x40_0000,
            ramdisk in 0u64..0x800_0000, fixed in proptest::option::of(0u64..0x1_0000_0000),
        ) {
            let bank = range(base << 21, blocks << 21);
            if let Ok(p) = place(&bank, &kernel(size, fixed), tree, Some(ramdisk)) {
                let all = [Some(p.kernel), Some(p.tree), p.ramdisk];
                for (i, a) in all.iter().enumerate() {
                    for b in all.iter().skip(i + 1) {
                        if let (Some(a), Some(b)) = (a, b) {
                            prop_assert!(!a.overlaps(b));
                        }
                    }
                    prop_assert!(a.is_none_or(|a| bank.contains(&a)));
                }
            }
        }
    }
}
