//! Atomic changes to words that a guest writes at the same time.
//!
//! A load/store-exclusive loop ends only when nobody else writes the line, and a guest can write it for ever (XSA-295).
//! Everything here is one exclusive attempt a turn and a bounded number of turns; after that the guest that hammers its
//! own word loses its own event.
//!
//! Every function stores, even when it stores what was there. That is what makes "it was set already, so somebody is
//! going to look" true: the other side's exchange comes after our store in the word's order, reads it, and by
//! release/acquire sees all that we wrote before.

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// Exclusive attempts before giving up: far more than any honest guest costs, far less than 1 ms of bouncing lines.
const ATTEMPTS: u32 = 1024;

/// The guest changed the word at every attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Contended;

/// Why [`replace`] did not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NotReplaced {
    /// The word is something else by now.
    Changed(u32),
    /// The word is as expected, but every attempt to store was disturbed.
    Contended,
}

/// Replaces the word `w` by `change(w)` and returns `w`.
///
/// Release: pairs with the guest's exchange or compare-exchange of the same word. What the old value tells us is only
/// used on state that the domain's lock orders, so there is nothing to acquire.
#[inline]
pub(super) fn update(word: &AtomicU32, change: impl Fn(u32) -> u32) -> Result<u32, Contended> {
    let mut old = word.load(Ordering::Relaxed);
    let mut left = ATTEMPTS;
    // Counted after the attempt: the first one nearly always succeeds.
    loop {
        match word.compare_exchange_weak(old, change(old), Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return Ok(old),
            Err(_) if left <= 1 => return Err(Contended),
            Err(now) => (old, left) = (now, left - 1),
        }
    }
}

/// Sets `bits` and returns the word as it was.
#[inline]
pub(super) fn set(word: &AtomicU32, bits: u32) -> Result<u32, Contended> {
    update(word, |w| w | bits)
}

/// Clears `bits` and returns the word as it was.
#[inline]
pub(super) fn clear(word: &AtomicU32, bits: u32) -> Result<u32, Contended> {
    update(word, |w| w & !bits)
}

/// [`clear`] where nothing depends on it but the guest's own event: one that keeps its word busy keeps the bits.
#[inline]
pub(super) fn clear_if_calm(word: &AtomicU32, bits: u32) {
    #[expect(clippy::let_underscore_must_use, reason = "it is the guest's loss")]
    let _ = clear(word, bits);
}

/// Replaces `old` by `new`, if the word is `old`. Release, as in [`update`].
#[inline]
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

/// Sets the byte to 1 and returns what it was. Release, as in [`update`].
#[inline]
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
