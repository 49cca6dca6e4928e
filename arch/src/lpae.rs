//! Long descriptors, the format of Hyp stage 1 and stage 2 tables.
//!
//! Pure: the format only; [`crate::table`] links tables. DDI 0406C.d B3.6.1 (descriptor formats), B3.6.2 (attributes),
//! B3.6.6 (walks).
//!
//! | bits | leaf, Hyp stage 1 | leaf, stage 2 | table |
//! |---|---|---|---|
//! | 0 | valid | valid | valid |
//! | 1 | 0 block (levels 1, 2), 1 page (level 3) | same | 1 |
//! | 5:2 | AttrIndx (4:2), NS | MemAttr | used entries (11:2), software |
//! | 7:6 | AP\[2\], 1 | HAP | |
//! | 9:8 | SH | SH | |
//! | 10 | AF | AF | |
//! | 39:12 | output frame | output frame | next table's frame |
//! | 54 | XN | XN | times filled (58:52), software |
//! | 58:55 | 0 | kind, software | |
//!
//! Invariants: an invalid descriptor is 0; the access flag is always set (ARMv7 hardware does not manage it); a leaf's
//! frame is aligned to its size, as [`Descriptor::leaf`] clears the low bits.

use crate::addr::{Mfn, ORDER_1G, ORDER_2M};

/// Entries in one table frame.
pub const ENTRIES: usize = 512;

/// HTCR: 32-bit input (T0SZ = 0), walks inner shareable and write-back write-allocate; bits 31 and 23 RES1
/// (DDI 0406C.d B4.1.76). The root has four entries.
pub const HTCR: u32 = 0x8080_3500;
/// VTCR: 40-bit input (S = 1, T0SZ = -8), first level 1 (SL0 = 1), walks inner shareable and write-back write-allocate;
/// bit 31 RES1 (DDI 0406C.d B4.1.159). The root has 1024 entries in two adjacent frames.
pub const VTCR: u32 = 0x8000_3558;
/// HMAIR0: the four entries named by [`HypMemory`].
pub const HMAIR0: u32 = 0x00FF_4404;
/// HMAIR1: indices 4 to 7 are unused.
pub const HMAIR1: u32 = 0;

/// Memory type of a Hyp mapping. The value is the index into HMAIR0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum HypMemory {
    /// Device (HMAIR 0x04).
    Device = 0,
    /// Normal, not cacheable (HMAIR 0x44).
    NonCacheable = 1,
    /// Normal, write-back, read and write allocate (HMAIR 0xFF).
    WriteBack = 2,
    /// Strongly ordered (HMAIR 0x00).
    StronglyOrdered = 3,
}

/// Accesses that a mapping allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Stores are allowed.
    pub write: bool,
    /// Instructions may be fetched.
    pub execute: bool,
}

impl Access {
    /// Loads only.
    pub const R: Self = Self {
        write: false,
        execute: false,
    };
    /// Loads and stores.
    pub const RW: Self = Self {
        write: true,
        execute: false,
    };
    /// Loads and fetches.
    pub const RX: Self = Self {
        write: false,
        execute: true,
    };
    /// Loads, stores and fetches.
    pub const RWX: Self = Self {
        write: true,
        execute: true,
    };
}

/// Memory type of a stage 2 mapping (MemAttr, DDI 0406C.d table B3-18).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Stage2Memory {
    /// Device, whatever stage 1 says.
    Device = 0b0001,
    /// Normal write-back; stage 1 decides.
    WriteBack = 0b1111,
}

/// Shareability.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Shareability {
    /// Outer shareable.
    Outer = 0b10,
    /// Inner shareable.
    Inner = 0b11,
}

const VALID: u64 = 1;
const TABLE_OR_PAGE: u64 = 1 << 1;
const AP1_RES1: u64 = 1 << 6;
const AP2_READ_ONLY: u64 = 1 << 7;
const HAP_SHIFT: u32 = 6;
const SH_SHIFT: u32 = 8;
const ACCESS_FLAG: u64 = 1 << 10;
const XN: u64 = 1 << 54;
const KIND_SHIFT: u32 = 55;
const KIND_MASK: u64 = 0xF << KIND_SHIFT;
const FRAME_MASK: u64 = 0xFF_FFFF_F000;
const USED_SHIFT: u32 = 2;
const USED_MASK: u64 = 0x3FF << USED_SHIFT;
const FILLED_SHIFT: u32 = 52;
const FILLED_MASK: u64 = 0x7F << FILLED_SHIFT;

