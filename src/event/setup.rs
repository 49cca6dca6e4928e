//! Pages that a guest registers for its events, and the change from the two-level ABI to FIFO.
//!
//! A page that is refused is dropped, and so released, before the error is returned. The table never keeps a partial
//! registration (XSA-188).

use armv7::frame::PageRef;

use super::area::Area;
use super::fifo::Fifo;
use super::ports::Channel;
use super::{Control, EventError, EventTable, Notify, Port, two_level};
use crate::abi::event_channel::fifo::{PRIORITY_DEFAULT, WORDS_PER_PAGE};
use crate::abi::event_channel::{ControlBlock, TWO_LEVEL_CHANNELS};
use crate::abi::shared_info::VcpuInfo;

/// Maximum ports checked in one go for events that waited.
const RAISED_AT_ONCE: u32 = 64;

impl<P: PageRef> EventTable<P> {
    /// Moves the `vcpu_info` of `vcpu` to `page` at `offset`, permanently. The vCPU always gets an upcall.
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

    /// Checks vCPU and offset of a `vcpu_info` before its page is accessed.
    pub fn check_vcpu_info(&self, vcpu: u32, offset: u32) -> Result<(), EventError> {
        self.vcpu(vcpu)?;
        if Area::<P>::fits(offset, size_of::<VcpuInfo>()) {
            Ok(())
        } else {
            Err(EventError::BadInfoOffset)
        }
    }

    /// Checks vCPU and offset of a control block before its page is accessed.
    pub fn check_control(&self, vcpu: u32, offset: u32) -> Result<(), EventError> {
        self.vcpu(vcpu)?;
        if Area::<P>::fits(offset, size_of::<ControlBlock>()) {
            Ok(())
        } else {
            Err(EventError::BadControlOffset)
        }
    }

    /// Checks that one more page of event words may be added, before the page is accessed.
    pub fn check_array(&self) -> Result<(), EventError> {
        let fifo = self.delivery.fifo.as_ref().ok_or(EventError::NoArray)?;
        fifo.check_room()
    }

    /// Sets the FIFO control block of `vcpu`. The first one changes the domain to the FIFO ABI; pending events stay
    /// pending.
    ///
    /// Checks at most `RAISED_AT_ONCE` ports for events that waited for the control block.
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

    /// Appends a page of event words, which the guest has at `gfn`, and raises the events that waited for it: a bounded number
    /// in each call. Another page waits until that is done.
    pub fn expand_array(&mut self, page: P, gfn: u64) -> Result<Control, EventError> {
        if self.retired {
            return Err(EventError::Retired);
        }
        let fifo = self.delivery.fifo.as_mut().ok_or(EventError::NoArray)?;
        let left = fifo.array_left().take();
        let is_another = left.is_some_and(|(_, newest)| newest != gfn);
        let (from, gfn) = match left {
            Some(left) => left,
            None => (fifo.add_page(page)?, gfn),
        };
        let end = (from / WORDS_PER_PAGE + 1) * WORDS_PER_PAGE;
        let (notify, left) = self.raise_again(from, end, |_, _, channel| {
            core::mem::take(&mut channel.saved)
        });
        if let Some(fifo) = &mut self.delivery.fifo {
            *fifo.array_left() = left.map(|from| (from, gfn));
        }
        Ok(match left {
            None if !is_another => Control::Done(notify),
            _ => Control::More(notify),
        })
    }

    /// Moves the pending bits in `shared_info` to the table. They are cleared there, so that ports are not pending
    /// after a reset.
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

    /// Raises the events of open ports from `first` to before `end` for which `which` is true, checking at most
    /// [`RAISED_AT_ONCE`] ports. Returns the port to continue at.
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
