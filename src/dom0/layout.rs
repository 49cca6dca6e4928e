//! Where dom0's RAM is and where its kernel, tree and RAM disk go in it. dom0 is mapped 1:1, so machine addresses are its own.
//!
//! The places are Xen's: an image that runs anywhere ends at 128 MiB into the first bank, the tree starts there and the RAM
//! disk 2 MiB blocks after it, out of the decompressor's way; less RAM moves the two to the bank's end or below the kernel.

use alloc::format;
use alloc::vec::Vec;

use super::kernel::KernelImage;
use crate::platform::BootError;
use crate::platform::ranges::{self, PhysRange};

const MIB: u64 = 1 << 20;
const BLOCK: u64 = 2 * MIB;
/// The distance from the start of RAM that the ARM boot protocol recommends for tree and RAM disk.
const NEAR: u64 = 128 * MIB;
/// A kernel without LPAE sees no RAM beyond.
const LOW_END: u64 = 1 << 32;
/// A further bank is not worth its entry below this.
const MIN_BANK: u64 = 4 * MIB;
/// Most banks that dom0 gets.
const MAX_BANKS: usize = 32;

/// Where things are in dom0's first bank.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    /// The kernel image.
    pub kernel: PhysRange,
    /// Its first instruction: dom0's PC.
    pub entry: u64,
    /// The tree: dom0's r2.
    pub tree: PhysRange,
    /// The RAM disk, to the byte.
    pub ramdisk: Option<PhysRange>,
}

/// Chooses dom0's banks: `want` bytes out of `free`, one below 4 GiB if that is possible. The first bank holds the kernel,
/// which sees no RAM below it; none of the others is there.
pub fn choose_banks(free: &[PhysRange], want: u64) -> Result<Vec<PhysRange>, BootError> {
    let want = want & !(BLOCK - 1);
    let low_end = |range: &PhysRange| range.end().min(LOW_END);
    let low = free.iter().filter_map(|range| {
        PhysRange::from_ends(range.base(), low_end(range).max(range.base()))?.aligned_inward(BLOCK)
    });
    let mut low: Vec<PhysRange> = low.collect();
    // The smallest range that holds everything keeps the big ones whole for other domains' superpages.
    ranges::sort_by_key(&mut low, |range| (range.size(), range.base()));
    let whole = |bank: fn(&PhysRange, u64) -> Option<PhysRange>| {
        low.iter().find_map(|range| bank(range, want))
    };
    if let Some(bank) = whole(aligned_bank).or_else(|| whole(any_bank)) {
        return Ok(Vec::from([bank]));
    }
    let high = free.iter().filter_map(|range| {
        PhysRange::from_ends(range.base().max(LOW_END), range.end())?.aligned_inward(BLOCK)
    });
    let high: Vec<PhysRange> = high.collect();
    // A first bank starts where a bank of its own would, or where its range does; all above it is within reach.
    let starts = low.iter().flat_map(|range| {
        [range.base().next_multiple_of(NEAR), range.base()].map(|at| (at, range))
    });
    let mut firsts: Vec<PhysRange> = starts
        .filter_map(|(at, range)| PhysRange::from_ends(at, range.end()))
        .collect();
    ranges::sort_by_key(&mut firsts, |range| {
        (core::cmp::Reverse(range.size()), range.base())
    });
    let mut most = 0;
    for first in firsts {
        let mut above: Vec<PhysRange> = low.clone();
        above.retain(|range| range.base() >= first.end());
        ranges::sort_by_key(&mut above, |range| {
            (core::cmp::Reverse(range.size()), range.base())
        });
        let all = [first].into_iter().chain(above).chain(high.iter().copied());
        let mut banks = Vec::new();
        let mut left = want;
        for range in all {
            let size = range.size().min(left);
            if size >= MIN_BANK.min(left) && size > 0 && banks.len() < MAX_BANKS {
                banks.extend(PhysRange::new(range.base(), size));
                left -= size;
            }
        }
        if left == 0 && want > 0 {
            return Ok(banks);
        }
        most = most.max(want - left);
    }
    let (want, most) = (want / MIB, most / MIB);
    Err(BootError::Dom0(format!(
        "asked {want} MiB, largest free {most} MiB"
    )))
}

/// `size` bytes at a multiple of 128 MiB: a zImage takes the 128 MiB that it runs in for the start of RAM, and what lies
/// below would be lost.
fn aligned_bank(range: &PhysRange, size: u64) -> Option<PhysRange> {
    let bank = PhysRange::new(range.base().next_multiple_of(NEAR), size);
    bank.filter(|bank| range.contains(bank))
}

fn any_bank(range: &PhysRange, size: u64) -> Option<PhysRange> {
    PhysRange::new(range.base(), size).filter(|bank| range.contains(bank))
}