/// Attributes of a leaf: all bits but frame and size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes(u64);

impl Attributes {
    /// No attributes.
    pub const NONE: Self = Self(0);

    /// Returns the attributes of a Hyp stage 1 mapping. AP\[1\] is one, nG and PXN are zero (DDI 0406C.d B3.6.2, PL2
    /// translations).
    pub const fn hyp(memory: HypMemory, access: Access) -> Self {
        let shareability = match memory {
            HypMemory::WriteBack => Shareability::Inner,
            _ => Shareability::Outer,
        };
        let mut bits =
            AP1_RES1 | ACCESS_FLAG | ((memory as u64) << 2) | ((shareability as u64) << SH_SHIFT);
        if !access.write {
            bits |= AP2_READ_ONLY;
        }
        if !access.execute {
            bits |= XN;
        }
        Self(bits)
    }

    /// Returns the attributes of a stage 2 mapping. `kind` (0 to 15) is stored in software bits.
    pub const fn stage2(
        memory: Stage2Memory,
        shareability: Shareability,
        access: Access,
        kind: u8,
    ) -> Self {
        let hap: u64 = if access.write { 0b11 } else { 0b01 };
        let mut bits = ACCESS_FLAG
            | ((memory as u64) << 2)
            | (hap << HAP_SHIFT)
            | ((shareability as u64) << SH_SHIFT)
            | (((kind & 0xF) as u64) << KIND_SHIFT);
        if !access.execute {
            bits |= XN;
        }
        Self(bits)
    }

    /// Returns the kind passed to [`Attributes::stage2`].
    pub const fn kind(self) -> u8 {
        ((self.0 & KIND_MASK) >> KIND_SHIFT) as u8
    }
}

/// A level of the walk (DDI 0406C.d B3.6.6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Level {
    /// Entries of 1 GiB.
    One = 1,
    /// Entries of 2 MiB.
    Two = 2,
    /// Entries of 4 KiB.
    Three = 3,
}

impl Level {
    /// Returns log2 of the pages that one entry covers.
    pub const fn order(self) -> u32 {
        match self {
            Self::One => ORDER_1G,
            Self::Two => ORDER_2M,
            Self::Three => 0,
        }
    }
    /// Returns the number of pages that one entry covers.
    pub const fn span(self) -> u32 {
        1 << self.order()
    }
    /// Returns the difference of the leaves of adjacent entries: the bytes that one entry covers.
    pub const fn step(self) -> u64 {
        (self.span() as u64) << crate::addr::PAGE_SHIFT
    }
    /// Returns the level below a table entry of this level.
    pub const fn next(self) -> Option<Self> {
        match self {
            Self::One => Some(Self::Two),
            Self::Two => Some(Self::Three),
            Self::Three => None,
        }
    }
    /// Returns the index of the entry for input frame `input` in its table frame.
    pub const fn index(self, input: u32) -> usize {
        (input >> self.order()) as usize % ENTRIES
    }
}

/// Software data in the ignored bits of a table descriptor (DDI 0406C.d figure B3-15: 58:52 and 11:2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TableNote {
    /// Number of valid entries in the table.
    pub used: u16,
    /// Number of times the table became full since it was last checked for a merge.
    pub filled: u8,
}

/// One entry of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Descriptor(pub u64);

/// A decoded [`Descriptor`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// Not mapped.
    Invalid,
    /// A table of the next level.
    Table(Mfn, TableNote),
    /// A page or block.
    Leaf(Mfn, Attributes),
}

impl Descriptor {
    /// An invalid entry.
    pub const INVALID: Self = Self(0);

    /// Returns a page or block at `level`, whose first frame is `output` rounded down to the entry's size.
    pub const fn leaf(level: Level, output: Mfn, attributes: Attributes) -> Self {
        let page = match level {
            Level::Three => TABLE_OR_PAGE,
            _ => 0,
        };
        Self(output.align_down(level.order()).addr().raw() | attributes.0 | page | VALID)
    }

