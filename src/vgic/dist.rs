//! Distributor registers: what a read answers and a write does.
//!
//! | offset | register | widths | |
//! |---|---|---|---|
//! | 000 | CTLR | 4 | Enable |
//! | 004, 008 | TYPER, IIDR | 4 | read only |
//! | 080 | IGROUPR | 4 | RAZ/WI: no Security Extensions, one group |
//! | 100, 180 | ISENABLER, ICENABLER | 4 | SGIs always enabled |
//! | 200, 280 | ISPENDR, ICPENDR | 4 | SGIs read only |
//! | 300, 380 | ISACTIVER, ICACTIVER | 4 | |
//! | 400 | IPRIORITYR | 1, 4 | five bits implemented |
//! | 800 | ITARGETSR | 1, 4 | 0 to 7 read the reader's mask; others RAZ/WI with one vCPU |
//! | C00 | ICFGR | 4 | SGIs and PPIs read only |
//! | E00 | NSACR | 4 | RAZ/WI |
//! | F00 | SGIR | 4 | write only |
//! | F10, F20 | CPENDSGIR, SPENDSGIR | 1, 4 | |
//! | FE8 | ICPIDR2 | 4 | GICv2 |
//!
//! All other words, and interrupts that the domain does not have, are RAZ/WI. A width that the architecture does not
//! allow at a register is refused, as are unaligned offsets (IHI 0048B 4.1.4).
//!
//! A write to an interrupt that is in a list register takes effect in the next refill of the vCPU that holds it, which is
//! kicked. Before an access to pending and active state comes [`Vgic::freshen`].
//!
//! Manual: IHI 0048B 4.1.2 (map), 4.3 (registers).

use core::ops::BitOr;

use armv7::syndrome::Width;

use super::irq::BANK;
use super::lr::{ListRegisters, Lr};
use super::{Vgic, bits};
use crate::id::{IntId, VcpuId, VcpuSet};

/// The architecture does not allow the access: the guest gets a data abort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused;

/// What a write asks of the layers above.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Effects {
    /// vCPUs that must pass through a refill, the writer included: kick those that run, wake those that wait if
    /// [`Vgic::has_deliverable`].
    pub kick: VcpuSet,
    // The host's work, in parts: all of it is two words, which are answered in registers.
    op: Option<HostOp>,
    bank: u8,
    mask: u32,
}

const _: () = assert!(size_of::<Result<Effects, Refused>>() == 8);

/// Work for the physical interrupts behind some virtual SPIs: [`Vgic::routes`] of `first` and `mask` lists them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostWork {
    /// What to do to each.
    pub op: HostOp,
    /// A multiple of 32.
    pub first: IntId,
    /// Bit n for virtual interrupt `first` + n; all are routed.
    pub mask: u32,
}

/// What to do to a physical interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostOp {
    /// Configure it as [`Vgic::trigger_of`] says, send it to [`Vgic::target_of`], enable it.
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

    /// Besides, `op` for the routed interrupts `mask` of bank `number`. The physical state of PPIs is not the guest's to
    /// change.
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

    /// Work at the physical distributor.
    #[inline]
    pub fn host(self) -> Option<HostWork> {
        Some(HostWork {
            op: self.op?,
            first: IntId::new(u32::from(self.bank) * BANK)?,
            mask: self.mask,
        })
    }
}

/// `GICD_IIDR`: Arm, as Xen.
const IIDR: u32 = 0x43B;
/// `ICPIDR2`: architecture version 2, JEP106 Arm (IHI 0048B 4.3.18).
const ICPIDR2: u32 = 0x2B;
/// Edge bits of `GICD_ICFGR`.
pub(super) const EDGE: u32 = 0xAAAA_AAAA;

/// Each 128 bytes of the map are one block.
const BLOCK_SHIFT: u32 = 7;
const SGIR: u32 = 0xF00;
pub(super) const CPENDSGIR: u32 = 0xF10;
pub(super) const SPENDSGIR: u32 = 0xF20;
pub(super) const SPENDSGIR_END: u32 = 0xF30;

/// Number of the word at `offset` within a register array that starts at `base`.
const fn word(offset: u32, base: u32) -> u32 {
    (offset - base) / 4
}

