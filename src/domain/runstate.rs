//! How long a vCPU spent running, waiting for a CPU, blocked and offline, and the guest's copy of it
//! (`vcpu_runstate_info`, xen/include/public/vcpu.h).

use armv7::frame::PageRef;
use zerocopy::IntoBytes;

use super::run;
use crate::mem::PinnedPage;
use crate::time::Ticks;

/// What a vCPU does, numbered as the guest sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum State {
    /// On a CPU.
    Running = 0,
    /// Could run.
    Runnable = 1,
    /// Waits.
    Blocked = 2,
    /// Not up, or stopped.
    Offline = 3,
}

/// The guest's copy: `vcpu_runstate_info`, which may cross into a second page.
pub struct GuestCopy {
    pages: [Option<PinnedPage<'static>>; 2],
    offset: usize,
}

/// Bytes of `vcpu_runstate_info`.
pub const COPY_SIZE: usize = 48;
/// Set in `state_entry_time` while the rest is being written (XEN_RUNSTATE_UPDATE).
const UPDATE: u64 = 1 << 63;
const ENTRY_TIME_OFFSET: usize = 8;

impl GuestCopy {
    /// A copy that starts at `offset` of the first page.
    pub const fn new(pages: [Option<PinnedPage<'static>>; 2], offset: usize) -> Self {
        Self { pages, offset }
    }

    fn write(&self, at: usize, data: &[u8]) {
        let start = self.offset + at;
        for (n, byte) in data.iter().enumerate() {
            let (page, offset) = ((start + n) / 4096, (start + n) % 4096);
            if let Some(Some(page)) = self.pages.get(page) {
                page.page().write(offset, core::slice::from_ref(byte));
            }
        }
    }
}

impl Default for RunState {
    fn default() -> Self {
        Self::new()
    }
}

/// Accounting of one vCPU, in ticks: only what a guest or domain control reads is made into nanoseconds.
pub struct RunState {
    state: State,
    since: Ticks,
    spent: [Ticks; 4],
    copy: Option<GuestCopy>,
    /// The guest wants UPDATE set while its copy changes (vm_assist).
    flagged: bool,
}

impl RunState {
    /// Offline since the beginning.
    pub const fn new() -> Self {
        Self {
            state: State::Offline,
            since: Ticks::ZERO,
            spent: [Ticks::ZERO; 4],
            copy: None,
            flagged: false,
        }
    }

    /// The pages of the guest's copy, for an audit.
    pub fn pages(&self) -> impl Iterator<Item = &PinnedPage<'static>> {
        self.copy
            .iter()
            .flat_map(|copy| copy.pages.iter().flatten())
    }

    /// The vCPU does something else from `now` on, or from the last change if that was later.
    #[inline(always)] // several times a switch
    pub fn change(&mut self, state: State, now: Ticks) {
        if let Some(span) = now.0.checked_sub(self.since.0) {
            let spent = &mut self.spent[self.state as usize % 4];
            // A sum of spans that follow each other: it wraps where the counter does, after centuries.
            spent.0 = spent.0.wrapping_add(span);
            self.since = now;
        }
        self.state = state;
        if self.copy.is_some() {
            self.publish();
        }
    }

    /// What it does.
    pub fn state(&self) -> State {
        self.state
    }

    /// Time spent in each state, the current one up to `now`.
    pub fn spent(&self, now: Ticks) -> [Ticks; 4] {
        let mut spent = self.spent;
        if let Some(current) = spent.get_mut(self.state as usize) {
            *current = current.plus(now.since(self.since));
        }
        spent
    }

    /// Replaces the guest's copy and fills it.
    pub fn register(&mut self, copy: Option<GuestCopy>) {
        self.copy = copy;
        self.publish();
    }

    /// Whether UPDATE is to be set while the copy changes.
    pub fn set_flagged(&mut self, flagged: bool) {
        self.flagged = flagged;
    }

    fn publish(&self) {
        let Some(copy) = &self.copy else { return };
        let ns = |ticks| run::clock().ns(ticks).0;
        let (since, spent) = (ns(self.since), self.spent.map(ns));
        if self.flagged {
            copy.write(ENTRY_TIME_OFFSET, (since | UPDATE).as_bytes());
            // The guest must see the flag before any other change, and the changes before the flag goes.
            armv7::barrier::dmb_ish();
        }
        copy.write(0, (self.state as u32).as_bytes());
        copy.write(16, spent.as_bytes());
        if self.flagged {
            armv7::barrier::dmb_ish();
        }
        copy.write(ENTRY_TIME_OFFSET, since.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::{RunState, State};
    use crate::time::Ticks;

    #[test]
    fn time_is_counted_where_it_was_spent() {
        let mut run = RunState::new();
        run.change(State::Runnable, Ticks(10));
        run.change(State::Running, Ticks(15));
        run.change(State::Blocked, Ticks(115));
        let spent = |run: &RunState| run.spent(Ticks(120)).map(|ticks| ticks.0);
        assert_eq!(spent(&run), [100, 5, 5, 10]);
        assert_eq!(spent(&run).iter().sum::<u64>(), 120);
        // As another CPU's change may be, whose time was read earlier.
        run.change(State::Runnable, Ticks(110));
        assert_eq!(spent(&run), [100, 10, 0, 10], "no time counts twice");
    }
}