    /// Returns a table descriptor for the table in frame `next`.
    pub const fn table(next: Mfn, note: TableNote) -> Self {
        Self(
            next.addr().raw()
                | (((note.used & 0x3FF) as u64) << USED_SHIFT)
                | (((note.filled & 0x7F) as u64) << FILLED_SHIFT)
                | TABLE_OR_PAGE
                | VALID,
        )
    }

    /// Decodes an entry of level 1 or 2 as a table. Returns the table's frame, `None` for other entries.
    pub fn next_table(self) -> Option<Mfn> {
        if self.0 & (VALID | TABLE_OR_PAGE) == VALID | TABLE_OR_PAGE {
            Some(self.output())
        } else {
            None
        }
    }

    /// Decodes an entry of level 3 as a page.
    pub fn page(self) -> Option<(Mfn, Attributes)> {
        if self.0 & (VALID | TABLE_OR_PAGE) == VALID | TABLE_OR_PAGE {
            Some((self.output(), self.attributes()))
        } else {
            None
        }
    }

    /// Decodes an entry of level 1 or 2 as a block. Its frame is not rounded down.
    pub fn block(self) -> Option<(Mfn, Attributes)> {
        if self.0 & (VALID | TABLE_OR_PAGE) == VALID {
            Some((self.output(), self.attributes()))
        } else {
            None
        }
    }

    fn output(self) -> Mfn {
        crate::addr::PhysAddr::new(self.0 & FRAME_MASK).map_or(Mfn::default(), |at| at.frame())
    }

    const fn attributes(self) -> Attributes {
        Attributes(self.0 & !FRAME_MASK & !(VALID | TABLE_OR_PAGE))
    }

    /// Returns whether the valid bit is set.
    pub const fn is_valid(self) -> bool {
        self.0 & VALID != 0
    }

    /// Returns the number of entries in use in the table of this table descriptor.
    pub const fn used(self) -> usize {
        ((self.0 & USED_MASK) >> USED_SHIFT) as usize
    }

    /// Returns this table descriptor with one more entry in use. There must be fewer than [`ENTRIES`].
    pub const fn one_more(self) -> Self {
        Self(self.0.wrapping_add(1 << USED_SHIFT))
    }

    /// Returns this table descriptor with one entry less in use. There must be one.
    pub const fn one_less(self) -> Self {
        Self(self.0.wrapping_sub(1 << USED_SHIFT))
    }

    /// Returns this table descriptor with the count of times filled increased; it wraps at 128.
    pub const fn filled_again(self) -> Self {
        let filled = self.0.wrapping_add(1 << FILLED_SHIFT) & FILLED_MASK;
        Self(self.0 & !FILLED_MASK | filled)
    }

    /// Returns the number of times the table became full, modulo 128.
    pub const fn filled(self) -> u8 {
        ((self.0 & FILLED_MASK) >> FILLED_SHIFT) as u8
    }

    /// Decodes an entry of `level`. A reserved form (a block at level 3) is invalid, as in hardware.
    pub const fn decode(self, level: Level) -> Entry {
        if self.0 & VALID == 0 {
            return Entry::Invalid;
        }
        let frame = match crate::addr::PhysAddr::new(self.0 & FRAME_MASK) {
            Some(address) => address.frame(),
            None => return Entry::Invalid,
        };
        match (level, self.0 & TABLE_OR_PAGE != 0) {
            (Level::Three, false) => Entry::Invalid,
            (Level::One | Level::Two, true) => Entry::Table(
                frame,
                TableNote {
                    used: ((self.0 & USED_MASK) >> USED_SHIFT) as u16,
                    filled: ((self.0 & FILLED_MASK) >> FILLED_SHIFT) as u8,
                },
            ),
            _ => Entry::Leaf(
                frame.align_down(level.order()),
                Attributes(self.0 & !FRAME_MASK & !(VALID | TABLE_OR_PAGE)),
            ),
        }
    }
}

/// Returns VTTBR of a stage 2 root at `root` (aligned to 8 KiB) with `vmid` in bits 55:48 (DDI 0406C.d B4.1.160).
pub const fn vttbr(root: Mfn, vmid: u8) -> u64 {
    ((vmid as u64) << 48) | root.align_down(1).addr().raw()
}

#[cfg(test)]
mod tests;
