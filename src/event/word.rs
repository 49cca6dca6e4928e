//! Atomic changes to words that a guest may write at the same time.
//!
//! A load/store-exclusive loop ends only when no other CPU writes the line, and a guest can write it forever (XSA-295).
//! So every loop here is bounded. A guest that keeps its own word busy loses its own event.
//!
//! Every function stores, even an unchanged value. The other side's exchange comes after that store in the word's
//! modification order, so it acquires all writes before the store. Hence a bit that was already set means that the
//! guest will still scan.

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// Exclusive attempts before giving up: far more than a conforming guest causes, and far less than 1 ms of bouncing
/// lines.
const ATTEMPTS: u32 = 1024;

/// The guest changed the word at every attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Contended;

/// Reason [`replace`] failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NotReplaced {
    /// The word has another value, this one.
    Changed(u32),
    /// The word is as expected, but every store attempt failed.
    Contended,
}

/// Replaces the word `w` by `change(w)`. Returns `w`.
///
/// Release: pairs with the guest's exchange or compare-exchange of the same word. No acquire is needed, as the old
/// value only affects state under the domain's lock.
pub(super) fn update(word: &AtomicU32, change: impl Fn(u32) -> u32) -> Result<u32, Contended> {
    let mut old = word.load(Ordering::Relaxed);
    let mut left = ATTEMPTS;
    // Counted after the attempt, as the first one nearly always succeeds.
    loop {
        match word.compare_exchange_weak(old, change(old), Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return Ok(old),
            Err(_) if left <= 1 => return Err(Contended),
            Err(now) => (old, left) = (now, left - 1),
        }
    }
}

/// Sets `bits`. Returns the previous word.
pub(super) fn set(word: &AtomicU32, bits: u32) -> Result<u32, Contended> {
    update(word, |w| w | bits)
}

/// Clears `bits`. Returns the previous word.
pub(super) fn clear(word: &AtomicU32, bits: u32) -> Result<u32, Contended> {
    update(word, |w| w & !bits)
}

/// Clears `bits`, where only the guest's own event depends on it. A guest that keeps the word busy keeps the bits.
pub(super) fn clear_if_calm(word: &AtomicU32, bits: u32) {
    #[expect(clippy::let_underscore_must_use, reason = "it is the guest's loss")]
    let _ = clear(word, bits);
}

/// Replaces `old` by `new` if the word is `old`. Release, as in [`update`].
pub(super) fn replace(word: &AtomicU32, old: u32, new: u32) -> Result<(), NotReplaced> {
    for _ in 0..ATTEMPTS {
        match word.compare_exchange_weak(old, new, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return Ok(()),
            Err(now) if now != old => return Err(NotReplaced::Changed(now)),
            Err(_) => {}
        }
    }
    Err(NotReplaced::Contended)
}

/// Sets the byte to 1. Returns its previous value. Release, as in [`update`].
pub(super) fn raise(byte: &AtomicU8) -> Result<u8, Contended> {
    let mut old = byte.load(Ordering::Relaxed);
    let mut left = ATTEMPTS;
    loop {
        match byte.compare_exchange_weak(old, 1, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return Ok(old),
            Err(_) if left <= 1 => return Err(Contended),
            Err(now) => (old, left) = (now, left - 1),
        }
    }
}
