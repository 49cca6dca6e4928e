//! Processor state of a guest, and [`enter`], which runs it and returns at its next exit.
//!
//! [`GuestContext`] holds the state saved at every exit: general registers, PC and CPSR. All other state of a guest
//! ([`VcpuRegs`]: banked registers, cp15, VFP, virtual timer) stays in the hardware across exits, and moves only when
//! another vCPU is loaded. One list of registers generates the structure, the save and the load, so none of them can
//! miss a register.

mod access;
mod words;

#[cfg(target_arch = "arm")]
use core::arch::{asm, global_asm};
#[cfg(target_arch = "arm")]
use core::mem::offset_of;

use crate::addr::{Gfn, PAGE_SHIFT};
use crate::barrier::isb;
use crate::cp15;
#[cfg(target_arch = "arm")]
use crate::features::{self, Vfp};
use crate::syndrome::psr;

pub use access::{
    ExceptionState, register, set_data_fault, set_exception_return, set_fetch_fault, set_register,
};

/// General registers, PC and CPSR of a guest.
#[repr(C)]
#[derive(Clone, Debug, Default)]
pub struct GuestContext {
    /// r0 to r12 of the current mode; in FIQ mode r8 to r12 are those of user mode.
    pub r: [u32; 13],
    /// LR of user and system mode.
    pub lr_usr: u32,
    /// Address of the next instruction.
    pub pc: u32,
    /// CPSR.
    pub cpsr: u32,
    host_sp: u32,
}

/// Reason of an exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// A trap, see [`syndrome`].
    Trap,
    /// A physical interrupt is pending.
    Interrupt,
}

#[cfg(target_arch = "arm")]
global_asm!(
    include_str!("vectors.S"),
    PC = const offset_of!(GuestContext, pc),
    CPSR = const offset_of!(GuestContext, cpsr),
    LR = const offset_of!(GuestContext, lr_usr),
    HOST_SP = const offset_of!(GuestContext, host_sp),
);

#[cfg(target_arch = "arm")]
unsafe extern "C" {
    fn guest_enter(context: *mut GuestContext) -> u32;
}

/// Runs the guest whose [`VcpuRegs`] is loaded until it leaves.
#[cfg(target_arch = "arm")]
pub fn enter(context: &mut GuestContext) -> Exit {
    // SAFETY: 1. the assembly writes only the context and keeps the callee-saved registers; 2. CPSR was checked by
    // `set_cpsr` or comes from the hardware, so eret cannot go to HYP mode; 3. the guest is confined by stage 2 and HCR.
    match unsafe { guest_enter(context) } {
        0 => Exit::Trap,
        _ => Exit::Interrupt,
    }
}

/// Stands for running a guest. A host has none.
#[cfg(not(target_arch = "arm"))]
pub fn enter(_context: &mut GuestContext) -> Exit {
    Exit::Interrupt
}

/// Returns whether a CPSR or SPSR value has a mode that a guest may be in (DDI 0406C.d B1.3.1).
pub const fn is_guest_mode(status: u32) -> bool {
    matches!(
        status & psr::MODE,
        psr::MODE_USR
            | psr::MODE_FIQ
            | psr::MODE_IRQ
            | psr::MODE_SVC
            | psr::MODE_ABT
            | psr::MODE_UND
            | psr::MODE_SYS
    )
}

/// Returns the syndrome of the last trap from a guest (HSR).
pub fn syndrome() -> u32 {
    cp15::Hsr::read()
}

/// Returns the virtual address of the last data abort from a guest (HDFAR).
pub fn fault_va() -> u32 {
    cp15::Hdfar::read()
}

/// Returns the virtual address of the last prefetch abort from a guest (HIFAR).
pub fn fetch_fault_va() -> u32 {
    cp15::Hifar::read()
}

