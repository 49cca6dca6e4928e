//! Chooses dom0's RAM. dom0 is mapped 1:1, so machine addresses are its physical addresses.

use alloc::format;
use alloc::vec::Vec;

use crate::loader::place::{BLOCK, MIB, NEAR};
use crate::platform::BootError;
use crate::platform::ranges::{self, PhysRange};

/// The end of the RAM that a kernel can start in, and of all that one without LPAE can use.
const LOW_END: u64 = 1 << 32;
/// The smallest size of a further bank.
const MIN_BANK: u64 = 4 * MIB;
/// The highest number of dom0's banks.
const MAX_BANKS: usize = 32;

/// Chooses dom0's banks: `want` bytes of `free`, the first below 4 GiB if possible. The first bank holds the kernel, which
/// ignores RAM below itself, so no other bank is below it.
pub fn choose_banks(free: &[PhysRange], want: u64) -> Result<Vec<PhysRange>, BootError> {
    let want = want & !(BLOCK - 1);
    let low_end = |range: &PhysRange| range.end().min(LOW_END);
    let low = free.iter().filter_map(|range| {
        PhysRange::from_ends(range.base(), low_end(range).max(range.base()))?.aligned_inward(BLOCK)
    });
    let mut low: Vec<PhysRange> = low.collect();
    // The smallest range that holds everything is taken, which leaves large ranges for other domains' superpages.
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
    // The first bank starts at an aligned address, or at the start of its range. Later banks are above it.
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
    let why = match low.is_empty() && !high.is_empty() {
        true => "; its first bank must be below 4 GiB, where none is free",
        false => "",
    };
    Err(BootError::Dom0(format!(
        "asked {want} MiB, largest free {most} MiB{why}"
    )))
}

/// Returns `size` bytes of `range` at a multiple of 128 MiB. A zImage rounds its own address down to 128 MiB to find the
/// start of RAM, and RAM below that is lost.
fn aligned_bank(range: &PhysRange, size: u64) -> Option<PhysRange> {
    let bank = PhysRange::new(range.base().next_multiple_of(NEAR), size);
    bank.filter(|bank| range.contains(bank))
}

fn any_bank(range: &PhysRange, size: u64) -> Option<PhysRange> {
    PhysRange::new(range.base(), size).filter(|bank| range.contains(bank))
}

/// The smallest extended region, and the alignment of all.
const EXTENDED_MIN: u64 = 64 * MIB;
/// The highest number of extended regions in the hypervisor node.
const EXTENDED_MAX: usize = 8;

/// Returns the extended regions: RAM of the machine that is not dom0's, at whose addresses dom0 makes foreign mappings.
/// `used` holds dom0's banks, reserved ranges, the grant region and device regions.
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
    use super::{BLOCK, choose_banks, extended_regions};
    use crate::platform::ranges::PhysRange;
    use alloc::string::ToString;
    use alloc::vec::Vec;
    use proptest::prelude::{prop_assert, proptest};

    const MIB: u64 = 1 << 20;

    fn range(base: u64, size: u64) -> PhysRange {
        PhysRange::new(base, size).unwrap()
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
    }
}
