//! The two-level ABI: a pending and a mask bit per port in `shared_info`, a selector per vCPU in `vcpu_info`.
//!
//! `xen_ulong_t` has 64 bits for 32-bit guests too: 64 words of 64 bits, 4096 ports. The bitmaps are little-endian, so
//! a port's bit is a bit of a 32-bit word. A guest finds an event by exchanging the selector with 0 and then scanning
//! the words whose selector bits were set, so `raise` writes them in the reverse order.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering, fence};

use armv7::frame::{PageRef, SharedPage};

use super::area::{Raised, Upcalls};
use super::{Port, word};
use crate::abi::event_channel::TWO_LEVEL_CHANNELS;
use crate::abi::shared_info::SharedInfo;
use crate::id::VcpuId;

const PENDING: usize = offset_of!(SharedInfo, evtchn_pending);
const MASK: usize = offset_of!(SharedInfo, evtchn_mask);

/// Returns the word of `bitmap` that holds `port`'s bit, and the bit. `None` for ports beyond the two-level ABI
/// (XSA-342).
fn bit(shared: &SharedPage, bitmap: usize, port: Port) -> Option<(&AtomicU32, u32)> {
    if port.0 >= TWO_LEVEL_CHANNELS {
        return None;
    }
    let word = shared.u32_at(bitmap + port.0 as usize / 32 * 4)?;
    Some((word, 1 << (port.0 % 32)))
}

fn is_set(shared: &SharedPage, bitmap: usize, port: Port) -> bool {
    bit(shared, bitmap, port).is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
}

/// Makes the event of `port` pending for `vcpu`.
pub(super) fn raise<P: PageRef>(
    shared: &SharedPage,
    upcalls: &Upcalls<P>,
    port: Port,
    vcpu: VcpuId,
) -> Raised {
    let Some((pending, bit)) = bit(shared, PENDING, port) else {
        return Raised::NOTHING;
    };
    match word::set(pending, bit) {
        Ok(old) if old & bit == 0 => {}
        _ => return Raised::NOTHING,
    }
    // The guest clears the mask and then reads pending; this sets pending and then reads the mask. Without a full
    // barrier on both sides each can miss the other's store.
    fence(Ordering::SeqCst);
    Raised {
        new: true,
        upcall: !is_set(shared, MASK, port) && select(shared, upcalls, port, vcpu),
    }
}

/// Clears the mask of `port`. Returns whether `vcpu` needs an upcall for it.
pub(super) fn unmask<P: PageRef>(
    shared: &SharedPage,
    upcalls: &Upcalls<P>,
    port: Port,
    vcpu: VcpuId,
) -> bool {
    let Some((mask, bit)) = bit(shared, MASK, port) else {
        return false;
    };
    match word::clear(mask, bit) {
        Ok(old) if old & bit != 0 => {}
        _ => return false,
    }
    // The reverse of `raise`: the mask, then pending. A concurrent sender either sees the mask clear or its pending bit
    // is seen here.
    fence(Ordering::SeqCst);
    is_set(shared, PENDING, port) && select(shared, upcalls, port, vcpu)
}

/// Sets the selector bit of `port`'s word. Returns whether it was clear.
#[inline(always)] // a step of its two callers
fn select<P: PageRef>(shared: &SharedPage, upcalls: &Upcalls<P>, port: Port, vcpu: VcpuId) -> bool {
    let selector = port.0 / 64;
    // Without a `vcpu_info` only the pending bit is set; registering one sets all selectors.
    let Some(word) = upcalls.selector(shared, vcpu, selector / 32) else {
        return false;
    };
    let bit = 1 << (selector % 32);
    // A guest that keeps the word busy loses this event, but does not delay the sender.
    word::set(word, bit).is_ok_and(|old| old & bit == 0)
}

/// Returns whether the event of `port` is pending.
pub(super) fn is_pending(shared: &SharedPage, port: Port) -> bool {
    is_set(shared, PENDING, port)
}

/// Clears the pending state of `port`. Returns whether it was set.
pub(super) fn clear_pending(shared: &SharedPage, port: Port) -> bool {
    bit(shared, PENDING, port)
        .is_some_and(|(word, bit)| word::clear(word, bit).is_ok_and(|old| old & bit != 0))
}
