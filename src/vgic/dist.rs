//! The distributor's register map as a guest accesses it.
//!
//! Reserved words, and interrupts that the domain does not have, are RAZ/WI. Unaligned offsets, and widths that the
//! architecture does not allow for a register, are refused (IHI 0048B 4.1.4). [`super::registers`] holds what each
//! register does.
//!
//! A caller must run [`Vgic::freshen`] before it accesses pending and active state.
//!
//! Manual: IHI 0048B 4.1.2 (map), 4.3 (registers).

use core::ops::BitOr;

use armv7::syndrome::Width;

use super::irq::BANK;
use super::lr::ListRegisters;
use super::{Vgic, bits};
use crate::id::{IntId, VcpuId, VcpuSet};

/// A register, or a range of words with the same function.
struct Register {
    /// Offset of its first word, a multiple of 16.
    start: u32,
    /// Offset after its last word, a multiple of 16.
    end: u32,
    widths: Widths,
    /// Returns the word at an index, counted from `start`.
    read: fn(&Vgic, VcpuId, u32) -> u32,
    /// Writes the word at an index, counted from `start`.
    write: fn(&mut Vgic, VcpuId, u32, Written) -> Effects,
}

/// The access widths that a register allows. No register allows halfwords.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Widths {
    Words,
    BytesAndWords,
}

/// A value for the bits `lanes` of a word, one byte or all of it. `value` is 0 outside `lanes`.
#[derive(Clone, Copy)]
pub(super) struct Written {
    pub value: u32,
    pub lanes: u32,
}

/// The registers. Row 0 stands for reserved words. IGROUPR (080) and NSACR (E00) have no row, as there are no Security
/// Extensions.
#[rustfmt::skip]
static REGISTERS: [Register; 15] = {
    use Widths::{BytesAndWords, Words};
    const fn row(
        start: u32,
        end: u32,
        widths: Widths,
        read: fn(&Vgic, VcpuId, u32) -> u32,
        write: fn(&mut Vgic, VcpuId, u32, Written) -> Effects,
    ) -> Register {
        Register { start, end, widths, read, write }
    }
    [
        row(0x000, 0x000, Words, Vgic::read_zero, Vgic::ignore),
        row(0x000, 0x010, Words, Vgic::read_identity, Vgic::write_ctlr),
        row(0x100, 0x180, Words, Vgic::read_enabled, Vgic::write_isenabler),
        row(0x180, 0x200, Words, Vgic::read_enabled, Vgic::write_icenabler),
        row(0x200, 0x280, Words, Vgic::read_pending, Vgic::write_ispendr),
        row(0x280, 0x300, Words, Vgic::read_pending, Vgic::write_icpendr),
        row(0x300, 0x380, Words, Vgic::read_active, Vgic::write_isactiver),
        row(0x380, 0x400, Words, Vgic::read_active, Vgic::write_icactiver),
        row(0x400, 0x800, BytesAndWords, Vgic::read_ipriorityr, Vgic::write_ipriorityr),
        row(0x800, 0xC00, BytesAndWords, Vgic::read_itargetsr, Vgic::write_itargetsr),
        row(0xC00, 0xD00, Words, Vgic::read_icfgr, Vgic::write_icfgr),
        row(SGIR, 0xF10, Words, Vgic::read_zero, Vgic::write_sgir),
        row(0xF10, 0xF20, BytesAndWords, Vgic::read_pendsgir, Vgic::write_cpendsgir),
        row(0xF20, 0xF30, BytesAndWords, Vgic::read_pendsgir, Vgic::write_spendsgir),
        row(0xFE0, 0xFF0, Words, Vgic::read_peripheral_id, Vgic::ignore),
    ]
};

const SGIR: u32 = 0xF00;

/// Per 16 bytes of the map, the row in [`REGISTERS`].
static ROWS: [u8; 256] = {
    let mut rows = [0; 256];
    let mut row = 0;
    while row < REGISTERS.len() {
        let mut offset = REGISTERS[row].start;
        while offset < REGISTERS[row].end {
            rows[offset as usize / 16] = row as u8;
            offset += 16;
        }
        row += 1;
    }
    rows
};

/// The architecture does not allow the access; the guest takes a data abort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused;

/// Actions the caller must take after a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Effects {
    /// vCPUs that must refill, the writer included: kick those that run, and wake those that wait if
    /// [`Vgic::has_deliverable`].
    pub kick: VcpuSet,
    // The parts of `HostWork`, unpacked: the struct fits two words, which are returned in registers.
    op: Option<HostOp>,
    bank: u8,
    mask: u32,
}

const _: () = assert!(size_of::<Result<Effects, Refused>>() == 8);

/// An operation on the physical interrupts behind some SPIs, which [`Vgic::routes`] of `first` and `mask` lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostWork {
    /// The operation on each interrupt.
    pub op: HostOp,
    /// A multiple of 32.
    pub first: IntId,
    /// Bit n for virtual interrupt `first` + n; all are routed.
    pub mask: u32,
}

