//! Pages that a guest registers for its events, and the change from the two-level ABI to FIFO.
//!
//! A page that is not wanted is dropped, and so released, before the error is returned; the table never keeps half of
//! what was asked for (XSA-188).

use armv7::frame::PageRef;

use super::area::Area;
use super::fifo::Fifo;
use super::ports::Channel;
use super::{Control, EventError, EventTable, Notify, Port, two_level};
use crate::abi::event_channel::fifo::{PRIORITY_DEFAULT, WORDS_PER_PAGE};
use crate::abi::event_channel::{ControlBlock, TWO_LEVEL_CHANNELS};
use crate::abi::shared_info::VcpuInfo;

/// Ports looked at in one go for events that waited: as many as a page of event words has.
const RAISED_AT_ONCE: u32 = WORDS_PER_PAGE;

impl<P: PageRef> EventTable<P> {
    /// Moves the `vcpu_info` of `vcpu` to `page` at `offset`, for good. The vCPU gets an upcall in any case.
    pub fn register_vcpu_info(
        &mut self,
        vcpu: u32,
        page: P,
        offset: u32,
    ) -> Result<Notify, EventError> {
        let vcpu = self.vcpu(vcpu)?;
        if self.retired {
            return Err(EventError::Retired);
        }
        self.delivery.register_info(vcpu, page, offset)
    }

    /// Returns what is wrong with a `vcpu_info` of `vcpu` at `offset`, whatever its page; asked before the page is looked
    /// at.
    pub fn check_vcpu_info(&self, vcpu: u32, offset: u32) -> Result<(), EventError> {
        self.vcpu(vcpu)?;
        if Area::<P>::fits(offset, size_of::<VcpuInfo>()) {
            Ok(())
        } else {
            Err(EventError::BadInfoOffset)
        }
    }

    /// Returns what is wrong with a control block of `vcpu` at `offset`, whatever its page; asked before the page is looked
    /// at.
    pub fn check_control(&self, vcpu: u32, offset: u32) -> Result<(), EventError> {
        self.vcpu(vcpu)?;
        if Area::<P>::fits(offset, size_of::<ControlBlock>()) {
            Ok(())
        } else {
            Err(EventError::BadControlOffset)
        }
    }

    /// Returns what is wrong with one more page of event words, whatever the page; asked before it is looked at.
    pub fn check_array(&self) -> Result<(), EventError> {
        let fifo = self.delivery.fifo.as_ref().ok_or(EventError::NoArray)?;
        fifo.check_room()
    }

    /// Gives `vcpu` a FIFO control block. The first one changes the domain to the FIFO ABI; pending events stay pending.
    ///
    /// Looks at a bounded number of ports for events that waited for it.
    pub fn init_control(&mut self, vcpu: u32, page: P, offset: u32) -> Result<Control, EventError> {
        let vcpu = self.vcpu(vcpu)?;
        if self.retired {
            return Err(EventError::Retired);
        }
        let control = Area::new(page, offset, size_of::<ControlBlock>())
            .ok_or(EventError::BadControlOffset)?;
        let fifo = match &mut self.delivery.fifo {
            Some(fifo) => fifo,
            None => {
                self.save_two_level();
                self.delivery.fifo.insert(Fifo::new())
            }
        };
        let from = match fifo.left_at(vcpu).take() {
            Some(from) => from,
            None if fifo.add_control(vcpu, control)? => 0,
            None => return Ok(Control::Done(Notify::NONE)),
        };
        let end = self.ports.end();
        let (notify, left) = self.raise_again(from, end, |fifo, port, channel| {
            channel.vcpu == vcpu && fifo.is_pending(port)
        });
        if let Some(fifo) = &mut self.delivery.fifo {
            *fifo.left_at(vcpu) = left;
        }
        Ok(match left {
            Some(_) => Control::More(notify),
            None => Control::Done(notify),
        })
    }

    /// Appends a page of event words. Events that happened before there were words for them are raised.
    pub fn expand_array(&mut self, page: P) -> Result<Notify, EventError> {
        if self.retired {
            return Err(EventError::Retired);
        }
        let fifo = self.delivery.fifo.as_mut().ok_or(EventError::NoArray)?;
        let first = fifo.add_page(page)?;
        let (notify, left) = self.raise_again(first, first + WORDS_PER_PAGE, |_, _, channel| {
            core::mem::take(&mut channel.saved)
        });
        debug_assert!(
            left.is_none(),
            "a page has no more words than are looked at"
        );
        Ok(notify)
    }

    /// Saves what is pending in `shared_info`, and takes it from there: after a reset the ports start with nothing.
    fn save_two_level(&mut self) {
        let mut from = 0;
        while let Some(port) = self.ports.next_used(from) {
            if port.0 >= TWO_LEVEL_CHANNELS {
                break;
            }
            if let Some(channel) = self.ports.get_mut(port) {
                channel.priority = PRIORITY_DEFAULT;
                channel.saved = two_level::clear_pending(self.delivery.shared.page(), port)
                    && channel.is_usable();
            }
            from = port.0 + 1;
        }
    }

    /// Raises the events of the open ports from `first` to before `end` for which `which` is true, looking at no more than
    /// [`RAISED_AT_ONCE`]; also returns where to go on.
    fn raise_again(
        &mut self,
        first: u32,
        end: u32,
        which: impl Fn(&Fifo<P>, Port, &mut Channel) -> bool,
    ) -> (Notify, Option<u32>) {
        let mut notify = Notify::NONE;
        let mut from = first;
        let mut left = RAISED_AT_ONCE;
        while let Some(port) = self.ports.next_used(from) {
            if port.0 >= end {
                break;
            }
            if left == 0 {
                return (notify, Some(port.0));
            }
            left -= 1;
            if let Some(channel) = self.ports.get_mut(port)
                && let Some(fifo) = &self.delivery.fifo
                && channel.is_usable()
                && which(fifo, port, channel)
            {
                notify |= self.delivery.raise(port, channel);
            }
            from = port.0 + 1;
        }
        (notify, None)
    }
}
