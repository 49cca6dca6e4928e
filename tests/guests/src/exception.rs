//! Exceptions that tests provoke, caught with all that the core and the hypervisor said about them.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::smp::MAX_CPUS;
use crate::{cp15, harness};

/// Status register fields (DDI 0406C.d B1.3.3).
pub const MODE_MASK: u32 = 0x1f;
pub const MODE_USER: u32 = 0x10;
pub const MODE_SUPERVISOR: u32 = 0x13;
pub const MODE_ABORT: u32 = 0x17;
pub const MODE_UNDEFINED: u32 = 0x1b;
pub const THUMB: u32 = 1 << 5;
pub const MASK_FIQ: u32 = 1 << 6;
pub const MASK_IRQ: u32 = 1 << 7;
pub const MASK_ASYNC_ABORT: u32 = 1 << 8;

/// The registers as vectors.S pushes them.
#[repr(C)]
struct Frame {
    r: [u32; 13],
    lr_svc: u32,
    return_address: u32,
    spsr: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    Undefined = 1,
    SupervisorCall = 2,
    PrefetchAbort = 3,
    DataAbort = 4,
}

impl Kind {
    fn from_vector(number: u32) -> Self {
        match number {
            1 => Kind::Undefined,
            2 => Kind::SupervisorCall,
            3 => Kind::PrefetchAbort,
            _ => Kind::DataAbort,
        }
    }
}

/// One exception as it arrived.
#[derive(Clone, Copy)]
pub struct Fault {
    pub kind: Kind,
    /// CPSR with which the vector was entered; its mode is the mode the exception was taken to.
    pub entry_cpsr: u32,
    /// The banked LR: the preferred return address plus the offset of DDI 0406C.d B1.8.3.
    pub lr: u32,
    pub spsr: u32,
    pub dfsr: u32,
    pub dfar: u32,
    pub ifsr: u32,
    pub ifar: u32,
}

/// A CPU's pending `catch`.
struct Catch {
    /// catch_call's stack pointer while a `catch` runs, else 0.
    stack: AtomicU32,
    caught: AtomicBool,
    fault: UnsafeCell<Option<Fault>>,
}

// SAFETY: each CPU touches its own element only, and its exceptions are synchronous to it.
unsafe impl Sync for Catch {}

static CATCH: [Catch; MAX_CPUS] =
    [const { Catch { stack: AtomicU32::new(0), caught: AtomicBool::new(false), fault: UnsafeCell::new(None) } };
        MAX_CPUS];

unsafe extern "C" {
    fn catch_call(function: u32, a: u32, b: u32, stack: *mut u32) -> u32;
    fn catch_landing();
}

/// A function that may fault; the tests write most of them in assembly, with the fault in a known place.
pub type Probe = unsafe extern "C" fn(u32, u32) -> u32;

/// Calls `probe(a, b)`; an exception in it ends the call.
///
/// A probe must be one whose only effects are those of the instruction it tries: it may be left half-way.
pub fn catch(probe: Probe, a: u32, b: u32) -> Result<u32, Fault> {
    let state = &CATCH[cp15::cpu_index()];
    state.caught.store(false, Ordering::Relaxed);
    // SAFETY: the landing restores the callee-saved registers that catch_call pushed at the recorded stack pointer.
    let value = unsafe { catch_call(probe as *const () as u32, a, b, state.stack.as_ptr()) };
    state.stack.store(0, Ordering::Relaxed);
    if state.caught.load(Ordering::Relaxed) {
        // SAFETY: exception_main of this CPU wrote it before it set `caught`.
        Err(unsafe { (*state.fault.get()).expect("caught implies a fault") })
    } else {
        Ok(value)
    }
}

/// Runs on the interrupted stack in Supervisor mode (vectors.S).
#[unsafe(no_mangle)]
extern "C" fn exception_main(kind: u32, entry_cpsr: u32, frame: &mut Frame) {
    let fault = Fault {
        kind: Kind::from_vector(kind),
        entry_cpsr,
        lr: frame.return_address,
        spsr: frame.spsr,
        dfsr: cp15::dfsr(),
        dfar: cp15::dfar(),
        ifsr: cp15::ifsr(),
        ifar: cp15::ifar(),
    };
    let state = &CATCH[cp15::cpu_index()];
    let stack = state.stack.load(Ordering::Relaxed);
    if stack == 0 {
        println!(
            "FAIL guest: {:?}, lr {:#x} spsr {:#x} dfsr {:#x} dfar {:#x} ifsr {:#x} ifar {:#x} on vCPU {}",
            fault.kind,
            fault.lr,
            fault.spsr,
            fault.dfsr,
            fault.dfar,
            fault.ifsr,
            fault.ifar,
            cp15::cpu_index()
        );
        harness::power_off();
    }
    // SAFETY: see `Catch`.
    unsafe { *state.fault.get() = Some(fault) };
    state.caught.store(true, Ordering::Relaxed);
    frame.r[0] = stack;
    frame.return_address = catch_landing as *const () as u32;
    frame.spsr = MODE_SUPERVISOR | (cp15::cpsr() & MASK_ASYNC_ABORT) | MASK_IRQ | MASK_FIQ;
}