/// Returns the page number of the IPA of the last stage-2 fault: bits 39 to 12 of the IPA, in HPFAR bits 31 to 4.
pub fn fault_page() -> u32 {
    cp15::Hpfar::read() >> 4
}

/// Returns ACTLR, which the guest reads.
pub fn actlr() -> u32 {
    cp15::Actlr::read()
}

/// Returns CNTKCTL of the loaded guest.
pub fn cntkctl() -> u32 {
    cp15::Cntkctl::read()
}

/// Access to translate for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
}

/// Reason a stage-1 translation failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Untranslated {
    /// The guest's tables have no valid entry. The guest takes the fault itself on a retry.
    ByGuest,
    /// Stage 2 has no entry for the guest's tables.
    TablesMissing,
}

/// Translates `va` by the loaded guest's stage 1, at PL1.
///
/// Uses ATS1CPR/ATS1CPW (DDI 0406C.d B4.2.4), which stop after stage 1; the caller looks stage 2 up in its p2m.
/// Restores the guest's PAR.
#[inline(always)]
pub fn translate(va: u32, access: Access) -> Result<Gfn, Untranslated> {
    let saved = cp15::Par::read();
    // SAFETY: an address translation operation changes only PAR.
    unsafe {
        match access {
            Access::Read => cp15::Ats1cpr::write(va),
            Access::Write => cp15::Ats1cpw::write(va),
        }
    }
    isb();
    let par = cp15::Par::read();
    // SAFETY: PAR has no effect but on the guest, which may read it.
    unsafe { cp15::Par::write(saved) };
    decode_par(par, va)
}

/// Decodes a PAR value for `va` (DDI 0406C.d B4.1.112). The long format has bit 11 set; the short format may be a 16
/// MiB supersection (bit 1). In HYP the format is long, which alone holds the stage of a fault (FSTAGE).
fn decode_par(par: u64, va: u32) -> Result<Gfn, Untranslated> {
    const FAULT: u32 = 1;
    /// FSTAGE, in long format: the fault is in stage 2.
    const IN_STAGE_2: u32 = 1 << 9 | LPAE;
    const LPAE: u32 = 1 << 11;
    const SUPERSECTION: u32 = 1 << 1;
    let (low, high) = (par as u32, (par >> 32) as u32);
    if low & FAULT != 0 {
        return Err(match low & IN_STAGE_2 {
            IN_STAGE_2 => Untranslated::TablesMissing,
            _ => Untranslated::ByGuest,
        });
    }
    let frame = if low & LPAE != 0 {
        low >> PAGE_SHIFT | (high & 0xFF) << 20
    } else if low & SUPERSECTION == 0 {
        low >> PAGE_SHIFT
    } else {
        // PAR[31:24] = PA[31:24], PAR[23:16] = PA[39:32].
        low >> 24 << 12 | (low >> 16 & 0xFF) << 20 | va >> PAGE_SHIFT & 0xFFF
    };
    Gfn::new(u64::from(frame)).ok_or(Untranslated::ByGuest)
}

/// Loads seven words by one LDM.
///
/// # Safety
/// `from` must be valid for reads of seven words.
#[inline(always)]
unsafe fn load_seven(from: *const u32) -> [u32; 7] {
    let words: [u32; 7];
    #[cfg(target_arch = "arm")]
    {
        let (a, b, c, d, e, f, g);
        // SAFETY: passed on to the caller.
        unsafe {
            asm!("ldmia {from}, {{r0-r5, r12}}", from = in(reg) from, out("r0") a, out("r1") b, out("r2") c,
                 out("r3") d, out("r4") e, out("r5") f, out("r12") g, options(nostack, preserves_flags, readonly));
        }
        words = [a, b, c, d, e, f, g];
    }
    #[cfg(not(target_arch = "arm"))]
    {
        // SAFETY: passed on to the caller.
        words = unsafe { from.cast::<[u32; 7]>().read() };
    }
    words
}

