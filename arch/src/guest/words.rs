//! A guest's processor state as words, for somebody who keeps it outside the machine: the registers in the order of the lists
//! that also save and load them, so that none can be left out.

use super::{BankedRegisters, GuestContext, SystemRegisters, VcpuRegs, VfpState, each_half};
use crate::pmu::Monitors;

impl GuestContext {
    /// Words that [`Self::each_word`] shows.
    pub const WORDS: usize = 16;

    /// Shows r0 to r12, lr, PC and CPSR, and takes what they are changed to.
    pub fn each_word(&mut self, show: &mut dyn FnMut(&mut u32)) {
        self.r.iter_mut().for_each(&mut *show);
        show(&mut self.lr_usr);
        show(&mut self.pc);
        show(&mut self.cpsr);
    }
}

impl VfpState {
    const WORDS: usize = 2 * 32 + 2;
}

impl VcpuRegs {
    /// Words that [`Self::each_cpu_word`] shows.
    pub const CPU_WORDS: usize = SystemRegisters::WORDS + BankedRegisters::WORDS;
    /// Words that [`Self::each_vfp_word`] shows.
    pub const VFP_WORDS: usize = VfpState::WORDS;
    /// Words that [`Self::each_monitor_word`] shows.
    pub const MONITOR_WORDS: usize = Monitors::WORDS;

    /// Shows the cp15 registers and those of other modes, and takes what they are changed to. Any value may be given: a guest
    /// can write each of them itself.
    pub fn each_cpu_word(&mut self, show: &mut dyn FnMut(&mut u32)) {
        self.system.each_word(show);
        self.banked.each_word(show);
    }

    /// Shows D0 to D31, FPSCR and FPEXC, as [`Self::each_cpu_word`].
    pub fn each_vfp_word(&mut self, show: &mut dyn FnMut(&mut u32)) {
        for register in &mut self.vfp.d {
            each_half(register, show);
        }
        show(&mut self.vfp.fpscr);
        show(&mut self.vfp.fpexc);
    }

    /// Shows the performance monitors, as [`Self::each_cpu_word`].
    pub fn each_monitor_word(&mut self, show: &mut dyn FnMut(&mut u32)) {
        self.monitors.each_word(show);
    }

    /// Returns whether it has an asynchronous abort to take.
    pub fn awaits_async_abort(&self) -> bool {
        self.async_abort
    }

    /// Gives it an asynchronous abort to take, or none.
    pub fn set_async_abort(&mut self, awaits: bool) {
        self.async_abort = awaits;
    }
}

#[cfg(test)]
mod tests {
    use super::{GuestContext, VcpuRegs};

    /// Each register gets a value of its own, is shown with it, and the lists have no more and no fewer than they say.
    #[test]
    fn no_register_is_left_out_or_exchanged() {
        let (mut context, mut regs) = (GuestContext::default(), VcpuRegs::default());
        let mut next = 0x1000_0000;
        let mut give = |word: &mut u32| {
            *word = next;
            next += 1;
        };
        context.each_word(&mut give);
        regs.each_cpu_word(&mut give);
        regs.each_vfp_word(&mut give);
        regs.each_monitor_word(&mut give);
        let mut seen = Vec::new();
        let mut see = |word: &mut u32| seen.push(*word);
        context.each_word(&mut see);
        regs.each_cpu_word(&mut see);
        regs.each_vfp_word(&mut see);
        regs.each_monitor_word(&mut see);
        assert!((0x1000_0000..next).eq(seen.iter().copied()));
        let all = GuestContext::WORDS
            + VcpuRegs::CPU_WORDS
            + VcpuRegs::VFP_WORDS
            + VcpuRegs::MONITOR_WORDS;
        assert_eq!(seen.len(), all);
        // Of what is kept, nothing but the timer and the pending abort is shown elsewhere.
        let shown = format!("{regs:?}");
        let zero = shown.matches(": 0,").count() + shown.matches(": 0 ").count();
        assert!(zero <= 2, "registers that no list has: {shown}");
    }
}
