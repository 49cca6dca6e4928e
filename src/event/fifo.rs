//! The FIFO ABI: one event word per port in guest pages, and per vCPU a control block with sixteen queues.
//!
//! A queue is a list through the link fields of event words. The hypervisor appends at the tail and the guest consumes
//! at the head; both change a word only by atomic exchange. The guest may write any value at any time, so writes here
//! depend only on the hypervisor's own state: the tails below and the ports in the table. No guest word is used as an
//! index.
//!
//! Invariants:
//! - `tails[q]` is 0 or the port whose event was last appended to `q`. While that word is LINKED the guest has not
//!   consumed it, and linking behind it is enough. Otherwise the queue is empty and the head must be written.
//! - LINKED is set only here, and cleared only by the guest or by a failed append.
//! - A word is on the list before the ready bit is set, and the ready bit before the upcall.

use alloc::vec::Vec;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering};

use armv7::frame::PageRef;

use super::area::{Area, Raised};
use super::ports::Channel;
use super::word::{self, NotReplaced};
use super::{EventError, Port};
use crate::abi::event_channel::ControlBlock;
use crate::abi::event_channel::fifo::{
    BUSY, LINK, LINKED, MASKED, MAX_PAGES, PENDING, PRIORITY_MIN, QUEUES, WORDS_PER_PAGE,
};
use crate::id::{MAX_VCPUS, VcpuId};

const READY: usize = offset_of!(ControlBlock, ready);
const HEAD: usize = offset_of!(ControlBlock, head);

/// Attempts to link behind a BUSY tail. A conforming guest can change a BUSY word three times: mask, clear PENDING,
/// unlink.
const LINK_ATTEMPTS: u32 = 4;

/// The queues of one vCPU.
struct Queues<P> {
    control: Option<Area<P>>,
    /// Port of the last event of each queue; 0 if there is none.
    tails: [u32; QUEUES],
    /// An event could not be linked, as there was no control block.
    stranded: bool,
    /// Port at which raising the events that waited for the control block continues.
    left_at: Option<u32>,
}

impl<P> Queues<P> {
    const NEW: Self = Self {
        control: None,
        tails: [0; QUEUES],
        stranded: false,
        left_at: None,
    };
}

/// Result of [`append`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Appended {
    /// The event is linked behind the tail.
    Linked,
    /// The tail has been consumed, so the queue is empty.
    QueueEmpty,
    /// The guest kept changing the word.
    Refused,
}

/// Event words and queues of a domain.
pub(super) struct Fifo<P> {
    array: Vec<P>,
    /// Port at which raising the saved events of the newest page goes on, and the guest frame of that page.
    array_left: Option<(u32, u64)>,
    queues: [Queues<P>; MAX_VCPUS as usize],
}

/// Returns the word of `port`, or `None` if its page is not registered.
fn event_word<P: PageRef>(array: &[P], port: u32) -> Option<&AtomicU32> {
    let page = array.get((port / WORDS_PER_PAGE) as usize)?;
    Some(&page.page().words()[(port % WORDS_PER_PAGE) as usize])
}

impl<P: PageRef> Fifo<P> {
    /// Returns every guest page kept for event words and control blocks.
    pub fn pages(&self) -> impl Iterator<Item = &P> {
        let controls = self
            .queues
            .iter()
            .filter_map(|queues| queues.control.as_ref());
        self.array.iter().chain(controls.map(Area::kept))
    }

    pub const fn new() -> Self {
        Self {
            array: Vec::new(),
            array_left: None,
            queues: [const { Queues::NEW }; MAX_VCPUS as usize],
        }
    }

    /// Returns the port at which raising events for the control block of `vcpu` continues.
    pub fn left_at(&mut self, vcpu: VcpuId) -> &mut Option<u32> {
        &mut self.queues[vcpu.index()].left_at
    }

    /// Sets the control block of `vcpu`. Returns whether events have been waiting for it.
    pub fn add_control(&mut self, vcpu: VcpuId, control: Area<P>) -> Result<bool, EventError> {
        let queues = &mut self.queues[vcpu.index()];
        if queues.control.is_some() {
            return Err(EventError::AlreadyRegistered);
        }
        queues.control = Some(control);
        Ok(core::mem::take(&mut queues.stranded))
    }

    /// Returns whether `vcpu` has a control block.
    pub fn has_control(&self, vcpu: VcpuId) -> bool {
        self.queues[vcpu.index()].control.is_some()
    }

    /// Returns where raising the saved events of the newest page is to continue, if it was interrupted.
    pub fn array_left(&mut self) -> &mut Option<(u32, u64)> {
        &mut self.array_left
    }

    /// Checks that one more page of event words may be added, or that the newest one is not finished.
    pub fn check_room(&self) -> Result<(), EventError> {
        if self.array.len() >= MAX_PAGES && self.array_left.is_none() {
            return Err(EventError::ArrayFull);
        }
        Ok(())
    }

    /// Appends a page of event words. Returns its first port.
    pub fn add_page(&mut self, page: P) -> Result<u32, EventError> {
        self.check_room()?;
        self.array.try_reserve(1)?;
        let first = self.array.len() as u32 * WORDS_PER_PAGE;
        self.array.push(page);
        Ok(first)
    }

