//! The registers that must survive a trap and another vCPU's turn on the same CPU.

use core::sync::atomic::{AtomicU32, Ordering};

use guests::abi;
use guests::exception::catch;
use guests::gic::{self, distributor};
use guests::harness::Verdict;
use guests::hypercall::{self, call};
use guests::{cp15, ensure, ensure_eq, mmio, smp};

use crate::{enable_vector, load_vectors, probes, store_vectors, trap_with_patterns, vector_features};

pub fn traps_change_no_other_register() -> Verdict {
    let mut out = [0_u32; 12];
    ensure!(catch(trap_with_patterns, distributor(gic::TYPER), hypercall::address_of(&mut out)).is_ok());
    for (index, &value) in out.iter().enumerate().take(10) {
        ensure_eq!(value, 0x1111_1111 * (index as u32 + 2), index + 2);
    }
    ensure_eq!(out[10], 17);
    ensure_eq!(out[11] & 0xf800_0000, 0x5800_0000);
    Ok(())
}

type Vectors = [u32; 64];

/// Values that differ in every register and between vCPUs.
fn vector_pattern(seed: u32) -> Vectors {
    core::array::from_fn(|index| (seed << 24 | 0x0055_0000) + index as u32)
}

/// A rounding mode and a condition flag: bits of FPSCR that no operation here changes.
fn fpscr_pattern(seed: u32) -> u32 {
    (seed & 3) << 22 | 1 << 30
}

/// Fills the vector unit, runs `disturb`, and compares; whether everything was kept.
fn keeps_vectors(seed: u32, disturb: impl Fn()) -> bool {
    let mut pattern = vector_pattern(seed);
    let mut found = [0; 64];
    // SAFETY: the run-time and the compiled code use no vector register (soft-float target).
    let (fpscr, features) = unsafe {
        enable_vector(0, 0);
        load_vectors(hypercall::address_of(&mut pattern), fpscr_pattern(seed));
        disturb();
        (store_vectors(hypercall::address_of(&mut found), 0), vector_features(0, 0))
    };
    let words = if features & 2 == 0 { 32 } else { 64 };
    fpscr == fpscr_pattern(seed) && found[..words] == pattern[..words]
}

pub fn vector_registers_survive_traps() -> Verdict {
    ensure!(keeps_vectors(1, || {
        call(hypercall::XEN_VERSION, [0; 5]);
        mmio::read32(distributor(gic::TYPER));
        cp15::actlr();
        cp15::wfe();
    }));
    Ok(())
}

fn yield_often() {
    for _ in 0..200 {
        call(hypercall::SCHED_OP, [abi::SCHEDOP_YIELD, 0, 0, 0, 0]);
    }
}

static KEPT: AtomicU32 = AtomicU32::new(0);

pub fn vector_registers_survive_other_vcpus() -> Verdict {
    // Meant for two vCPUs on one CPU (maxcpus=1), where each yield is a switch.
    KEPT.store(0, Ordering::SeqCst);
    let started = smp::start(1, || KEPT.store(u32::from(keeps_vectors(2, yield_often)), Ordering::SeqCst));
    ensure_eq!(started, 0);
    ensure!(keeps_vectors(3, yield_often));
    ensure!(smp::goes_off(1));
    ensure_eq!(KEPT.load(Ordering::SeqCst), 1);
    Ok(())
}

/// Declares registers that belong to a vCPU, by the instruction that moves them (`{}` is the general register).
macro_rules! owned_registers {
    ($($name:ident: $mask:literal, $read:literal, $write:literal;)*) => {
        probes! { ".arm": $($name = $read;)* }
        /// Writes `value` to all of them.
        fn write_owned(value: u32) {
            // SAFETY: registers without an effect on this code: other modes' banks, thread ids, fault records.
            unsafe { $(core::arch::asm!($write, in(reg) value);)* }
        }
        /// How many differ from `value` in the bits that exist.
        fn lost_owned(value: u32) -> u32 {
            // SAFETY: reads.
            0 $(+ u32::from((unsafe { $name(0, 0) } ^ value) & $mask != 0))*
        }
    };
}

