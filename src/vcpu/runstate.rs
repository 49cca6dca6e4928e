//! Time a vCPU spent running, runnable, blocked and offline, and the guest's copy of these times (`vcpu_runstate_info`,
//! xen/include/public/vcpu.h).

use core::sync::atomic::Ordering;

use armv7::addr::{Gfn, PAGE_SIZE};
use armv7::barrier::dmb_ish;
use armv7::frame::PageRef;

use super::halt;
use crate::mem::PinnedPage;
use crate::time::{self, Ticks};

/// State of a vCPU, with the ABI's number (RUNSTATE_*).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum RunState {
    /// On a CPU.
    Running = 0,
    /// Waits for a CPU.
    Runnable = 1,
    /// Waits for an interrupt or event.
    Blocked = 2,
    /// Off, or halted for another reason.
    Offline = 3,
}

impl RunState {
    /// Returns the state of a vCPU that is on no CPU and is halted for these reasons.
    pub const fn of_waiting(halted: u32) -> Self {
        match halted {
            0 => Self::Runnable,
            // BLOCKED prevails over other reasons, as in Xen.
            _ if halted & halt::BLOCKED != 0 => Self::Blocked,
            _ => Self::Offline,
        }
    }
}

/// The guest's `vcpu_runstate_info`, which may cross into a second page.
pub struct GuestCopy {
    pages: [Option<PinnedPage<'static>>; 2],
    /// Where the guest has the pages.
    gfns: [Option<Gfn>; 2],
    offset: usize,
}

/// Bytes of `vcpu_runstate_info`.
pub const COPY_SIZE: usize = 48;
/// Set in `state_entry_time` while the rest is written (XEN_RUNSTATE_UPDATE).
const UPDATE: u64 = 1 << 63;
const STATE_OFFSET: usize = 0;
const ENTRY_TIME_OFFSET: usize = 8;
const TIMES_OFFSET: usize = 16;

impl GuestCopy {
    /// A copy that starts at `offset` of the first page. The guest has the pages at `gfns`.
    pub const fn new(
        pages: [Option<PinnedPage<'static>>; 2],
        gfns: [Option<Gfn>; 2],
        offset: usize,
    ) -> Self {
        Self {
            pages,
            gfns,
            offset,
        }
    }

    /// Returns whether a copy at `offset` is in one page, or, if it `crosses`, in two.
    pub const fn fits(offset: usize, crosses: bool) -> bool {
        offset < PAGE_SIZE && crosses == (offset + COPY_SIZE > PAGE_SIZE)
    }

    /// Returns where it is: the frames of the guest, and the offset in the first one.
    pub const fn place(&self) -> ([Option<Gfn>; 2], usize) {
        (self.gfns, self.offset)
    }

    /// Writes one word of the copy. The write is atomic if the guest's structure is aligned to 4 bytes, as compilers
    /// align it.
    fn write(&self, at: usize, value: u32) {
        let start = self.offset + at;
        if let Some(Some(page)) = self.pages.get(start / PAGE_SIZE)
            && let Some(word) = page.page().u32_at(start % PAGE_SIZE)
        {
            // Relaxed: `publish` has the barriers.
            return word.store(value, Ordering::Relaxed);
        }
        for (n, byte) in value.to_le_bytes().into_iter().enumerate() {
            let at = start + n;
            if let Some(Some(page)) = self.pages.get(at / PAGE_SIZE) {
                page.page().write(at % PAGE_SIZE, &[byte]);
            }
        }
    }
}

/// Contents of the guest's copy.
#[derive(Clone, Copy)]
struct Times {
    state: RunState,
    since: u64,
    spent: [u64; 4],
}

impl Times {
    /// Writes all fields by `write`, which takes an offset and a word.
    ///
    /// If `flagged`, `state_entry_time` marks the update. A reader reads its upper half, the lower and the upper again,
    /// and retries while UPDATE is set or a half has changed. UPDATE is in the upper half, which is therefore the first
    /// word to change and the last. Other times are also written upper half first.
    fn publish(&self, flagged: bool, mut write: impl FnMut(usize, u32)) {
        let upper = |time: u64| (time >> 32) as u32;
        if flagged {
            write(ENTRY_TIME_OFFSET + 4, upper(self.since | UPDATE));
            // The guest must see the flag before any other change, and all changes before the flag is cleared.
            dmb_ish();
        } else {
            write(ENTRY_TIME_OFFSET + 4, upper(self.since));
        }
        write(ENTRY_TIME_OFFSET, self.since as u32);
        write(STATE_OFFSET, self.state as u32);
        for (n, time) in self.spent.into_iter().enumerate() {
            write(TIMES_OFFSET + 8 * n + 4, upper(time));
            write(TIMES_OFFSET + 8 * n, time as u32);
        }
        if flagged {
            dmb_ish();
            write(ENTRY_TIME_OFFSET + 4, upper(self.since));
        }
    }
}

impl Default for Account {
    fn default() -> Self {
        Self::new()
    }
}

/// Time account of one vCPU, in ticks. Times are converted to nanoseconds when the guest or domain control reads them.
pub struct Account {
    state: RunState,
    since: Ticks,
    spent: [Ticks; 4],
    copy: Option<GuestCopy>,
    /// The guest wants UPDATE set while its copy changes (VMASST_TYPE_runstate_update_flag).
    flagged: bool,
}

impl Account {
    /// Returns the account of a vCPU that has been offline since the counter started.
    pub const fn new() -> Self {
        Self {
            state: RunState::Offline,
            since: Ticks::ZERO,
            spent: [Ticks::ZERO; 4],
            copy: None,
            flagged: false,
        }
    }

