use super::{
    Access, Attributes, Descriptor, Entry, HypMemory, Level, Shareability, Stage2Memory, TableNote,
    vttbr,
};
use crate::addr::Mfn;
use proptest::prelude::*;

fn mfn(n: u64) -> Mfn {
    Mfn::new(n).unwrap()
}

const RAM: Attributes =
    Attributes::stage2(Stage2Memory::WriteBack, Shareability::Inner, Access::RWX, 1);

#[test]
fn descriptors_have_the_bits_of_the_manual() {
    // A guest RAM page: kind 1, AF, inner shareable, read-write, write-back.
    let page = Descriptor::leaf(Level::Three, mfn(0x40123), RAM);
    assert_eq!(page.0, 0x0080_0000_4012_37FF);
    // The same as a 2 MiB block: bit 1 clear, frame rounded down.
    let block = Descriptor::leaf(Level::Two, mfn(0x40123), RAM);
    assert_eq!(block.0, 0x0080_0000_4000_07FD);
    let device = Attributes::hyp(HypMemory::Device, Access::RW);
    let uart = Descriptor::leaf(Level::Three, mfn(0x9000), device);
    assert_eq!(uart.0, 0x0040_0000_0900_0643);
    let text = Attributes::hyp(HypMemory::WriteBack, Access::RX);
    assert_eq!(
        Descriptor::leaf(Level::Three, mfn(0x40010), text).0,
        0x4001_07CB
    );
    let note = TableNote { used: 0, filled: 0 };
    assert_eq!(Descriptor::table(mfn(0x41000), note).0, 0x4100_0003);
}

#[test]
fn a_read_only_stage_2_leaf_that_may_not_run_says_so() {
    let attributes = Attributes::stage2(
        Stage2Memory::WriteBack,
        Shareability::Inner,
        Access::R,
        0x1F,
    );
    let page = Descriptor::leaf(Level::Three, mfn(1), attributes);
    assert_eq!((page.0 >> 6) & 3, 0b01);
    assert_eq!((page.0 >> 54) & 1, 1);
    assert_eq!(attributes.kind(), 0xF);
    assert_eq!(
        page.0 >> 59,
        0,
        "bits 63:59 are reserved in a stage 2 leaf of an SMMU"
    );
}

#[test]
fn a_block_at_level_3_maps_nothing() {
    let block = Descriptor::leaf(Level::Two, mfn(0x200), RAM);
    assert_eq!(block.decode(Level::Three), Entry::Invalid);
    assert_eq!(Descriptor::INVALID.decode(Level::One), Entry::Invalid);
}

#[test]
fn a_vttbr_is_vmid_and_root() {
    assert_eq!(vttbr(mfn(0x0FFF_FFFF), 0xFF), 0x00FF_00FF_FFFF_E000);
    assert_eq!(vttbr(mfn(0x40002), 3), 0x0003_0000_4000_2000);
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(frame in 0u64..1 << 28, used in 0u16..=512, filled in 0u8..128, kind in 0u8..16, write: bool, execute: bool) {
        let note = TableNote { used, filled };
        for level in [Level::One, Level::Two] {
            prop_assert_eq!(Descriptor::table(mfn(frame), note).decode(level), Entry::Table(mfn(frame), note));
        }
        let access = Access { write, execute };
        let attributes = Attributes::stage2(Stage2Memory::WriteBack, Shareability::Outer, access, kind);
        for level in [Level::One, Level::Two, Level::Three] {
            let leaf = Descriptor::leaf(level, mfn(frame), attributes);
            prop_assert_eq!(leaf.decode(level), Entry::Leaf(mfn(frame).align_down(level.order()), attributes));
        }
        prop_assert_eq!(attributes.kind(), kind);
    }

    #[test]
    fn any_bits_decode_without_a_panic_and_leaves_are_aligned(bits: u64) {
        for level in [Level::One, Level::Two, Level::Three] {
            if let Entry::Leaf(frame, _) = Descriptor(bits).decode(level) {
                prop_assert!(frame.is_aligned(level.order()));
            }
        }
    }
}