/// Stores seven words by one STM.
///
/// # Safety
/// `to` must be valid for writes of seven words.
#[inline(always)]
unsafe fn store_seven(to: *mut u32, words: [u32; 7]) {
    #[cfg(target_arch = "arm")]
    {
        let [a, b, c, d, e, f, g] = words;
        // SAFETY: passed on to the caller.
        unsafe {
            asm!("stmia {to}, {{r0-r5, r12}}", to = in(reg) to, in("r0") a, in("r1") b, in("r2") c, in("r3") d,
                 in("r4") e, in("r5") f, in("r12") g, options(nostack, preserves_flags));
        }
    }
    #[cfg(not(target_arch = "arm"))]
    // SAFETY: passed on to the caller.
    unsafe {
        to.cast::<[u32; 7]>().write(words);
    }
}

// 32-bit registers are in groups of seven, each one LDM or STM. Then come 64-bit registers, and those that fill no
// group.
macro_rules! system_registers {
    ($([$($field:ident = $register:ident,)*])* ; $($wide:ident = $register64:ident,)* ; $($single:ident = $register32:ident,)*) => {
        /// Coprocessor state of a guest, one field per register. The test guest `registers` searches for state that is
        /// missing. Left out: JOSCR and JMCR, which are RAZ in the trivial Jazelle implementation of Cortex-A7 and
        /// Cortex-A15 (DDI 0406C.d A2.11).
        #[derive(Clone, Debug, Default)]
        #[repr(C)]
        #[allow(missing_docs)] // the architecture names them
        pub struct SystemRegisters {
            $($(pub $field: u32,)*)*
            $(pub $wide: u64,)*
            $(pub $single: u32,)*
        }

        impl SystemRegisters {
            /// Words of the structure, two for each wide register.
            const WORDS: usize = [$($(stringify!($field),)*)*].len()
                + 2 * [$(stringify!($wide)),*].len()
                + [$(stringify!($single)),*].len();

            fn each_word(&mut self, show: &mut dyn FnMut(&mut u32)) {
                $($(show(&mut self.$field);)*)*
                $(each_half(&mut self.$wide, show);)*
                $(show(&mut self.$single);)*
            }

            #[inline(always)]
            fn save(&mut self) {
                let mut place = core::ptr::from_mut(self).cast::<u32>();
                // SAFETY: the groups are the structure's first fields, in order.
                unsafe {
                    $(
                        store_seven(place, [$(cp15::$register::read(),)*]);
                        place = place.add(7);
                    )*
                }
                let _ = place;
                $(self.$wide = cp15::$register64::read();)*
                $(self.$single = cp15::$register32::read();)*
            }

            #[inline(always)]
            fn load(&self) {
                let mut place = core::ptr::from_ref(self).cast::<u32>();
                // SAFETY: 1. the groups are the structure's first fields, in order; 2. PL1 state has no effect on the
                // hypervisor, which runs at PL2 with tables of its own.
                unsafe {
                    $(
                        let [$($field,)*] = load_seven(place);
                        $(cp15::$register::write($field);)*
                        place = place.add(7);
                    )*
                    $(cp15::$register64::write(self.$wide);)*
                    $(cp15::$register32::write(self.$single);)*
                }
                let _ = place;
            }
        }
    };
}

system_registers! {
    [
        csselr = Csselr,
        sctlr = Sctlr,
        cpacr = Cpacr,
        ttbcr = Ttbcr,
        dacr = Dacr,
        dfsr = Dfsr,
        ifsr = Ifsr,
    ]
    [
        adfsr = Adfsr,
        aifsr = Aifsr,
        dfar = Dfar,
        ifar = Ifar,
        mair0 = Mair0,
        mair1 = Mair1,
        amair0 = Amair0,
    ]
    [
        amair1 = Amair1,
        vbar = Vbar,
        contextidr = Contextidr,
        tpidrurw = Tpidrurw,
        tpidruro = Tpidruro,
        tpidrprw = Tpidrprw,
        cntkctl = Cntkctl,
    ]
    ;
    ttbr0 = Ttbr0,
    ttbr1 = Ttbr1,
    par = Par,
    ;
    teecr = Teecr,
    teehbr = Teehbr,
    fcseidr = Fcseidr,
}