/// An operation on a physical interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostOp {
    /// Configure the trigger ([`Vgic::trigger_of`]) and the target ([`Vgic::target_of`]), then enable.
    Enable,
    /// Disable it.
    Disable,
    /// Clear its pending state.
    ClearPending,
    /// Send it to the CPU of [`Vgic::target_of`].
    Retarget,
}

impl Effects {
    pub(super) const NONE: Self = Self::kick(VcpuSet::EMPTY);

    pub(super) const fn kick(kick: VcpuSet) -> Self {
        Self {
            kick,
            op: None,
            bank: 0,
            mask: 0,
        }
    }

    /// Adds `op` for the routed interrupts `mask` of bank `number`. Guests do not change the physical state of PPIs.
    pub(super) const fn and_host(self, op: HostOp, number: u32, mask: u32) -> Self {
        if mask == 0 || number == 0 {
            return self;
        }
        Self {
            op: Some(op),
            bank: number as u8,
            mask,
            ..self
        }
    }

    /// Returns the work at the physical distributor.
    pub fn host(self) -> Option<HostWork> {
        Some(HostWork {
            op: self.op?,
            first: IntId::new(u32::from(self.bank) * BANK)?,
            mask: self.mask,
        })
    }
}

/// Returns the register at `offset`. Refuses accesses that the architecture does not allow (IHI 0048B 4.1.4).
fn register(offset: u32, width: Width) -> Result<&'static Register, Refused> {
    let row = ROWS.get(offset as usize / 16).ok_or(Refused)?;
    let register = REGISTERS.get(usize::from(*row)).ok_or(Refused)?;
    match width {
        Width::Word if offset.is_multiple_of(4) => Ok(register),
        Width::Byte if register.widths == Widths::BytesAndWords => Ok(register),
        _ => Err(Refused),
    }
}

/// Returns the bits of the word that an access covers, and the left shift of its value.
const fn lanes(offset: u32, width: Width) -> (u32, u32) {
    match width {
        Width::Byte => (0xFF << (offset % 4 * 8), offset % 4 * 8),
        _ => (u32::MAX, 0),
    }
}

impl Vgic {
    /// Reads the register at `offset` for `vcpu`, in the low bits of the result.
    pub fn read(&self, vcpu: VcpuId, offset: u32, width: Width) -> Result<u32, Refused> {
        let register = register(offset, width)?;
        let value = (register.read)(self, vcpu, offset.wrapping_sub(register.start) / 4);
        let (lanes, shift) = lanes(offset, width);
        Ok((value & lanes) >> shift)
    }

    /// Writes to the register at `offset` for `vcpu`, which must refill before it enters its guest.
    pub fn write(
        &mut self,
        vcpu: VcpuId,
        offset: u32,
        width: Width,
        value: u32,
    ) -> Result<Effects, Refused> {
        // By far the most frequent write. The table would add 60 instructions to an SGI's 530.
        if offset == SGIR && width == Width::Word {
            return Ok(Effects::kick(self.send_sgi(vcpu, value)));
        }
        let register = register(offset, width)?;
        let (lanes, shift) = lanes(offset, width);
        let value = value << shift & lanes;
        let written = Written { value, lanes };
        let index = offset.wrapping_sub(register.start) / 4;
        let mut effects = (register.write)(self, vcpu, index, written);
        if self.deactivate_banks | self.vcpu(vcpu).private.deactivate != 0 {
            effects.kick |= self.wake(vcpu);
        }
        Ok(effects)
    }

    /// Returns the first of the 32 SPIs that a write of a word at `offset` enables.
    pub const fn first_enabled(offset: u32) -> Option<u32> {
        match offset {
            0x104..0x180 if offset.is_multiple_of(4) => Some((offset - 0x100) * 8),
            _ => None,
        }
    }

    /// Returns whether the register at `offset` shows state of list registers, so that an access needs [`Self::freshen`] first.
    pub const fn is_stale(offset: u32) -> bool {
        matches!(offset, 0x200..0x400 | 0xF10..0xF30)
    }

    /// Updates the banks before `vcpu` accesses `offset`, if the register there shows state of list registers: folds those of
    /// `vcpu`, and returns the other vCPUs that hold interrupts of the bank. Their refill does the same, so that a guest that
    /// polls reads the current state.
    pub fn freshen(&mut self, vcpu: VcpuId, offset: u32, lrs: &mut impl ListRegisters) -> VcpuSet {
        if !Self::is_stale(offset) {
            return VcpuSet::EMPTY;
        }
        let mut kick = self.fold(vcpu, lrs);
        if let Some(spi) = self.spi(offset / 4 % 32)
            && offset < 0x400
        {
            let holders = bits(spi.bank.in_lr).map(|bit| VcpuSet::only(spi.holder(bit)));
            let holders = holders.fold(VcpuSet::EMPTY, VcpuSet::bitor);
            for holder in holders.minus(VcpuSet::only(vcpu)).iter() {
                kick |= self.wake(holder);
            }
        }
        kick
    }
}
