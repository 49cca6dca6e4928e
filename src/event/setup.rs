//! Pages that a guest registers for its events, and the change from the two-level ABI to FIFO.
//!
//! A page that is not wanted is dropped, and so released, before the error is returned; the table never keeps half of
//! what was asked for (XSA-188).

use armv7::frame::PageRef;

use super::delivery::Area;
use super::fifo::Fifo;
use super::ports::Channel;
use super::{EventError, EventTable, Notify, Port, two_level};
use crate::abi::event_channel::fifo::{PRIORITY_DEFAULT, WORDS_PER_PAGE};
use crate::abi::event_channel::{ControlBlock, TWO_LEVEL_CHANNELS};

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

    /// Gives `vcpu` a FIFO control block. The first one changes the domain to the FIFO ABI; pending events stay pending.
    pub fn init_control(&mut self, vcpu: u32, page: P, offset: u32) -> Result<Notify, EventError> {
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
        if !fifo.add_control(vcpu, control)? {
            return Ok(Notify::NONE);
        }
        let end = self.ports.end();
        Ok(self.raise_again(0, end, |fifo, port, channel| {
            channel.vcpu == vcpu && fifo.is_pending(port)
        }))
    }

    /// Appends a page of event words. Events that happened before there were words for them are raised.
    pub fn expand_array(&mut self, page: P) -> Result<Notify, EventError> {
        if self.retired {
            return Err(EventError::Retired);
        }
        let fifo = self.delivery.fifo.as_mut().ok_or(EventError::NoArray)?;
        let first = fifo.add_page(page)?;
        Ok(
            self.raise_again(first, first + WORDS_PER_PAGE, |_, _, channel| {
                core::mem::take(&mut channel.saved)
            }),
        )
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

    /// Raises the events of the open ports from `first` to before `end` for which `which` is true.
    fn raise_again(
        &mut self,
        first: u32,
        end: u32,
        which: impl Fn(&Fifo<P>, Port, &mut Channel) -> bool,
    ) -> Notify {
        let mut notify = Notify::NONE;
        let mut from = first;
        while let Some(port) = self.ports.next_used(from) {
            if port.0 >= end {
                break;
            }
            if let Some(channel) = self.ports.get_mut(port)
                && let Some(fifo) = &self.delivery.fifo
                && channel.is_usable()
                && which(fifo, port, channel)
            {
                notify |= self.delivery.raise(port, channel);
            }
            from = port.0 + 1;
        }
        notify
    }
}