/// Splits the index of a register of four bytes' worth of interrupts into bank and word of the bank.
pub(super) const fn eighth(index: u32) -> (u32, usize) {
    (index / 8, (index % 8) as usize)
}

/// The part of a register word that an access covers, and how far left its value goes.
const fn lanes(offset: u32, width: Width) -> (u32, u32) {
    match width {
        Width::Byte => (0xFF << (offset % 4 * 8), offset % 4 * 8),
        _ => (u32::MAX, 0),
    }
}

impl Vgic {
    /// What `vcpu` reads at `offset`, below 0x1000.
    #[inline]
    pub fn read(&self, vcpu: VcpuId, offset: u32, width: Width) -> Result<u32, Refused> {
        check(offset, width)?;
        let value = self.read_word(vcpu, offset & !3);
        Ok(match width {
            Width::Byte => value >> (offset % 4 * 8) & 0xFF,
            _ => value,
        })
    }

    /// The register at `offset`, a multiple of 4.
    #[inline(always)]
    fn read_word(&self, vcpu: VcpuId, offset: u32) -> u32 {
        match offset >> BLOCK_SHIFT {
            0 => self.read_identity(offset),
            2 | 3 => self
                .bank(vcpu, word(offset, 0x100) % 32)
                .map_or(0, |bank| bank.enabled),
            4 | 5 => self.pending_word(vcpu, word(offset, 0x200) % 32),
            6 | 7 => self.active_word(vcpu, word(offset, 0x300) % 32),
            8..=15 => {
                let (number, index) = eighth(word(offset, 0x400));
                self.bank(vcpu, number)
                    .map_or(0, |bank| bank.priority[index & 7])
            }
            16..=23 => self.read_target(vcpu, word(offset, 0x800)),
            24 | 25 => self.read_config(word(offset, 0xC00)),
            30 => self.read_sgi_pending(vcpu, offset),
            _ if offset == 0xFE8 => ICPIDR2,
            _ => 0,
        }
    }

    /// Does what `vcpu` writes at `offset`, below 0x1000. The vCPU's refill must follow before it runs on.
    #[inline]
    pub fn write(
        &mut self,
        vcpu: VcpuId,
        offset: u32,
        width: Width,
        value: u32,
    ) -> Result<Effects, Refused> {
        // By far the most frequent write, so it takes no part in the rest.
        if offset == SGIR && width == Width::Word {
            Ok(Effects::kick(self.send_sgi(vcpu, value)))
        } else {
            self.write_state(vcpu, offset, width, value)
        }
    }

    fn write_state(
        &mut self,
        vcpu: VcpuId,
        offset: u32,
        width: Width,
        value: u32,
    ) -> Result<Effects, Refused> {
        check(offset, width)?;
        let (mask, shift) = lanes(offset, width);
        let value = value << shift & mask;
        let mut effects = match offset >> BLOCK_SHIFT {
            0 if offset == 0 => Effects::kick(self.write_control(value)),
            2 => self.set_enable(vcpu, word(offset, 0x100), value),
            3 => self.clear_enable(vcpu, word(offset, 0x180), value),
            4 => Effects::kick(self.set_pending(vcpu, word(offset, 0x200), value)),
            5 => self.clear_pending(vcpu, word(offset, 0x280), value),
            6 => Effects::kick(self.set_active(vcpu, word(offset, 0x300), value)),
            7 => Effects::kick(self.clear_active(vcpu, word(offset, 0x380), value)),
            8..=15 => Effects::kick(self.write_priority(vcpu, word(offset, 0x400), mask, value)),
            16..=23 => self.write_target(vcpu, word(offset, 0x800), mask, value),
            24 | 25 => {
                self.write_config(word(offset, 0xC00), value);
                Effects::NONE
            }
            30 => Effects::kick(self.write_sgi_pending(vcpu, offset, value)),
            _ => Effects::NONE,
        };
        if self.deactivate_banks | self.vcpu(vcpu).private.deactivate != 0 {
            effects.kick |= self.wake(vcpu);
        }
        Ok(effects)
    }

    /// Whether what list registers hold shows at `offset`, so that [`Self::freshen`] must come before a read.
    #[inline]
    pub const fn is_stale(offset: u32) -> bool {
        matches!(offset, 0x200..0x400 | CPENDSGIR..SPENDSGIR_END)
    }