/// Banked registers of all modes: SP, LR and SPSR, and FIQ's r8 to r12.
#[repr(C)]
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)] // the architecture names them
pub struct BankedRegisters {
    pub sp_usr: u32,
    pub sp_svc: u32,
    pub lr_svc: u32,
    pub spsr_svc: u32,
    pub sp_abt: u32,
    pub lr_abt: u32,
    pub spsr_abt: u32,
    pub sp_und: u32,
    pub lr_und: u32,
    pub spsr_und: u32,
    pub sp_irq: u32,
    pub lr_irq: u32,
    pub spsr_irq: u32,
    pub r8_fiq: u32,
    pub r9_fiq: u32,
    pub r10_fiq: u32,
    pub r11_fiq: u32,
    pub r12_fiq: u32,
    pub sp_fiq: u32,
    pub lr_fiq: u32,
    pub spsr_fiq: u32,
}

// In groups of seven as the cp15 registers, in the structure's order.
macro_rules! banked {
    ($([$($name:ident)*])*) => {
        impl BankedRegisters {
            const WORDS: usize = [$($(stringify!($name),)*)*].len();

            fn each_word(&mut self, show: &mut dyn FnMut(&mut u32)) {
                $($(show(&mut self.$name);)*)*
            }
        }

        #[cfg(target_arch = "arm")]
        impl BankedRegisters {
            #[inline(always)]
            fn save(&mut self) {
                let mut place = core::ptr::from_mut(self).cast::<u32>();
                $({
                    $(let $name: u32;)*
                    // SAFETY: 1. reads banked registers of modes the hypervisor never runs in (DDI 0406C.d B9.2.3); 2. the
                    // groups are the structure.
                    unsafe {
                        $(asm!(concat!("mrs {}, ", stringify!($name)), out(reg) $name, options(nomem, nostack, preserves_flags));)*
                        store_seven(place, [$($name,)*]);
                        place = place.add(7);
                    }
                })*
                let _ = place;
            }

            #[inline(always)]
            fn load(&self) {
                let mut place = core::ptr::from_ref(self).cast::<u32>();
                $({
                    // SAFETY: as for the save.
                    unsafe {
                        let [$($name,)*] = load_seven(place);
                        $(asm!(concat!("msr ", stringify!($name), ", {}"), in(reg) $name, options(nomem, nostack, preserves_flags));)*
                        place = place.add(7);
                    }
                })*
                let _ = place;
            }
        }

        const _: () = {
            let places = [$($(core::mem::offset_of!(BankedRegisters, $name),)*)*];
            assert!(4 * places.len() == size_of::<BankedRegisters>());
            let mut n = 0;
            while n < places.len() {
                assert!(places[n] == 4 * n, "the groups are in the structure's order");
                n += 1;
            }
        };
    };
}
banked! {
    [sp_usr sp_svc lr_svc spsr_svc sp_abt lr_abt spsr_abt]
    [sp_und lr_und spsr_und sp_irq lr_irq spsr_irq r8_fiq]
    [r9_fiq r10_fiq r11_fiq r12_fiq sp_fiq lr_fiq spsr_fiq]
}

#[cfg(not(target_arch = "arm"))]
impl BankedRegisters {
    fn save(&mut self) {}
    fn load(&self) {}
}

/// Shows both halves of a wide register, the lower one first.
fn each_half(value: &mut u64, show: &mut dyn FnMut(&mut u32)) {
    let (mut low, mut high) = (*value as u32, (*value >> 32) as u32);
    show(&mut low);
    show(&mut high);
    *value = u64::from(high) << 32 | u64::from(low);
}