    /// Makes the event of `port` pending and links it, unless it is masked or already linked.
    pub fn raise(&mut self, port: Port, channel: &mut Channel) -> Raised {
        let Some(word) = event_word(&self.array, port.0) else {
            return Raised {
                new: !core::mem::replace(&mut channel.saved, true),
                upcall: false,
            };
        };
        let queues = &mut self.queues[channel.vcpu.index()];
        let link = if queues.control.is_some() { LINKED } else { 0 };
        // Sets PENDING and LINKED in one step. Pairs with the guest's atomic changes of this word: if the guest
        // unlinked before, it is linked again; if the guest unlinks after, it sees PENDING.
        let Ok(old) = word::update(word, |w| {
            if w & (MASKED | LINKED) == 0 {
                w | PENDING | link
            } else {
                w | PENDING
            }
        }) else {
            return Raised::NOTHING;
        };
        let new = old & PENDING == 0;
        if old & (MASKED | LINKED) != 0 {
            return Raised { new, upcall: false };
        }
        if link == 0 {
            queues.stranded = true;
            return Raised { new, upcall: false };
        }
        Raised {
            new,
            upcall: self.enqueue(port.0, channel),
        }
    }

    /// Puts `port`, which has just been marked LINKED, on its queue. Returns whether its vCPU needs an upcall.
    fn enqueue(&mut self, port: u32, channel: &mut Channel) -> bool {
        // LINKED was clear, so if the event is the tail of its last queue, that queue is empty. A stale tail would make
        // an append there link behind an event of another queue.
        let last = &mut self.queues[channel.last_vcpu.index()];
        let tail = &mut last.tails[usize::from(channel.last_priority) % QUEUES];
        if *tail == port {
            *tail = 0;
        }
        let priority = usize::from(channel.priority) % QUEUES;
        let Queues { control, tails, .. } = &mut self.queues[channel.vcpu.index()];
        let tail = &mut tails[priority];
        let appended = match event_word(&self.array, *tail) {
            Some(word) if *tail != 0 => append(word, port),
            _ => Appended::QueueEmpty,
        };
        if appended == Appended::Refused {
            // The event stays pending and unlinked, so raising it again retries. A conforming guest does not cause
            // this.
            if let Some(word) = event_word(&self.array, port) {
                word::clear_if_calm(word, LINKED);
            }
            return false;
        }
        *tail = port;
        channel.last_vcpu = channel.vcpu;
        channel.last_priority = channel.priority;
        if appended == Appended::Linked {
            return false;
        }
        let Some(control) = control else {
            return false;
        };
        let (ready, head) = (control.word(READY), control.word(HEAD + priority * 4));
        // Ordered before the ready bit by the release there.
        head.store(port, Ordering::Relaxed);
        let bit = 1 << priority;
        // Release: pairs with the guest's exchange of the ready word, after which it reads the head. A guest that keeps
        // the word busy gets a spurious upcall.
        word::set(ready, bit).map_or(true, |old| old & bit == 0)
    }

    /// Clears MASKED, and raises the event again if pending. Returns whether its vCPU needs an upcall.
    pub fn unmask(&mut self, port: Port, channel: &mut Channel) -> bool {
        let Some(word) = event_word(&self.array, port.0) else {
            return false;
        };
        match word::clear(word, MASKED) {
            Ok(old) if old & PENDING != 0 => self.raise(port, channel).upcall,
            _ => false,
        }
    }

    /// Returns whether the event of `port` is pending in its word.
    pub fn is_pending(&self, port: Port) -> bool {
        self.has(port, PENDING)
    }

    /// Returns whether the event of `port` is on a queue.
    pub fn is_linked(&self, port: Port) -> bool {
        self.has(port, LINKED)
    }

    fn has(&self, port: Port, bit: u32) -> bool {
        event_word(&self.array, port.0).is_some_and(|word| word.load(Ordering::Relaxed) & bit != 0)
    }

    /// Clears PENDING. The event stays on its queue, where the guest skips it.
    pub fn clear_pending(&self, port: Port) {
        if let Some(word) = event_word(&self.array, port.0) {
            word::clear_if_calm(word, PENDING);
        }
    }
}

/// Links `port` behind the event word `tail`, if that is still LINKED.
fn append(tail: &AtomicU32, port: u32) -> Appended {
    let mut seen = tail.load(Ordering::Relaxed);
    match try_append(tail, seen, port) {
        Ok(appended) => return appended,
        Err(NotReplaced::Changed(_)) => {}
        Err(NotReplaced::Contended) => return Appended::Refused,
    }
    // BUSY keeps the guest from unmasking, the only change it could repeat without end.
    match word::set(tail, BUSY) {
        Ok(old) => seen = old | BUSY,
        Err(_) => return Appended::Refused,
    }
    for _ in 0..LINK_ATTEMPTS {
        match try_append(tail, seen, port) {
            Ok(Appended::Linked) => return Appended::Linked, // BUSY went with it
            Ok(appended) => {
                word::clear_if_calm(tail, BUSY);
                return appended;
            }
            Err(NotReplaced::Changed(now)) => seen = now,
            Err(NotReplaced::Contended) => break,
        }
    }
    word::clear_if_calm(tail, BUSY);
    Appended::Refused
}

/// Makes one attempt of [`append`] on a tail last read as `seen`.
///
/// Release on success: pairs with the guest's unlinking of the tail, after which it follows the link to `port`'s word.
fn try_append(tail: &AtomicU32, seen: u32, port: u32) -> Result<Appended, NotReplaced> {
    if seen & LINKED == 0 {
        return Ok(Appended::QueueEmpty);
    }
    word::replace(tail, seen, seen & !(BUSY | LINK) | port).map(|()| Appended::Linked)
}

const _: () = assert!(PRIORITY_MIN as usize + 1 == QUEUES);
