//! Code made at run time, and single loads and stores, all of which may fault.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::cp15;
use crate::exception::{Fault, Kind, Probe, catch};
use crate::memory::Frame;
use crate::smp::MAX_CPUS;

global_asm!(
    ".arm",
    ".global guest_load, guest_store",
    "guest_load: ldr r0, [r0]",
    "bx lr",
    "guest_store: str r1, [r0]",
    "bx lr",
);

unsafe extern "C" {
    fn guest_load(address: u32, unused: u32) -> u32;
    fn guest_store(address: u32, value: u32) -> u32;
}

/// Reads a word, if that does not fault.
pub fn load(address: u32) -> Result<u32, Fault> {
    catch(guest_load, address, 0)
}

/// Writes a word, if that does not fault.
pub fn store(address: u32, value: u32) -> Result<u32, Fault> {
    catch(guest_store, address, value)
}

/// `bx lr`.
pub const RETURN: u32 = 0xe12f_ff1e;
/// `cps #0x10`: to user mode.
pub const TO_USER: u32 = 0xf102_0010;
/// `svc #0`: back to who caught it.
pub const SUPERVISOR_CALL: u32 = 0xef00_0000;

/// `hvc`.
pub const fn hvc(immediate: u32) -> u32 {
    0xe140_0070 | (immediate & 0xfff0) << 4 | immediate & 0xf
}

/// `smc`.
pub const fn smc(immediate: u32) -> u32 {
    0xe160_0070 | immediate & 0xf
}

/// `mrc` (or `mcr`) of r0.
pub const fn register(read: bool, cp: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
    0xee00_0010 | (read as u32) << 20 | op1 << 21 | crn << 16 | cp << 8 | op2 << 5 | crm
}

/// `mrrc` (or `mcrr`) of r0 and r1.
pub const fn pair(read: bool, cp: u32, op1: u32, crm: u32) -> u32 {
    0xec41_0000 | (read as u32) << 20 | cp << 8 | op1 << 4 | crm
}

/// A page that code is written into.
#[derive(Clone, Copy)]
pub struct Code(Frame);

impl Code {
    /// The page of this vCPU.
    pub fn page() -> Self {
        static PAGES: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];
        let page = &PAGES[cp15::cpu_index()];
        if page.load(Ordering::Relaxed) == 0 {
            page.store(Frame::take().address(), Ordering::Relaxed);
        }
        Code(Frame::at(page.load(Ordering::Relaxed)))
    }

    fn write(self, words: &[u32]) {
        for (index, &word) in words.iter().enumerate() {
            self.0.write(index as u32 * 4, word);
        }
        for line in (0..words.len() as u32 * 4).step_by(64) {
            cp15::clean_and_invalidate(self.0.address() + line);
        }
        invalidate_instructions();
    }

    /// Runs the words as a function of r0 and r1.
    pub fn run(self, words: &[u32], a: u32, b: u32) -> Result<u32, Fault> {
        let mut all = [RETURN; 16];
        all[..words.len()].copy_from_slice(words);
        self.write(&all[..words.len() + 1]);
        self.enter(a, b)
    }

    /// Runs the words in user mode. What came of it: the fault, or the SVC behind them.
    pub fn run_in_user_mode(self, words: &[u32], a: u32, b: u32) -> Option<Fault> {
        let mut all = [SUPERVISOR_CALL; 16];
        all[0] = TO_USER;
        all[1..=words.len()].copy_from_slice(words);
        self.write(&all[..words.len() + 2]);
        self.enter(a, b).err().filter(|fault| fault.kind != Kind::SupervisorCall)
    }

    fn enter(self, a: u32, b: u32) -> Result<u32, Fault> {
        // SAFETY: the page holds instructions that end in a return, an exception, or another vCPU's reset of this one.
        let probe: Probe = unsafe { core::mem::transmute(self.0.pointer::<u8>()) };
        catch(probe, a, b)
    }
}

fn invalidate_instructions() {
    // SAFETY: forgets cached instructions and predictions.
    unsafe {
        core::arch::asm!("dsb", "mcr p15, 0, {0}, c7, c5, 0", "dsb", "isb", in(reg) 0, options(nostack, preserves_flags))
    };
}

/// A fault, and of this kind.
pub fn is<T>(result: Result<T, Fault>, kind: Kind) -> bool {
    matches!(result, Err(fault) if fault.kind == kind)
}
