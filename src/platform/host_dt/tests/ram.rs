//! RAM, and what boot loaders put into it, at all places where they may be.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{changed, error, range};
use crate::dom0::layout::choose_banks;
use crate::platform::host_dt::{HostInfo, ModuleKind};
use crate::platform::ranges::PhysRange;
use crate::platform::testing::VIRT;

const MIB: u64 = 1 << 20;
/// The sample's RAM.
const BANK: &str = "reg = <0 0x40000000 0 0x80000000>;";
/// The place of its kernel, and of its RAM disk.
const KERNEL: &str = "0 0x50000000 0 0x5a7000";
const RAMDISK: &str = "0 0x54000000 0 0xe00123";

/// Returns the sample with these banks.
fn with_banks(banks: &[PhysRange]) -> String {
    let cells = banks.iter().map(|bank| {
        let (base, size) = (bank.base(), bank.size());
        let (high, low) = (base >> 32, base & 0xFFFF_FFFF);
        format!("<{high} {low:#x} {} {:#x}>", size >> 32, size & 0xFFFF_FFFF)
    });
    format!("reg = {};", cells.collect::<Vec<_>>().join(", "))
}

/// Returns a machine with these banks.
fn machine(banks: &[PhysRange]) -> HostInfo {
    changed(VIRT, &[(BANK, &with_banks(banks))]).unwrap()
}

#[test]
fn all_of_thirty_two_banks_with_holes_are_used() {
    // Every second one does not begin or end at a block of 2 MiB.
    let bank = |n: u64| match n % 2 {
        0 => range(0x4000_0000 + n * 40 * MIB, 32 * MIB),
        _ => range(0x4000_1000 + n * 40 * MIB, 32 * MIB - 0x3000),
    };
    let mut banks: Vec<PhysRange> = (0..32).map(bank).collect();
    // A boot loader may name them in any order.
    banks.reverse();
    let mut host = machine(&banks);
    banks.reverse();
    assert_eq!(host.ram, banks);
    assert_eq!(host.notes, [] as [&str; 0]);

    let (tree, image) = (range(0x4ff0_0000, 0x1_0000), range(0x4001_0000, 0x16_6000));
    host.claim(tree, image).unwrap();
    let private = host.private_place(4 * MIB, 2 * MIB).unwrap();
    assert!(host.ram.iter().any(|bank| bank.contains(&private)));
    host.reserve(private);
    let free = host.free_ram();
    let dom0 = choose_banks(&free, 768 * MIB).unwrap();
    assert_eq!(dom0.iter().map(PhysRange::size).sum::<u64>(), 768 * MIB);
    for bank in &dom0 {
        assert!(free.iter().any(|range| range.contains(bank)), "{bank}");
    }
}

#[test]
fn the_image_and_the_tree_may_be_at_the_ends_of_ram() {
    for (tree, image) in [
        (0xbfff_f000, 0x4000_0000),
        (0x4000_0000, 0xbfe9_a000), // the image's end is that of RAM
    ] {
        let mut host = machine(&[range(0x4000_0000, 0x8000_0000)]);
        let (tree, image) = (range(tree, 0x1000), range(image, 0x16_6000));
        host.claim(tree, image).unwrap();
        let free = host.free_ram();
        assert!(!free.iter().any(|f| f.overlaps(&tree) || f.overlaps(&image)));
        assert!(host.private_place(4 * MIB, 2 * MIB).is_some());
    }
}

#[test]
fn modules_may_be_at_both_ends_of_ram_and_above_four_gib() {
    let banks = with_banks(&[range(0x4000_0000, 0x4000_0000), range(1 << 32, 0x4000_0000)]);
    for (kernel, ramdisk) in [
        (0x4000_0000, 0x1_3fff_0000), // both ends
        (0x1_0000_0000, 0x7fff_0000), // on both sides of the hole
    ] {
        let at = |address: u64, size: u64| {
            format!("{} {:#x} 0 {size:#x}", address >> 32, address & 0xFFFF_FFFF)
        };
        let changes = [
            (BANK, &*banks),
            (KERNEL, &at(kernel, 0x5a_7000)),
            (RAMDISK, &at(ramdisk, 0x1_0000)),
        ];
        let mut host = changed(VIRT, &changes).unwrap();
        host.claim(range(0x4800_0000, 0x1000), range(0x4700_0000, 0x16_6000))
            .unwrap();
        assert_eq!(host.kernel().unwrap().range, range(kernel, 0x5a_7000));
        let found = host.module(ModuleKind::Ramdisk).unwrap().range;
        assert_eq!(found, range(ramdisk, 0x1_0000));
        assert!(!host.free_ram().iter().any(|free| free.overlaps(&found)));
    }
}

#[test]
fn a_ramdisk_may_lie_in_two_banks_that_touch_but_not_over_a_hole() {
    // Its end is 0x54e00123.
    let first = range(0x4000_0000, 0x1460_0000);
    let host = machine(&[range(first.end(), 0x1000_0000), first]);
    assert_eq!(host.ram, [range(0x4000_0000, 0x2460_0000)]);
    let hole = with_banks(&[first, range(first.end() + 0x1000, 0x1000_0000)]);
    assert_eq!(
        error(VIRT, &[(BANK, &hole)]),
        "BOOT: ramdisk module /chosen/module@0x54000000 at 0x54000000-0x54e00123 is not in RAM"
    );
}

#[test]
fn ram_above_four_gib_alone_is_refused_by_its_address() {
    // A Keystone's, and the alias of it that U-Boot names with mem_lpae=0.
    let high = range(0x8_0000_0000, 0x8000_0000);
    assert_eq!(
        error(VIRT, &[(BANK, &with_banks(&[high]))]),
        "BOOT: RAM begins at 0x800000000; images start below 4 GiB, and need RAM there"
    );
    let alias = [
        (BANK, &*with_banks(&[range(0x8000_0000, 0x8000_0000)])),
        (KERNEL, "0 0x88000000 0 0x5a7000"),
        (RAMDISK, "0 0x8c000000 0 0xe00123"),
    ];
    let host = changed(VIRT, &alias).unwrap();
    let banks = choose_banks(&host.free_ram(), 512 * MIB).unwrap();
    assert_eq!(banks, [range(0x9000_0000, 512 * MIB)]);
    // RAM without an alias follows above.
    let both = [
        range(0x8000_0000, 0x8000_0000),
        range(0x8_8000_0000, 0x8000_0000),
    ];
    let both = with_banks(&both);
    let host = changed(VIRT, &[(BANK, &*both), alias[1], alias[2]]).unwrap();
    assert_eq!(host.ram.len(), 2);
    let most = choose_banks(&host.free_ram(), 3 << 30).unwrap();
    assert_eq!(most.last().unwrap().base(), 0x8_8000_0000);
}

#[test]
fn dom0_starts_below_four_gib_or_says_that_nothing_is_free_there() {
    let line = choose_banks(&[range(1 << 32, 1 << 30)], 512 * MIB).unwrap_err();
    assert_eq!(
        line.to_string(),
        "DOM0: asked 512 MiB, largest free 0 MiB; its first bank must be below 4 GiB, where none is free"
    );
}