/// VFP and Advanced SIMD state: D0 to D31 and the system registers, as far as implemented. VFPv4 has no exceptional
/// state (FPINST, FPINST2) to keep (DDI 0438 4.2).
#[repr(C, align(8))]
#[derive(Clone, Debug, Default)]
pub struct VfpState {
    d: [u64; 32],
    fpscr: u32,
    fpexc: u32,
}

// Processors with D0 to D31 take the inlined path; the others call `save_some` and `load_some`.
#[cfg(target_arch = "arm")]
impl VfpState {
    const FPEXC_EN: u32 = 1 << 30;

    #[inline(always)]
    fn save(&mut self) {
        if !features::has_all_vfp() {
            return self.save_some();
        }
        self.save_control();
        // SAFETY: 1. HCPTR opens cp10 and cp11 to HYP, and D0 to D31 exist; 2. the hypervisor is soft-float, so the
        // registers hold the guest's values; 3. the stores go to `self.d`, 256 bytes.
        unsafe {
            asm!(".fpu neon-vfpv4", "vstmia {p}!, {{d0-d15}}", "vstmia {p}, {{d16-d31}}",
                 p = inout(reg) self.d.as_mut_ptr() => _, options(nostack));
        }
    }

    #[cold]
    #[inline(never)]
    fn save_some(&mut self) {
        if features::vfp() == Vfp::None {
            return;
        }
        self.save_control();
        // SAFETY: as above, for half of them.
        unsafe {
            asm!(".fpu vfpv4-d16", "vstmia {p}, {{d0-d15}}", p = in(reg) self.d.as_mut_ptr(), options(nostack));
        }
    }

    #[inline(always)]
    fn save_control(&mut self) {
        // SAFETY: VFP exists and is open to HYP; FPEXC.EN is set before other registers are read.
        unsafe {
            asm!(".fpu vfpv4-d16", "vmrs {}, fpexc", out(reg) self.fpexc, options(nomem, nostack));
            asm!(".fpu vfpv4-d16", "vmsr fpexc, {}", in(reg) Self::FPEXC_EN, options(nomem, nostack));
            asm!(".fpu vfpv4-d16", "vmrs {}, fpscr", out(reg) self.fpscr, options(nomem, nostack));
        }
    }

    #[inline(always)]
    fn load(&self) {
        if !features::has_all_vfp() {
            return self.load_some();
        }
        // SAFETY: as for the save.
        unsafe {
            asm!(".fpu neon-vfpv4", "vmsr fpexc, {}", in(reg) Self::FPEXC_EN, options(nomem, nostack));
            asm!(".fpu neon-vfpv4", "vldmia {p}!, {{d0-d15}}", "vldmia {p}, {{d16-d31}}",
                 p = inout(reg) self.d.as_ptr() => _, options(nostack, readonly));
        }
        self.load_control();
    }

    #[cold]
    #[inline(never)]
    fn load_some(&self) {
        if features::vfp() == Vfp::None {
            return;
        }
        // SAFETY: as for the save.
        unsafe {
            asm!(".fpu vfpv4-d16", "vmsr fpexc, {}", in(reg) Self::FPEXC_EN, options(nomem, nostack));
            asm!(".fpu vfpv4-d16", "vldmia {p}, {{d0-d15}}", p = in(reg) self.d.as_ptr(), options(nostack, readonly));
        }
        self.load_control();
    }

    #[inline(always)]
    fn load_control(&self) {
        // SAFETY: as for the save. FPEXC is written last, as it may disable the unit.
        unsafe {
            asm!(".fpu vfpv4-d16", "vmsr fpscr, {}", in(reg) self.fpscr, options(nomem, nostack));
            asm!(".fpu vfpv4-d16", "vmsr fpexc, {}", in(reg) self.fpexc, options(nomem, nostack));
        }
    }
}

