//! The state of a distributor as words, for somebody who keeps it outside the machine.
//!
//! Only what a guest can see is there: list registers are empty while their vCPU is not resident, and physical activations
//! stay with the machine.

use super::irq::{BANK, Bank, PRIORITY_MASK};
use super::{SGIS, Vgic, bits};
use crate::id::{IntId, VcpuId, VcpuSet};

/// Words of a bank: enabled, pending, active, made active, priorities.
const BANK_WORDS: usize = 4 + 8;
/// Edge bits of `GICD_ICFGR`.
const EDGE: u32 = 0xAAAA_AAAA;

/// The private interrupts of a vCPU: enabled, pending, active, made active by the guest; eight words of priorities; four
/// words with a byte for each SGI: the vCPUs from which it is pending; four with the vCPU from which it is active.
pub type PrivateWords = [u32; BANK_WORDS + 8];

/// 32 shared interrupts: the first twelve words as of the private ones; eight words of targets; two of `GICD_ICFGR`; eight
/// with a byte for each: the vCPU that it is active for.
pub type SharedWords = [u32; BANK_WORDS + 18];

/// Returns the words of a bank. The physical interrupt behind a routed one comes again by itself.
fn words_of(bank: &Bank) -> [u32; BANK_WORDS] {
    let mut words = [0; BANK_WORDS];
    let (states, priorities) = words.split_at_mut(4);
    states.copy_from_slice(&[
        bank.enabled,
        bank.pending & !bank.routed,
        bank.active,
        bank.set_active,
    ]);
    priorities.copy_from_slice(&bank.priority);
    words
}

/// Puts words into a bank, beside what became pending there meanwhile.
fn set_words(bank: &mut Bank, words: &[u32]) {
    if let [enabled, pending, active, set_active, priorities @ ..] = words {
        bank.enabled = *enabled;
        bank.pending |= *pending;
        bank.active = *active;
        bank.set_active = *set_active;
        // Where a physical interrupt is behind it, that one is active too.
        bank.phys_active = *active & bank.routed;
        for (to, from) in bank.priority.iter_mut().zip(priorities) {
            *to = *from;
        }
    }
}

/// Returns the bytes of words.
fn bytes(words: &[u32]) -> impl Iterator<Item = u8> {
    words.iter().flat_map(|word| word.to_le_bytes())
}

impl Vgic {
    /// Returns the number of banks with shared interrupts.
    pub fn shared_banks(&self) -> u32 {
        self.spis.len() as u32
    }

    /// Returns whether some shared interrupt is fed by the machine.
    pub fn has_devices(&self) -> bool {
        self.spis.iter().any(|spi| spi.bank.routed != 0)
    }

    /// Returns whether the distributor is on.
    pub fn is_on(&self) -> bool {
        self.forwarding
    }

    /// Returns the private interrupts of `vcpu`, which is not resident.
    pub fn private_words(&self, vcpu: VcpuId) -> PrivateWords {
        let state = self.vcpu(vcpu);
        let mut words = PrivateWords::default();
        let (bank, sgis) = words.split_at_mut(BANK_WORDS);
        bank.copy_from_slice(&words_of(&state.private));
        let all = state.sgi_sources.iter().chain(&state.sgi_active_from);
        for (n, byte) in all.enumerate() {
            if let Some(word) = sgis.get_mut(n / 4) {
                *word |= u32::from(*byte) << (n % 4 * 8);
            }
        }
        words
    }

    /// Returns shared bank `n`, from 0 on; `None` behind the last. No vCPU is resident.
    pub fn shared_words(&self, n: u32) -> Option<SharedWords> {
        let spi = self.spi(n.checked_add(1)?)?;
        let mut words = SharedWords::default();
        let mut at = words.iter_mut();
        let mut put = |from: &[u32]| from.iter().zip(&mut at).for_each(|(from, to)| *to = *from);
        put(&words_of(&spi.bank));
        put(&spi.target);
        put(&spi.config);
        for four in spi.holder.chunks(4) {
            let byte = |n: usize| four.get(n).map_or(0, |holder| holder.raw());
            put(&[u32::from_le_bytes([0, 1, 2, 3].map(byte))]);
        }
        Some(words)
    }

    /// Returns whether the words are of a vCPU's private interrupts here.
    pub fn may_be_private(&self, words: &PrivateWords) -> bool {
        let (bank, sgis) = words.split_at(BANK_WORDS);
        let (sources, active_from) = sgis.split_at(4);
        let pending = bytes(sources).enumerate();
        let pending = pending.fold(0, |set, (n, from)| set | u32::from(from != 0) << n);
        let [enabled, all_pending, ..] = *words;
        is_bank(bank)
            && enabled & SGIS == SGIS
            && all_pending & SGIS == pending
            && bytes(sources).all(|from| from & !self.existing.0 == 0)
            && bytes(active_from).all(|from| u32::from(from) < u32::from(self.nr_vcpus))
    }

    /// Returns whether the words are of shared interrupts here: of which none is fed by the machine.
    pub fn may_be_shared(&self, n: u32, words: &SharedWords) -> bool {
        let (bank, rest) = words.split_at(BANK_WORDS);
        let (targets, rest) = rest.split_at(8);
        let (config, holders) = rest.split_at(2);
        is_bank(bank)
            && bytes(targets).all(|targets| targets & !self.existing.0 == 0)
            && config.iter().all(|word| word & !EDGE == 0)
            && bytes(holders).all(|holder| u32::from(holder) < u32::from(self.nr_vcpus))
            && self.spi(n + 1).is_some_and(|spi| spi.bank.routed == 0)
    }

