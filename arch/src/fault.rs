//! Exceptions taken in HYP itself: a bug, reported by a panic, or a probe of memory that does not exist.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::cp15;
use crate::smp;
use crate::syndrome::{Trap, decode};

/// Registers saved by arch/src/vectors.S.
#[repr(C)]
pub struct Frame {
    sp: u32,
    r0: u32,
    r1_r12: [u32; 12],
    lr: u32,
}

unsafe extern "C" {
    static probe_instruction: u8;
    static probe_failed: u8;
    static async_abort_window: u8;
    static async_abort_taken: u8;
    static async_abort_end: u8;
}

/// Returns whether a data abort taken at `elr` is the asynchronous one that `abort::synchronize` takes.
fn is_expected_abort(elr: u32, hsr: u32) -> bool {
    let window = &raw const async_abort_window as u32..&raw const async_abort_end as u32;
    window.contains(&elr)
        && matches!(decode(hsr), Trap::HypDataAbort(abort) if abort.fault.is_asynchronous())
}

/// Stack pointer at the last fault, for the panic's backtrace; 0 if there was none.
static FAULT_SP: AtomicU32 = AtomicU32::new(0);

/// Returns the stack pointer at which a backtrace starts, if the panic comes from a fault.
pub fn stack_of_fault() -> Option<u32> {
    match FAULT_SP.load(Ordering::Relaxed) {
        0 => None,
        sp => Some(sp),
    }
}

/// Returns the name of a vector's exception.
fn name(kind: u32) -> &'static str {
    match kind {
        1 => "undefined instruction",
        2 => "call to itself",
        3 => "prefetch abort",
        4 => "data abort",
        _ => "reset vector",
    }
}

/// Reports an exception of a CPU outside HYP, from boot/head.S. `lr` is the PC plus the exception's offset.
#[unsafe(no_mangle)]
extern "C" fn pl1_fault_report(kind: u32, lr: u32) -> ! {
    panic!("{} outside HYP mode, lr {lr:08x}", name(kind));
}

#[unsafe(no_mangle)]
extern "C" fn hyp_fault_report(frame: &Frame, kind: u32, elr: u32, spsr: u32) -> u32 {
    // The vectors have overwritten HTPIDR.
    let cpu = smp::this_cpu_by_affinity();
    // SAFETY: HTPIDR holds this CPU's logical number.
    unsafe { cp15::Htpidr::write(cpu.raw()) };
    if elr == &raw const probe_instruction as u32 {
        return &raw const probe_failed as u32;
    }
    if is_expected_abort(elr, cp15::Hsr::read()) {
        return &raw const async_abort_taken as u32;
    }
    FAULT_SP.store(frame.sp, Ordering::Relaxed);
    let what = name(kind);
    let r = &frame.r1_r12;
    panic!(
        "{what} in HYP mode\n\
         pc {elr:08x} cpsr {spsr:08x} sp {:08x} lr {:08x} hsr {:08x} hdfar {:08x} hifar {:08x}\n\
         r0 {:08x} r1 {:08x} r2 {:08x} r3 {:08x} r4 {:08x} r5 {:08x} r6 {:08x}\n\
         r7 {:08x} r8 {:08x} r9 {:08x} r10 {:08x} r11 {:08x} r12 {:08x}",
        frame.sp,
        frame.lr,
        cp15::Hsr::read(),
        cp15::Hdfar::read(),
        cp15::Hifar::read(),
        frame.r0,
        r[0],
        r[1],
        r[2],
        r[3],
        r[4],
        r[5],
        r[6],
        r[7],
        r[8],
        r[9],
        r[10],
        r[11],
    );
}
