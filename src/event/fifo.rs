//! The FIFO ABI: an event word per port in pages of the guest, and per vCPU a control block with sixteen queues.
//!
//! A queue is a list through the link fields of event words. We append at its tail, the guest consumes at its head; both
//! sides change a word only by atomic exchange. The guest may write anything at any time, so what decides where *we*
//! write is ours alone: the tails below and the ports in the table. Nothing is ever indexed by what a guest word says.
//!
//! Invariants:
//! - `tails[q]` is 0 or a port whose event was the last one appended to `q`. While that word is LINKED the guest has not
//!   consumed it, so linking behind it is enough; once it is not, the queue is empty and the head must be written.
//! - LINKED is set only here and cleared only by the guest (or by us, when the append failed).
//! - A word is on the list before the ready bit is set, and that before the upcall.

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

/// Tries to link behind a BUSY tail. A guest that follows the rules can change a BUSY word three times: it masks, clears
/// PENDING and unlinks.
const LINK_ATTEMPTS: u32 = 4;

/// The queues of one vCPU.
struct Queues<P> {
    control: Option<Area<P>>,
    /// Port of the last event of each queue, 0 when there is none.
    tails: [u32; QUEUES],
    /// An event was raised that could not be linked, for want of a control block.
    stranded: bool,
    /// Port at which raising the events that waited for the control block goes on.
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

/// The outcome of [`append`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Appended {
    /// The event is behind the tail.
    Linked,
    /// The tail has been consumed: the queue is empty.
    QueueEmpty,
    /// The guest would not let us.
    Refused,
}

/// Event words and queues of a domain.
pub(super) struct Fifo<P> {
    array: Vec<P>,
    queues: [Queues<P>; MAX_VCPUS as usize],
}

/// Returns the word of `port`, when its page is there.
#[inline]
fn event_word<P: PageRef>(array: &[P], port: u32) -> Option<&AtomicU32> {
    let page = array.get((port / WORDS_PER_PAGE) as usize)?;
    Some(&page.page().words()[(port % WORDS_PER_PAGE) as usize])
}

impl<P: PageRef> Fifo<P> {
    /// Returns every page of the guest that is kept: event words and control blocks.
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
            queues: [const { Queues::NEW }; MAX_VCPUS as usize],
        }
    }

    /// Returns where the raising of events for the control block of `vcpu` is to go on, if it was left.
    pub fn left_at(&mut self, vcpu: VcpuId) -> &mut Option<u32> {
        &mut self.queues[vcpu.index()].left_at
    }

    /// Gives `vcpu` its control block; whether events have been waiting for it.
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

    /// Returns whether there may be one more page of event words.
    pub fn check_room(&self) -> Result<(), EventError> {
        if self.array.len() >= MAX_PAGES {
            return Err(EventError::ArrayFull);
        }
        Ok(())
    }

    /// Appends a page of event words and returns the first port in it.
    pub fn add_page(&mut self, page: P) -> Result<u32, EventError> {
        self.check_room()?;
        self.array.try_reserve(1)?;
        let first = self.array.len() as u32 * WORDS_PER_PAGE;
        self.array.push(page);
        Ok(first)
    }

    /// Makes the event of `port` pending and links it, unless it is masked or linked already.
    #[inline]
    pub fn raise(&mut self, port: Port, channel: &mut Channel) -> Raised {
        let Some(word) = event_word(&self.array, port.0) else {
            return Raised {
                new: !core::mem::replace(&mut channel.saved, true),
                upcall: false,
            };
        };
        let queues = &mut self.queues[channel.vcpu.index()];
        let link = if queues.control.is_some() { LINKED } else { 0 };
        // PENDING and LINKED in one step. Pairs with the guest's atomic changes of this word: if it unlinked before us we
        // link again, if it unlinks after us it finds PENDING.
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

    /// Puts `port`, which was just marked LINKED, on its queue; whether its vCPU must get an upcall.
    fn enqueue(&mut self, port: u32, channel: &mut Channel) -> bool {
        // LINKED was clear, so if the event is the tail of the queue it was on, that queue is empty. Were the tail kept,
        // an append there would link behind an event of another queue.
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
            // The event stays pending and unlinked: raising it again starts afresh. An honest guest never gets here.
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

    /// Clears MASKED and raises the event again if it is pending; whether its vCPU must get an upcall.
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

    /// Makes the event of `port` not pending. It stays on its queue; the guest skips it there.
    pub fn clear_pending(&self, port: Port) {
        if let Some(word) = event_word(&self.array, port.0) {
            word::clear_if_calm(word, PENDING);
        }
    }
}

/// Links `port` behind the event whose word is `tail`, if that is still LINKED.
fn append(tail: &AtomicU32, port: u32) -> Appended {
    let mut seen = tail.load(Ordering::Relaxed);
    match try_append(tail, seen, port) {
        Ok(appended) => return appended,
        Err(NotReplaced::Changed(_)) => {}
        Err(NotReplaced::Contended) => return Appended::Refused,
    }
    // BUSY keeps the guest from unmasking, which is what it could do without end.
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

/// Makes one attempt of [`append`], on a tail that was last `seen`.
///
/// Release on success: pairs with the guest's unlinking of the tail, after which it follows the link to our word.
#[inline]
fn try_append(tail: &AtomicU32, seen: u32, port: u32) -> Result<Appended, NotReplaced> {
    if seen & LINKED == 0 {
        return Ok(Appended::QueueEmpty);
    }
    word::replace(tail, seen, seen & !(BUSY | LINK) | port).map(|()| Appended::Linked)
}

const _: () = assert!(PRIORITY_MIN as usize + 1 == QUEUES);
