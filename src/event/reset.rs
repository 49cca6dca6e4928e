//! Closing all ports, in steps: `EVTCHNOP_reset`, and the end of a domain.

use armv7::frame::PageRef;

use super::{Close, End, EventError, EventTable};

/// The outcome of one step of a reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a reset goes on until it is done"]
pub enum Reset {
    /// All ports are closed and the domain is back to the two-level ABI.
    Done,
    /// The budget is used up: call [`EventTable::reset_step`] again.
    More,
    /// As [`Close::Peer`]; then call [`EventTable::reset_step`] again.
    Peer {
        /// The end that is connected to nothing now.
        to: End,
        /// The end that was closed.
        from: End,
    },
}

impl<P: PageRef> EventTable<P> {
    /// Starts a reset.
    pub fn reset_begin(&mut self) -> Result<(), EventError> {
        if self.reset_at.is_some() {
            return Err(EventError::ResetBusy);
        }
        self.reset_at = Some(0);
        Ok(())
    }

    /// Returns whether a reset is under way.
    pub fn is_resetting(&self) -> bool {
        self.reset_at.is_some()
    }

    /// Goes on with a reset until `budget` ports are closed or a peer must be told.
    ///
    /// The error [`EventError::ResetRaced`] means that ports were opened, or are being closed, meanwhile; the reset is over.
    pub fn reset_step(&mut self, budget: u32) -> Result<Reset, EventError> {
        let mut from = self.reset_at.ok_or(EventError::ResetBusy)?;
        for _ in 0..budget {
            let Some(port) = self.ports.next_used(from) else {
                return self.reset_end();
            };
            from = port.0 + 1;
            self.reset_at = Some(from);
            // Somebody else is closing a port that cannot be closed: that one counts at the end.
            if let Ok(Close::Peer { to, from }) = self.close(port) {
                return Ok(Reset::Peer { to, from });
            }
        }
        Ok(Reset::More)
    }

    fn reset_end(&mut self) -> Result<Reset, EventError> {
        self.reset_at = None;
        if self.ports.used() > 0 {
            return Err(EventError::ResetRaced);
        }
        if self.retired {
            self.delivery.release();
        }
        self.delivery.fifo = None;
        Ok(Reset::Done)
    }

    /// Starts the reset that ends the domain: no port is opened and no page is registered any more, and when the reset is
    /// done, all registered pages have been let go. A reset that was under way starts anew; so does one that was raced,
    /// when this is called again.
    pub fn retire(&mut self) {
        self.retired = true;
        self.reset_at = Some(0);
    }
}