owned_registers! {
    sp_irq: 0xffff_fffc, "mrs r0, sp_irq", "msr sp_irq, {}";
    lr_irq: 0xffff_ffff, "mrs r0, lr_irq", "msr lr_irq, {}";
    sp_abt: 0xffff_fffc, "mrs r0, sp_abt", "msr sp_abt, {}";
    lr_abt: 0xffff_ffff, "mrs r0, lr_abt", "msr lr_abt, {}";
    sp_und: 0xffff_fffc, "mrs r0, sp_und", "msr sp_und, {}";
    lr_und: 0xffff_ffff, "mrs r0, lr_und", "msr lr_und, {}";
    sp_usr: 0xffff_fffc, "mrs r0, sp_usr", "msr sp_usr, {}";
    r8_fiq: 0xffff_ffff, "mrs r0, r8_fiq", "msr r8_fiq, {}";
    r9_fiq: 0xffff_ffff, "mrs r0, r9_fiq", "msr r9_fiq, {}";
    r10_fiq: 0xffff_ffff, "mrs r0, r10_fiq", "msr r10_fiq, {}";
    r11_fiq: 0xffff_ffff, "mrs r0, r11_fiq", "msr r11_fiq, {}";
    r12_fiq: 0xffff_ffff, "mrs r0, r12_fiq", "msr r12_fiq, {}";
    sp_fiq: 0xffff_fffc, "mrs r0, sp_fiq", "msr sp_fiq, {}";
    lr_fiq: 0xffff_ffff, "mrs r0, lr_fiq", "msr lr_fiq, {}";
    spsr_irq: 0xf800_0000, "mrs r0, spsr_irq", "msr spsr_irq, {}";
    spsr_abt: 0xf800_0000, "mrs r0, spsr_abt", "msr spsr_abt, {}";
    spsr_und: 0xf800_0000, "mrs r0, spsr_und", "msr spsr_und, {}";
    spsr_fiq: 0xf800_0000, "mrs r0, spsr_fiq", "msr spsr_fiq, {}";
    owned_tpidrurw: 0xffff_ffff, "mrc p15, 0, r0, c13, c0, 2", "mcr p15, 0, {}, c13, c0, 2";
    owned_tpidruro: 0xffff_ffff, "mrc p15, 0, r0, c13, c0, 3", "mcr p15, 0, {}, c13, c0, 3";
    owned_contextidr: 0xffff_ffff, "mrc p15, 0, r0, c13, c0, 1", "mcr p15, 0, {}, c13, c0, 1";
    owned_dfar: 0xffff_ffff, "mrc p15, 0, r0, c6, c0, 0", "mcr p15, 0, {}, c6, c0, 0";
    owned_ifar: 0xffff_ffff, "mrc p15, 0, r0, c6, c0, 2", "mcr p15, 0, {}, c6, c0, 2";
    owned_dacr: 0xffff_ffff, "mrc p15, 0, r0, c3, c0, 0", "mcr p15, 0, {}, c3, c0, 0";
    owned_mair1: 0xffff_ffff, "mrc p15, 0, r0, c10, c2, 1", "mcr p15, 0, {}, c10, c2, 1";
    owned_teehbr: 0xffff_fffc, "mrc p14, 6, r0, c1, c0, 0", "mcr p14, 6, {}, c1, c0, 0";
    owned_par: 0xffff_f000, "mrc p15, 0, r0, c7, c4, 0", "mcr p15, 0, {}, c7, c4, 0";
}

fn keeps_owned(value: u32) -> bool {
    write_owned(value);
    yield_often();
    lost_owned(value) == 0
}

pub fn banked_and_system_registers_survive_other_vcpus() -> Verdict {
    // Interrupts stay masked: taking one would use lr_irq and spsr_irq.
    KEPT.store(0, Ordering::SeqCst);
    let started = smp::start(1, || KEPT.store(u32::from(keeps_owned(0xb1b2_b3b0)), Ordering::SeqCst));
    ensure_eq!(started, 0);
    write_owned(0x4142_4344);
    yield_often();
    ensure_eq!(lost_owned(0x4142_4344), 0);
    ensure!(smp::goes_off(1));
    ensure_eq!(KEPT.load(Ordering::SeqCst), 1);
    Ok(())
}
