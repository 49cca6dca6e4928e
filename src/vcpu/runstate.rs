//! How long a vCPU spent running, waiting for a CPU, blocked and offline, and the guest's copy of it
//! (`vcpu_runstate_info`, xen/include/public/vcpu.h).

use core::sync::atomic::Ordering;

use armv7::addr::PAGE_SIZE;
use armv7::barrier::dmb_ish;
use armv7::frame::PageRef;

use super::halt;
use crate::mem::PinnedPage;
use crate::time::{self, Ticks};

/// The state of a vCPU, numbered as the guest sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum RunState {
    /// On a CPU.
    Running = 0,
    /// Could run.
    Runnable = 1,
    /// Waits.
    Blocked = 2,
    /// Not up, or stopped.
    Offline = 3,
}

impl RunState {
    /// Returns the state of a vCPU that has these reasons to be halted and is on no CPU.
    pub const fn of_waiting(halted: u32) -> Self {
        match halted {
            0 => Self::Runnable,
            // Whatever other reason there is, as Xen has it.
            _ if halted & halt::BLOCKED != 0 => Self::Blocked,
            _ => Self::Offline,
        }
    }
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
const STATE_OFFSET: usize = 0;
const ENTRY_TIME_OFFSET: usize = 8;
const TIMES_OFFSET: usize = 16;

impl GuestCopy {
    /// A copy that starts at `offset` of the first page.
    pub const fn new(pages: [Option<PinnedPage<'static>>; 2], offset: usize) -> Self {
        Self { pages, offset }
    }

    /// Writes one word of the copy. A reader on another CPU sees it whole where the guest has put its structure at a multiple
    /// of four, as every compiler does.
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

/// The content of a copy.
#[derive(Clone, Copy)]
struct Told {
    state: RunState,
    since: u64,
    spent: [u64; 4],
}

impl Told {
    /// Writes all of it by `write`, which takes an offset and a word.
    ///
    /// While `flagged`, `state_entry_time` says that the rest changes: a reader takes its upper half, the lower and the upper
    /// again, and waits while UPDATE is set or anything has changed. UPDATE is in the upper half, so that is the first word
    /// to change and the last. Of other times the upper half goes first too.
    fn publish(&self, flagged: bool, mut write: impl FnMut(usize, u32)) {
        let upper = |time: u64| (time >> 32) as u32;
        if flagged {
            write(ENTRY_TIME_OFFSET + 4, upper(self.since | UPDATE));
            // The guest must see the flag before any other change, and the changes before the flag goes.
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

/// Accounting of one vCPU, in ticks: only what a guest or domain control reads is made into nanoseconds.
pub struct Account {
    state: RunState,
    since: Ticks,
    spent: [Ticks; 4],
    copy: Option<GuestCopy>,
    /// The guest wants UPDATE set while its copy changes (vm_assist).
    flagged: bool,
}

impl Account {
    /// Offline since the beginning.
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

    /// The vCPU does something else from `now` on, or from the last change if that was later. The guest's copy has to be
    /// told of it by [`Account::publish`], once no lock of many is held.
    #[inline(always)] // several times a switch
    pub fn change(&mut self, state: RunState, now: Ticks) {
        if let Some(span) = now.0.checked_sub(self.since.0) {
            let spent = &mut self.spent[self.state as usize % 4];
            // A sum of spans that follow each other: it wraps where the counter does, after centuries.
            spent.0 = spent.0.wrapping_add(span);
            self.since = now;
        }
        self.state = state;
    }

    /// Returns what it does.
    pub fn state(&self) -> RunState {
        self.state
    }

    /// Returns the time spent in each state, the current one up to `now`.
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

    /// Has UPDATE set, or not, while the copy changes.
    pub fn set_flagged(&mut self, flagged: bool) {
        self.flagged = flagged;
    }

    /// Tells the guest's copy, if there is one.
    #[inline(always)] // as `change`
    pub fn publish(&self) {
        if let Some(copy) = &self.copy {
            self.tell(copy);
        }
    }

    #[inline(never)]
    fn tell(&self, copy: &GuestCopy) {
        let ns = |ticks| time::clock().ns(ticks).0;
        let told = Told {
            state: self.state,
            since: ns(self.since),
            spent: self.spent.map(ns),
        };
        told.publish(self.flagged, |at, word| copy.write(at, word));
    }
}

#[cfg(test)]
mod tests {
    use super::{Account, RunState, Told, UPDATE};
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

    fn write_into(memory: &mut Memory, told: &Told, flagged: bool) -> Vec<Memory> {
        let mut seen = vec![*memory];
        told.publish(flagged, |at, word| {
            memory[at / 4] = word;
            seen.push(*memory);
        });
        seen
    }

    #[test]
    fn whoever_waits_for_the_flag_sees_one_state_whole() {
        // All halves differ, and the clock passes 2^32.
        let times = [u64::from(u32::MAX), 3 << 32, 1, 0x1234_5678_9ABC];
        let before = Told {
            state: RunState::Running,
            since: u64::from(u32::MAX) - 1,
            spent: times,
        };
        let after = Told {
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