    /// Returns the pages of the guest's copy, for an audit.
    pub fn pages(&self) -> impl Iterator<Item = &PinnedPage<'static>> {
        self.copy
            .iter()
            .flat_map(|copy| copy.pages.iter().flatten())
    }

    /// Changes the state at `now`, or at the last change if that was later. The caller then updates the guest's copy by
    /// [`Account::publish`], after dropping the scheduler's lock.
    #[inline(always)] // on the switch path
    pub fn change(&mut self, state: RunState, now: Ticks) {
        if let Some(span) = now.0.checked_sub(self.since.0) {
            let spent = &mut self.spent[self.state as usize % 4];
            // Wraps with the counter, after centuries.
            spent.0 = spent.0.wrapping_add(span);
            self.since = now;
        }
        self.state = state;
    }

    /// Returns the current state.
    pub fn state(&self) -> RunState {
        self.state
    }

    /// Returns the time spent in each state, up to `now`.
    pub fn spent(&self, now: Ticks) -> [Ticks; 4] {
        let mut spent = self.spent;
        if let Some(current) = spent.get_mut(self.state as usize) {
            *current = current.plus(now.since(self.since));
        }
        spent
    }

    /// Replaces the guest's copy and writes it.
    pub fn register(&mut self, copy: Option<GuestCopy>) {
        self.copy = copy;
        self.publish();
    }

    /// Returns where the guest's copy is.
    pub fn place(&self) -> Option<([Option<Gfn>; 2], usize)> {
        self.copy.as_ref().map(GuestCopy::place)
    }

    /// Sets whether UPDATE marks changes of the copy.
    pub fn set_flagged(&mut self, flagged: bool) {
        self.flagged = flagged;
    }

    /// Writes the guest's copy, if any.
    #[inline(always)] // on the switch path
    pub fn publish(&self) {
        if let Some(copy) = &self.copy {
            self.write_copy(copy);
        }
    }

    #[inline(never)]
    fn write_copy(&self, copy: &GuestCopy) {
        let ns = |ticks| time::clock().ns(ticks).0;
        let times = Times {
            state: self.state,
            since: ns(self.since),
            spent: self.spent.map(ns),
        };
        times.publish(self.flagged, |at, word| copy.write(at, word));
    }
}

#[cfg(test)]
mod tests {
    use super::{Account, RunState, Times, UPDATE};
    use crate::time::Ticks;

    #[test]
    fn time_is_counted_where_it_was_spent() {
        let mut run = Account::new();
        run.change(RunState::Runnable, Ticks(10));
        run.change(RunState::Running, Ticks(15));
        run.change(RunState::Blocked, Ticks(115));
        let spent = |run: &Account| run.spent(Ticks(120)).map(|ticks| ticks.0);
        assert_eq!(spent(&run), [100, 5, 5, 10]);
        assert_eq!(spent(&run).iter().sum::<u64>(), 120);
        // As another CPU's change may be, whose time was read earlier.
        run.change(RunState::Runnable, Ticks(110));
        assert_eq!(spent(&run), [100, 10, 0, 10], "no time counts twice");
    }

    /// The copy as a guest sees it.
    type Memory = [u32; 12];

    fn write_into(memory: &mut Memory, times: &Times, flagged: bool) -> Vec<Memory> {
        let mut seen = vec![*memory];
        times.publish(flagged, |at, word| {
            memory[at / 4] = word;
            seen.push(*memory);
        });
        seen
    }

    #[test]
    fn whoever_waits_for_the_flag_sees_one_state_whole() {
        // All halves differ, and the clock passes 2^32.
        let times = [u64::from(u32::MAX), 3 << 32, 1, 0x1234_5678_9ABC];
        let before = Times {
            state: RunState::Running,
            since: u64::from(u32::MAX) - 1,
            spent: times,
        };
        let after = Times {
            state: RunState::Blocked,
            since: 1 << 32 | 5,
            spent: times.map(|time| time + (1 << 32) + 7),
        };
        let mut memory = Memory::default();
        write_into(&mut memory, &before, true);
        let old = memory;
        let seen = write_into(&mut memory, &after, true);
        assert_eq!(
            memory,
            *write_into(&mut Memory::default(), &after, false)
                .last()
                .unwrap()
        );
        for now in &seen {
            let is_updating = now[3] & (UPDATE >> 32) as u32 != 0;
            assert!(is_updating || *now == old || *now == memory, "{now:x?}");
        }
        // The entry time itself is read upper half, lower half, upper half.
        let entry = |memory: &Memory| u64::from(memory[3]) << 32 | u64::from(memory[2]);
        for first in 0..seen.len() {
            for second in first..seen.len() {
                for third in second..seen.len() {
                    if seen[first][3] == seen[third][3] && seen[first][3] >> 31 == 0 {
                        let read = u64::from(seen[first][3]) << 32 | u64::from(seen[second][2]);
                        assert!(read == entry(&old) || read == entry(&memory), "{read:#x}");
                    }
                }
            }
        }
    }
}