    /// Brings what is known of list registers up to date before `vcpu` accesses `offset`, if that matters there: reads back
    /// its own, and returns the other vCPUs that hold interrupts of the bank, for their refill to do the same, so that a
    /// guest that polls gets the truth.
    #[inline]
    pub fn freshen(&mut self, vcpu: VcpuId, offset: u32, lrs: &mut impl ListRegisters) -> VcpuSet {
        if !Self::is_stale(offset) {
            return VcpuSet::EMPTY;
        }
        let mut kick = self.fold(vcpu, lrs);
        if let Some(spi) = self.spi(word(offset, 0x200) % 32)
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

    fn read_identity(&self, offset: u32) -> u32 {
        match offset {
            0x000 => self.forwarding.into(),
            0x004 => {
                self.spis.len() as u32 & 0x1F | u32::from(self.nr_vcpus.saturating_sub(1)) << 5
            }
            0x008 => IIDR,
            _ => 0,
        }
    }

    /// Interrupts of a bank that are in list registers with a state that `has`, as last known.
    fn listed(&self, vcpu: VcpuId, number: u32, has: impl Fn(Lr) -> bool) -> u32 {
        let whose = if number == 0 {
            VcpuSet::only(vcpu)
        } else {
            self.existing
        };
        let mut mask = 0;
        for state in whose.iter().map(|vcpu| self.vcpu(vcpu)) {
            for lr in state.used_lrs().filter(|lr| has(*lr)) {
                if lr.place().0 == number {
                    mask |= 1 << lr.place().1;
                }
            }
        }
        mask
    }

    pub(super) fn pending_word(&self, vcpu: VcpuId, number: u32) -> u32 {
        self.bank(vcpu, number).map_or(0, |bank| match bank.in_lr {
            0 => bank.pending,
            _ => bank.pending | self.listed(vcpu, number, Lr::is_pending) & !bank.drop_pending,
        })
    }

    pub(super) fn active_word(&self, vcpu: VcpuId, number: u32) -> u32 {
        self.bank(vcpu, number).map_or(0, |bank| match bank.in_lr {
            0 => bank.active | bank.set_active,
            _ => {
                bank.active
                    | bank.set_active
                    | self.listed(vcpu, number, Lr::is_active) & !bank.drop_active
            }
        })
    }

    fn read_target(&self, vcpu: VcpuId, index: u32) -> u32 {
        let (number, index) = eighth(index);
        if number == 0 {
            u32::from(VcpuSet::only(vcpu).0) * 0x0101_0101
        } else if self.nr_vcpus == 1 {
            0
        } else {
            self.spi(number).map_or(0, |spi| spi.target[index & 7])
        }
    }

    fn read_config(&self, index: u32) -> u32 {
        match index {
            0 => EDGE,
            _ => self
                .spi(index / 2)
                .map_or(0, |spi| spi.config[index as usize & 1]),
        }
    }

    /// One byte per SGI: the vCPUs from which it is pending.
    fn read_sgi_pending(&self, vcpu: VcpuId, offset: u32) -> u32 {
        if !(CPENDSGIR..SPENDSGIR_END).contains(&offset) {
            return 0;
        }
        let first = offset & 0xC;
        let byte = |lane: u32| u32::from(self.sgi_pending_from(vcpu, first + lane)) << (lane * 8);
        (0..4).map(byte).fold(0, |word, byte| word | byte)
    }

    fn sgi_pending_from(&self, vcpu: VcpuId, sgi: u32) -> u8 {
        let state = self.vcpu(vcpu);
        let listed = state
            .used_lrs()
            .find(|lr| u32::from(lr.virq()) == sgi && lr.is_pending())
            .filter(|_| state.private.drop_pending >> sgi & 1 == 0)
            .map_or(0, |lr| 1 << lr.source());
        state.sgi_sources[sgi as usize & 15] | listed
    }
}

/// Refuses what the architecture refuses (IHI 0048B 4.1.4): only some registers have bytes, none halfwords.
#[inline]
const fn check(offset: u32, width: Width) -> Result<(), Refused> {
    match width {
        Width::Word if offset.is_multiple_of(4) && offset < 0x1000 => Ok(()),
        Width::Byte if matches!(offset, 0x400..0xC00 | CPENDSGIR..SPENDSGIR_END) => Ok(()),
        _ => Err(Refused),
    }
}
