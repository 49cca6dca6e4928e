//! Closing all ports in steps: `EVTCHNOP_reset` and the destruction of a domain.

use armv7::frame::PageRef;

use super::{Close, End, EventError, EventTable};

/// Result of one step of a reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a reset goes on until it is done"]
pub enum Reset {
    /// All ports that the domain may close are closed, and it uses the two-level ABI.
    Done,
    /// The budget is used up; call [`EventTable::reset_step`] again.
    More,
    /// Notify the peer as for [`Close::Peer`], then call [`EventTable::reset_step`] again.
    Peer {
        /// The end that is no longer connected.
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

    /// Returns whether a reset is in progress.
    pub fn is_resetting(&self) -> bool {
        self.reset_at.is_some()
    }

    /// Continues a reset until `budget` ports are closed or a peer must be notified.
    ///
    /// Ends the reset with [`EventError::ResetRaced`] if ports have been opened, or are being closed, meanwhile.
    pub fn reset_step(&mut self, budget: u32) -> Result<Reset, EventError> {
        let mut from = self.reset_at.ok_or(EventError::ResetBusy)?;
        for _ in 0..budget {
            let Some(port) = self.ports.next_used(from) else {
                return self.reset_end();
            };
            from = port.0 + 1;
            self.reset_at = Some(from);
            // A port that cannot be closed is being closed by another CPU; it counts at the end.
            if let Ok(Close::Peer { to, from }) = self.close(port) {
                return Ok(Reset::Peer { to, from });
            }
        }
        Ok(Reset::More)
    }

    fn reset_end(&mut self) -> Result<Reset, EventError> {
        self.reset_at = None;
        if self.ports.used() > self.hypervisor_ports {
            return Err(EventError::ResetRaced);
        }
        if self.retired {
            self.delivery.release();
        }
        self.delivery.fifo = None;
        Ok(Reset::Done)
    }

    /// Starts the reset that ends the domain: ports can no longer be opened nor pages registered, and the completed
    /// reset releases all registered pages. Restarts a reset in progress; call it again after a reset that was raced.
    pub fn retire(&mut self) {
        self.retired = true;
        self.reset_at = Some(0);
    }
}