/// Places kernel, tree and RAM disk in dom0's first bank.
pub fn place(
    bank: &PhysRange,
    kernel: &KernelImage,
    tree_size: u64,
    ramdisk_size: Option<u64>,
) -> Result<Placement, BootError> {
    let ramdisk = ramdisk_size.unwrap_or(0);
    let too_little = || {
        let (ram, image) = (bank.size() / MIB, kernel.size / MIB);
        let ramdisk = ramdisk / MIB;
        BootError::Dom0(format!(
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

fn place_kernel(bank: &PhysRange, kernel: &KernelImage) -> Result<PhysRange, BootError> {
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
        BootError::Dom0(match kernel.load {
            Some(load) => format!("kernel ({size} MiB) wants {load:#x}, the first bank is {bank}"),
            None => format!("kernel ({size} MiB) does not fit into the first bank {bank}"),
        })
    })
}

/// Smallest range worth telling dom0 about, and the alignment of all.
const EXTENDED_MIN: u64 = 64 * MIB;
/// Most extended regions in the hypervisor node.
const EXTENDED_MAX: usize = 8;

/// Returns the machine RAM that dom0 does not have: its guest-physical addresses serve dom0 for foreign mappings. `used` holds
/// dom0's banks, reserved ranges, the grant region and device regions.
pub fn extended_regions(ram: &[PhysRange], used: &[PhysRange]) -> Vec<PhysRange> {
    let unused = ranges::subtract(ram, used);
    let aligned = unused
        .iter()
        .filter_map(|range| range.aligned_inward(BLOCK));
    aligned
        .filter(|range| range.size() >= EXTENDED_MIN)
        .take(EXTENDED_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, Placement, choose_banks, extended_regions, place};
    use crate::dom0::kernel::KernelImage;
    use crate::platform::ranges::PhysRange;
    use alloc::string::ToString;
    use alloc::vec::Vec;
    use proptest::prelude::{prop_assert, proptest};

    const MIB: u64 = 1 << 20;

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
    fn one_aligned_bank_is_preferred() {
        let free = [
            range(0x4010_0000, 0x0ff0_0000),
            range(0x5500_0000, 0x6b00_0000),
        ];
        assert_eq!(
            choose_banks(&free, 512 * MIB).unwrap(),
            [range(0x5800_0000, 512 * MIB)]
        );
        assert_eq!(
            choose_banks(&free, 64 * MIB).unwrap(),
            [range(0x4800_0000, 64 * MIB)]
        );
        let split = choose_banks(&free, 0x6b00_0000 + 16 * MIB).unwrap();
        assert_eq!(
            split,
            [
                range(0x4020_0000, 0x0fe0_0000),
                range(0x5500_0000, 0x6b00_0000 + 16 * MIB - 0x0fe0_0000)
            ]
        );
        let odd = [range(0x4020_0000, 200 * MIB), range(0x9000_0000, 200 * MIB)];
        assert_eq!(
            choose_banks(&odd, 190 * MIB).unwrap(),
            [range(0x9000_0000, 190 * MIB)]
        );
    }

    #[test]
    fn no_bank_is_below_the_one_with_the_kernel() {
        // QEMU's virt with 2 GiB: image, tree, kernel and RAM disk cut its start into pieces.
        let free = [
            range(0x4020_0000, 0x07e0_0000),
            range(0x4820_0000, 0x07e0_0000),
            range(0x5060_0000, 0x03a0_0000),
            range(0x5500_0000, 0x6aa0_0000),
        ];
        let banks = choose_banks(&free, 1900 * MIB).unwrap();
        assert_eq!(banks[0], free[0]);
        assert_eq!(banks.iter().map(PhysRange::size).sum::<u64>(), 1900 * MIB);
        // As much as there is, and not a block more.
        let all: u64 = free.iter().map(PhysRange::size).sum();
        assert_eq!(choose_banks(&free, all).unwrap().len(), 4);
        let line = choose_banks(&free, all + BLOCK).unwrap_err().to_string();
        assert!(line.ends_with("largest free 2016 MiB"), "{line}");
    }

    #[test]
    fn a_kernel_in_an_unaligned_bank_stays_in_the_first_block_of_128_mib() {
        let bank = range(0x5500_0000, 512 * MIB);
        let place = place(&bank, &kernel(5 * MIB, None), 1, None).unwrap();
        assert_eq!(place.kernel.base(), 0x57a0_0000);
        assert_eq!(place.tree.base(), 0x5500_0000 + 128 * MIB);
    }

    #[test]
    fn asking_for_more_than_there_is_names_both_amounts() {
        let line = choose_banks(&[range(0x4000_0000, 256 * MIB)], 512 * MIB).unwrap_err();
        assert_eq!(
            line.to_string(),
            "DOM0: asked 512 MiB, largest free 256 MiB"
        );
        assert!(choose_banks(&[], 512 * MIB).is_err());
        assert!(choose_banks(&[range(0, 256 * MIB)], 0).is_err());
    }

    #[test]
    fn ram_beyond_four_gib_is_used_last() {
        let free = [range(0xc000_0000, 0x8000_0000)];
        let banks = choose_banks(&free, 0x6000_0000).unwrap();
        assert_eq!(
            banks,
            [
                range(0xc000_0000, 0x4000_0000),
                range(0x1_0000_0000, 0x2000_0000)
            ]
        );
    }

    #[test]
    fn extended_regions_are_what_is_left_in_large_pieces() {
        let ram = [range(0x4000_0000, 0x8000_0000)];
        let used = [
            range(0x4000_0000, 0x11_0000),
            range(0x6000_0000, 0x2000_0000),
        ];
        let regions = extended_regions(&ram, &used);
        assert_eq!(
            regions,
            [
                range(0x4020_0000, 0x1fe0_0000),
                range(0x8000_0000, 0x4000_0000)
            ]
        );
    }

    proptest! {
        #[test]
        fn banks_are_free_ram_above_the_first_and_as_much_as_was_asked_for(
            gaps in proptest::collection::vec((0u64..600, 1u64..600), 1..8), want in 1u64..4096,
        ) {
            let mut at = 0x4000_0000;
            let free: Vec<PhysRange> = gaps
                .iter()
                .map(|(gap, size)| {
                    let range = range(at + gap * BLOCK, size * BLOCK);
                    at = range.end() + BLOCK;
                    range
                })
                .collect();
            let want = want * BLOCK;
            if let Ok(banks) = choose_banks(&free, want) {
                prop_assert!(banks.iter().map(PhysRange::size).sum::<u64>() == want);
                for bank in &banks {
                    prop_assert!(bank.base() >= banks[0].base());
                    prop_assert!(free.iter().any(|range| range.contains(bank)));
                }
            }
        }

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