#[cfg(not(target_arch = "arm"))]
impl VfpState {
    fn save(&mut self) {}
    fn load(&self) {}
}

/// State of a guest's processor that stays in the hardware across exits.
#[derive(Clone, Debug, Default)]
pub struct VcpuRegs {
    /// cp15 registers.
    pub system: SystemRegisters,
    /// Banked registers.
    pub banked: BankedRegisters,
    vfp: VfpState,
    /// Virtual timer.
    pub timer: crate::timer::VirtualTimer,
    /// Performance monitors, for guests that have them.
    monitors: crate::pmu::Monitors,
    /// An asynchronous abort is pending for the guest.
    async_abort: bool,
}

/// State of a loaded vCPU that its guest cannot change.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity {
    /// VTTBR: stage-2 root and VMID.
    pub vttbr: u64,
    /// VMPIDR: the MPIDR that the guest reads.
    pub vmpidr: u32,
    /// Its access to the performance monitors.
    pub monitors: crate::pmu::Access,
}

impl VcpuRegs {
    /// Returns the state of a vCPU at its start: SCTLR as given, all else zero.
    pub fn reset(sctlr: u32) -> Self {
        let mut regs = Self::default();
        regs.system.sctlr = sctlr;
        for spsr in [
            &mut regs.banked.spsr_svc,
            &mut regs.banked.spsr_abt,
            &mut regs.banked.spsr_und,
            &mut regs.banked.spsr_irq,
            &mut regs.banked.spsr_fiq,
        ] {
            *spsr = psr::MODE_SVC;
        }
        regs
    }

    /// Loads the guest's state into this CPU, with stage 2 of `identity` and CNTVOFF.
    pub fn load(&self, identity: &Identity, cntvoff: u64) {
        // SAFETY: VTTBR, VMPIDR and CNTVOFF affect only PL1 and PL0.
        unsafe {
            cp15::Vttbr::write(identity.vttbr);
            cp15::Vmpidr::write(identity.vmpidr);
            cp15::Cntvoff::write(cntvoff);
        }
        self.system.load();
        self.banked.load();
        self.vfp.load();
        self.timer.load();
        if identity.monitors == crate::pmu::Access::Native {
            self.monitors.load();
        }
        if self.async_abort {
            raise_async_abort();
        }
        isb();
    }

    /// Saves the guest's state from this CPU. No guest may run before another state is loaded.
    pub fn save(&mut self) {
        self.timer.save();
        self.vfp.save();
        self.banked.save();
        self.system.save();
        self.async_abort = take_async_abort();
        self.monitors.save();
        #[cfg(target_arch = "arm")]
        // SAFETY: clears this CPU's exclusive monitor, so that a reservation of this guest cannot make the next guest's
        // store succeed.
        unsafe {
            asm!("clrex", options(nomem, nostack, preserves_flags));
        }
    }
}

/// HCR.VA: a virtual asynchronous abort is pending. The guest takes it once its CPSR.A is clear; the hardware then
/// clears the bit (DDI 0406C.d B1.8.11).
const HCR_VA: u32 = 1 << 8;

/// Makes an asynchronous external abort pending for the loaded guest. At most one is pending.
pub fn raise_async_abort() {
    // SAFETY: the bit makes the guest take an exception; the other bits are kept.
    unsafe { cp15::Hcr::write(cp15::Hcr::read() | HCR_VA) }
}

/// Clears the pending asynchronous abort of the loaded guest. Returns whether there was one.
fn take_async_abort() -> bool {
    let hcr = cp15::Hcr::read();
    if hcr & HCR_VA == 0 {
        return false;
    }
    // SAFETY: as above.
    unsafe { cp15::Hcr::write(hcr & !HCR_VA) };
    true
}

/// Returns whether an asynchronous abort is pending for the loaded guest.
pub fn has_async_abort() -> bool {
    cp15::Hcr::read() & HCR_VA != 0
}

#[cfg(test)]
mod tests;
