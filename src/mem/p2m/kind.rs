//! Kinds of stage 2 entries and their hardware attributes.

use armv7::lpae::{self, Attributes, Shareability, Stage2Memory};

/// An access to a guest frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Load.
    Read,
    /// Load and store.
    Write,
}

/// Kind of an entry (`p2m_type_t`, xen/arch/arm/include/asm/p2m.h), stored in the descriptor's software bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum P2mType {
    /// The domain's own memory, or a page that the hypervisor shares with it.
    RamRw = 1,
    /// As `RamRw`, read-only.
    RamRo = 2,
    /// A device that the domain drives. Cacheable in stage 2, so that stage 1 decides. Not executable.
    MmioDirect = 3,
    /// The virtual CPU interface. Device memory, whatever stage 1 says.
    GicV = 4,
    /// A granted page of another domain.
    GrantRw = 5,
    /// As `GrantRw`, read-only.
    GrantRo = 6,
    /// A page of a domain that this one controls.
    ForeignRw = 7,
    /// As `ForeignRw`, read-only.
    ForeignRo = 8,
    /// A device that a domain other than dom0 drives. Device memory, whatever stage 1 says, so that no cache holds anything
    /// of it when the domain has ended. Not executable.
    Device = 9,
    /// As `RamRw`, but the first write is caught and noted (`p2m_ram_logdirty` of x86).
    RamLogDirty = 10,
    /// As `ForeignRw`, of a page that is `RamLogDirty` at its owner: the first write is caught and noted there.
    ForeignLogDirty = 11,
}

impl P2mType {
    /// Returns the kind with number `kind`.
    pub const fn from_kind(kind: u8) -> Option<Self> {
        Some(match kind {
            1 => Self::RamRw,
            2 => Self::RamRo,
            3 => Self::MmioDirect,
            4 => Self::GicV,
            5 => Self::GrantRw,
            6 => Self::GrantRo,
            7 => Self::ForeignRw,
            8 => Self::ForeignRo,
            9 => Self::Device,
            10 => Self::RamLogDirty,
            11 => Self::ForeignLogDirty,
            _ => return None,
        })
    }

    /// Returns whether the entry maps RAM, and so owns a reference on it.
    pub const fn is_ram(self) -> bool {
        !matches!(self, Self::MmioDirect | Self::GicV | Self::Device)
    }

    /// Returns whether the entry maps the domain's own memory.
    pub const fn is_own_ram(self) -> bool {
        matches!(self, Self::RamRw | Self::RamRo | Self::RamLogDirty)
    }

    /// Returns whether pages of this kind may be merged into a block. Splitting a block can fail. A page of the
    /// domain's own memory may then stay mapped, but another domain's page must be unmapped when its owner requires it.
    pub const fn leaves_in_blocks(self) -> bool {
        self.is_own_ram()
    }

    /// Returns whether the entry maps another domain's page.
    pub const fn is_foreign(self) -> bool {
        matches!(
            self,
            Self::ForeignRw | Self::ForeignRo | Self::ForeignLogDirty
        )
    }

    /// Returns whether the entry maps a granted page.
    pub const fn is_grant(self) -> bool {
        matches!(self, Self::GrantRw | Self::GrantRo)
    }

    /// Returns whether a write there is caught, noted and then allowed.
    pub const fn catches_writes(self) -> bool {
        matches!(self, Self::RamLogDirty | Self::ForeignLogDirty)
    }

    /// Returns whether the hardware lets the guest write there.
    const fn is_writable(self) -> bool {
        let never = matches!(self, Self::RamRo | Self::GrantRo | Self::ForeignRo);
        !never && !self.catches_writes()
    }

    /// Returns whether the guest may do `access` there, and the hypervisor on its behalf. Never for devices.
    pub const fn allows(self, access: Access) -> bool {
        let may_write = self.is_writable() || self.catches_writes();
        self.is_ram() && (may_write || matches!(access, Access::Read))
    }

    /// Returns the attributes of a leaf descriptor.
    pub fn attributes(self) -> Attributes {
        const OF_KIND: [Attributes; 12] = {
            let mut all = [Attributes::NONE; 12];
            let mut kind = 1;
            while let Some(it) = P2mType::from_kind(kind) {
                all[kind as usize] = it.work_out_attributes();
                kind += 1;
            }
            all
        };
        OF_KIND[self as usize]
    }

    const fn work_out_attributes(self) -> Attributes {
        let rights = lpae::Access {
            write: self.is_writable(),
            execute: self.is_own_ram(),
        };
        let (memory, shareability) = match self {
            Self::MmioDirect => (Stage2Memory::WriteBack, Shareability::Outer),
            Self::GicV | Self::Device => (Stage2Memory::Device, Shareability::Outer),
            _ => (Stage2Memory::WriteBack, Shareability::Inner),
        };
        Attributes::stage2(memory, shareability, rights, self as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::{Access, P2mType};
    use armv7::addr::Mfn;
    use armv7::lpae::{Descriptor, Level};

    fn bits(kind: P2mType) -> u64 {
        Descriptor::leaf(Level::Three, Mfn::new(0x40000).unwrap(), kind.attributes()).0
    }

    #[test]
    fn kinds_survive_the_descriptor() {
        for n in 0..16 {
            if let Some(kind) = P2mType::from_kind(n) {
                assert_eq!(kind as u8, n);
                assert_eq!(kind.attributes().kind(), n);
            }
        }
    }

    #[test]
    fn only_own_memory_runs_and_only_writable_kinds_are_written() {
        let xn = |kind| bits(kind) >> 54 & 1 == 1;
        let writable = |kind| bits(kind) >> 7 & 1 == 1;
        assert!(!xn(P2mType::RamRw) && xn(P2mType::GrantRw) && xn(P2mType::ForeignRw));
        assert!(xn(P2mType::MmioDirect) && xn(P2mType::GicV));
        assert!(!writable(P2mType::GrantRo) && !writable(P2mType::ForeignRo));
        assert!(!P2mType::GrantRo.allows(Access::Write) && P2mType::GrantRo.allows(Access::Read));
        assert!(xn(P2mType::Device) && !P2mType::Device.allows(Access::Read));
        assert!(!P2mType::MmioDirect.allows(Access::Read));
        for kind in [P2mType::RamLogDirty, P2mType::ForeignLogDirty] {
            assert!(!writable(kind) && kind.allows(Access::Write));
        }
        assert!(!xn(P2mType::RamLogDirty) && xn(P2mType::ForeignLogDirty));
    }

    #[test]
    fn what_belongs_to_others_leaves_page_by_page() {
        let kinds = (0..16).filter_map(P2mType::from_kind);
        let blocks: Vec<P2mType> = kinds.filter(|kind| kind.leaves_in_blocks()).collect();
        assert_eq!(
            blocks,
            [P2mType::RamRw, P2mType::RamRo, P2mType::RamLogDirty]
        );
    }

    #[test]
    fn dom0_s_devices_leave_the_type_to_stage_1_but_the_gic_and_domus_devices_do_not() {
        let attributes = |kind| (bits(kind) >> 2 & 0xF, bits(kind) >> 8 & 3);
        assert_eq!(attributes(P2mType::MmioDirect), (0b1111, 0b10));
        assert_eq!(attributes(P2mType::GicV), (0b0001, 0b10));
        assert_eq!(attributes(P2mType::Device), (0b0001, 0b10));
        assert_eq!(attributes(P2mType::RamRw), (0b1111, 0b11));
    }
}