    /// Gives `vcpu`, which has never run, private interrupts for which [`Self::may_be_private`]. Returns who must refill.
    pub fn set_private(&mut self, vcpu: VcpuId, words: &PrivateWords) -> VcpuSet {
        let (bank, sgis) = words.split_at(BANK_WORDS);
        let state = self.vcpu_mut(vcpu);
        set_words(&mut state.private, bank);
        let places = state
            .sgi_sources
            .iter_mut()
            .chain(&mut state.sgi_active_from);
        for (to, from) in places.zip(bytes(sgis)) {
            *to = from;
        }
        self.wake(vcpu)
    }

    /// Sets shared bank `n` of a domain that has never run to words for which [`Self::may_be_shared`]. Returns who must refill.
    pub fn set_shared(&mut self, n: u32, words: &SharedWords) -> VcpuSet {
        let number = n + 1;
        let (bank, rest) = words.split_at(BANK_WORDS);
        let (targets, rest) = rest.split_at(8);
        let (config, holders) = rest.split_at(2);
        let Some(spi) = self.spi_mut(number) else {
            return VcpuSet::EMPTY;
        };
        set_words(&mut spi.bank, bank);
        spi.target.copy_from_slice(targets);
        spi.config.copy_from_slice(config);
        for (to, from) in spi.holder.iter_mut().zip(bytes(holders)) {
            *to = VcpuId::new(from.into()).unwrap_or(VcpuId::ZERO);
        }
        let in_flight = spi.bank.in_flight();
        bits(in_flight).fold(VcpuSet::EMPTY, |kick, bit| kick | self.queue(number, bit))
    }

    /// Switches the distributor on or off, of a domain that has never run.
    pub fn set_on(&mut self, on: bool) {
        self.forwarding = on;
    }
}

/// Returns whether the words are of a bank: priorities have the bits that exist.
fn is_bank(words: &[u32]) -> bool {
    let priorities = words.iter().skip(4);
    priorities.fold(0, |all, word| all | word) & !PRIORITY_MASK == 0
}

const _: () = assert!(BANK == 32 && IntId::VIRTUAL_TIMER.raw() < 32);

#[cfg(test)]
mod tests {
    use super::{PrivateWords, SharedWords, Vgic};
    use crate::id::{IntId, VcpuId};
    use armv7::syndrome::Width;

    fn vcpu(n: u32) -> VcpuId {
        VcpuId::new(n).unwrap()
    }

    /// A distributor with something in every register.
    fn filled() -> Vgic {
        let mut vgic = Vgic::new(3, 64).unwrap();
        vgic.route_hw(IntId::VIRTUAL_TIMER, IntId::VIRTUAL_TIMER)
            .unwrap();
        for n in 0..3 {
            let mut write = |offset: u32, value: u32| {
                let _ = vgic.write(vcpu(n), offset, Width::Word, value).unwrap();
            };
            write(0x100, 0x8C00_0000 + n);
            write(0x200, 0x8000_0000 >> n);
            write(0x300, 0x1_0000 << n);
            write(0x404, 0x1020_3040 + n * 8);
            write(0xF20, 0x0201_0400);
            write(0x104, 0xF00F);
            write(0x204, 0x300C);
            write(0x304, 0x0100);
            write(0x424, 0x8090_A0B0);
            write(0x824, 0x0402_0104);
            write(0xC08, 0xA0A0_0000);
        }
        let _ = vgic.write(vcpu(0), 0, Width::Word, 1).unwrap();
        vgic
    }

    fn copy(from: &Vgic) -> Vgic {
        let mut to = Vgic::new(3, 64).unwrap();
        to.route_hw(IntId::VIRTUAL_TIMER, IntId::VIRTUAL_TIMER)
            .unwrap();
        to.set_on(from.is_on());
        for n in 0..3 {
            let words = from.private_words(vcpu(n));
            assert!(to.may_be_private(&words));
            let _ = to.set_private(vcpu(n), &words);
        }
        for n in 0..from.shared_banks() {
            let words = from.shared_words(n).unwrap();
            assert!(to.may_be_shared(n, &words));
            let _ = to.set_shared(n, &words);
        }
        to
    }

    #[test]
    fn a_copy_reads_the_same_at_every_register() {
        let from = filled();
        let to = copy(&from);
        for n in 0..3 {
            for offset in (0..0x1000).step_by(4) {
                assert_eq!(
                    from.read(vcpu(n), offset, Width::Word),
                    to.read(vcpu(n), offset, Width::Word),
                    "vCPU {n}, offset {offset:#x}"
                );
            }
            assert_eq!(from.has_deliverable(vcpu(n)), to.has_deliverable(vcpu(n)));
        }
    }

    #[test]
    fn words_that_no_distributor_has_are_refused() {
        let vgic = filled();
        let good = vgic.private_words(vcpu(0));
        assert!(vgic.may_be_private(&good));
        let wrong = |change: fn(&mut PrivateWords)| {
            let mut words = good;
            change(&mut words);
            assert!(!vgic.may_be_private(&words), "{words:x?}");
        };
        wrong(|words| words[0] &= !1);
        wrong(|words| words[1] ^= 2);
        wrong(|words| words[4] |= 1);
        wrong(|words| words[12] |= 0x80);
        wrong(|words| words[16] = 3);
        let good = vgic.shared_words(0).unwrap();
        let wrong = |n, change: fn(&mut SharedWords)| {
            let mut words = good;
            change(&mut words);
            assert!(!vgic.may_be_shared(n, &words), "{words:x?}");
        };
        wrong(0, |words| words[11] |= 7);
        wrong(0, |words| words[12] |= 8);
        wrong(0, |words| words[20] |= 1);
        wrong(0, |words| words[29] = 3 << 24);
        wrong(2, |_| ());
    }
}
