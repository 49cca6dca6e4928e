//! 64-bit words, accessed in one piece.
//!
//! The guarantees of `AtomicU64` in fewer instructions: the compiler loads by an exclusive pair, and keeps the three
//! register pairs of a compare-and-swap in memory. With the Large Physical Address Extension LDRD and STRD are
//! single-copy atomic in all memory that may hold translation tables (DDI 0406C.d A3.5.3), which is all RAM. All
//! accesses are relaxed; callers add fences.

#[cfg(target_arch = "arm")]
use core::sync::atomic::AtomicU64;

/// Reads a word.
#[cfg(target_arch = "arm")]
pub fn load(word: &AtomicU64) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the reference is to 8 mapped bytes, aligned to 8.
    unsafe {
        core::arch::asm!("ldrd r2, r3, [{}]", in(reg) word.as_ptr(), out("r2") low, out("r3") high,
                         options(nostack, readonly, preserves_flags));
    }
    u64::from(low) | u64::from(high) << 32
}

/// Writes a word.
#[cfg(target_arch = "arm")]
pub fn store(word: &AtomicU64, value: u64) {
    // SAFETY: the reference is to 8 mapped bytes, aligned to 8, of an atomic, which may change.
    unsafe {
        core::arch::asm!("strd r2, r3, [{}]", in(reg) word.as_ptr(), in("r2") value as u32,
                         in("r3") (value >> 32) as u32, options(nostack, preserves_flags));
    }
}

/// Replaces `old` by `new`. Returns false if the word differs, or spuriously.
#[cfg(target_arch = "arm")]
pub fn replace(word: &AtomicU64, old: u64, new: u64) -> bool {
    let failed: u32;
    // SAFETY: as for the store; LDREXD and STREXD need an even register and the next one.
    unsafe {
        core::arch::asm!(
            "ldrexd r2, r3, [{word}]",
            "mov {failed}, #1",
            "cmp r2, {low}",
            "itt eq",
            "cmpeq r3, {high}",
            "strexdeq {failed}, r4, r5, [{word}]",
            word = in(reg) word.as_ptr(), failed = out(reg) failed,
            low = in(reg) old as u32, high = in(reg) (old >> 32) as u32,
            in("r4") new as u32, in("r5") (new >> 32) as u32, out("r2") _, out("r3") _,
            options(nostack),
        );
    }
    if failed != 0 {
        // A guest must not find the exclusive monitor set by the hypervisor.
        // SAFETY: clears this CPU's monitor, on which nothing here relies.
        unsafe { core::arch::asm!("clrex", options(nostack, preserves_flags)) };
    }
    failed == 0
}

#[cfg(not(target_arch = "arm"))]
mod host {
    use core::sync::atomic::{AtomicU64, Ordering};

    /// Reads a word.
    pub fn load(word: &AtomicU64) -> u64 {
        word.load(Ordering::Relaxed)
    }

    /// Writes a word.
    pub fn store(word: &AtomicU64, value: u64) {
        word.store(value, Ordering::Relaxed);
    }

    /// Replaces `old` by `new`. Returns false if the word differs, or spuriously.
    pub fn replace(word: &AtomicU64, old: u64, new: u64) -> bool {
        word.compare_exchange_weak(old, new, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}
#[cfg(not(target_arch = "arm"))]
pub use host::{load, replace, store};
