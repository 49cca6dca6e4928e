//! The fairness rules: virtual time, when a running unit gives way, caps. Pure arithmetic on numbers, no queue.
//!
//! A unit's virtual time advances while it runs, the slower the heavier it is; whoever has the lowest runs next. At the
//! default weight one tick of running is 2^6 of virtual time. The 64-bit value wraps (a lone unit of weight 1 gets there
//! after months), so it is only ever compared by difference, and units that compete stay close together.
//!
//! Nothing here divides by a variable: the Cortex-A15 has no 64-bit division, and Xen's credit2 spends most of a wake-up
//! in one. Weights are inverted when they are set.

use crate::pqueue::Key;
use crate::time::Ticks;

/// Weight of a domain nobody said anything about (credit2).
pub const DEFAULT_WEIGHT: u16 = 256;
/// Microseconds a unit runs before one of equal standing may pre-empt it (`sched_ratelimit_us`).
pub const DEFAULT_RATELIMIT_US: u32 = 1000;

/// A unit that wakes with credit waits for this part of the rate limit only. Without any wait, a unit that sends a stream
/// to it would be interrupted at each piece.
const PART_WITH_CREDIT: u64 = 8;

/// Virtual time of one tick at weight 256 is `1 << VIRTUAL_SHIFT`.
const VIRTUAL_SHIFT: u32 = 6;
/// An inverse weight is `2^28 / weight`; 2^28 / 256 >> 14 = 2^6.
const INVERSE_ONE: u32 = 1 << 28;
const INVERSE_SHIFT: u32 = 14;

/// Turn of a unit while others wait, in microseconds at weights of 256 and more.
const SLICE_US: u32 = 4000;
/// Shortest turn, for light units, and the least lead that lets one unit pre-empt another.
const MIN_SLICE_US: u32 = 1000;
/// Period over which a cap is enforced (credit2's replenishment period).
const CAP_PERIOD_US: u32 = 10_000;
/// No hypervisor timer is set closer than this because of a cap; what is overrun is paid back.
const CAP_GRAIN_US: u32 = 50;

/// Virtual time; wraps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Virtual(pub u64);

impl Virtual {
    /// Returns how far `self` is ahead of `other`; negative when it is behind.
    #[inline]
    pub fn lead(self, other: Self) -> i64 {
        self.0.wrapping_sub(other.0) as i64
    }

    #[inline]
    pub fn plus(self, span: u64) -> Self {
        Self(self.0.wrapping_add(span))
    }

    #[inline]
    pub fn minus(self, span: u64) -> Self {
        Self(self.0.wrapping_sub(span))
    }

    /// The later of the two.
    #[inline]
    pub fn max(self, other: Self) -> Self {
        if self.lead(other) < 0 { other } else { self }
    }
}

impl Key for Virtual {
    #[inline]
    fn before(self, other: Self) -> bool {
        self.lead(other) < 0
    }
}

/// A weight with its inverse and the turn it earns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weight {
    pub weight: u16,
    inverse: u32,
    /// Ticks of a turn while others wait.
    pub slice: u64,
    /// Virtual time by which a waiting unit must be behind another CPU's units to move there.
    pub migration: i64,
    /// Most that one CPU's clock may count as behind another's when a unit moves between them.
    pub lag_limit: i64,
}

impl Weight {
    /// `weight` is at least 1. Divides.
    pub fn new(weight: u16, rules: &Rules) -> Self {
        let weight = weight.max(1);
        let scaled =
            rules.slice * u64::from(weight.min(DEFAULT_WEIGHT)) / u64::from(DEFAULT_WEIGHT);
        let mut new = Self {
            weight,
            inverse: INVERSE_ONE / u32::from(weight),
            slice: scaled.max(rules.min_slice),
            migration: 0,
            lag_limit: 0,
        };
        new.migration = new.charge(2 * rules.slice) as i64;
        new.lag_limit = new.charge(8 * rules.slice) as i64;
        new
    }

    /// Returns the virtual time that `span` ticks of running cost: one 32-bit multiplication. A span over 2^32 ticks (a minute
    /// at 62.5 MHz) counts as that much, for a unit that ran so long ran alone.
    #[inline]
    pub fn charge(&self, span: u64) -> u64 {
        let span = u32::try_from(span).unwrap_or(u32::MAX);
        (u64::from(span) * u64::from(self.inverse)) >> INVERSE_SHIFT
    }
}

/// Durations in ticks and in virtual time, worked out once from the counter's frequency.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    ticks_per_us_16: u64,
    slice: u64,
    min_slice: u64,
    /// Lead over a waiting unit at which the running one gives way in mid-turn.
    pub margin: i64,
    /// Credit that a sleeper keeps at most.
    pub sleeper_credit: u64,
    cap_period: u64,
    cap_grain: u64,
}

/// `us` microseconds in ticks, of which one has `per_us` with 16 fractional bits; at least one.
const fn ticks(us: u32, per_us: u64) -> u64 {
    match (us as u64 * per_us) >> 16 {
        0 => 1,
        ticks => ticks,
    }
}

impl Rules {
    pub const fn new(ticks_per_second: u32) -> Self {
        // 16 fractional bits, so that 32.768 kHz works as well as 1 GHz.
        let per_us = ((ticks_per_second as u64) << 16) / 1_000_000;
        Self {
            ticks_per_us_16: per_us,
            slice: ticks(SLICE_US, per_us),
            min_slice: ticks(MIN_SLICE_US, per_us),
            margin: (ticks(MIN_SLICE_US, per_us) << VIRTUAL_SHIFT) as i64,
            sleeper_credit: ticks(SLICE_US, per_us) << VIRTUAL_SHIFT,
            cap_period: ticks(CAP_PERIOD_US, per_us),
            cap_grain: ticks(CAP_GRAIN_US, per_us),
        }
    }

    /// Returns the ticks of a rate limit; 0 is none.
    pub const fn ratelimit(&self, us: u32) -> u64 {
        (us as u64 * self.ticks_per_us_16) >> 16
    }

    /// Returns whether the running unit goes on although one waits, and when to ask again.
    #[inline]
    pub fn contest(&self, running: &Contender, waiting: Virtual, waking: Waking) -> Verdict {
        let lead = running.virtual_time.lead(waiting);
        if lead <= 0 {
            return Verdict::NewTurn;
        }
        let safe = match waking {
            Waking::No => running.ratelimit,
            Waking::WithCredit => running.ratelimit / PART_WITH_CREDIT,
            Waking::AtOnce => 0,
        };
        if running.ran < safe {
            return Verdict::GoOn {
                for_ticks: safe - running.ran,
            };
        }
        if waking != Waking::No || running.ran >= running.slice || lead > self.margin {
            return Verdict::GiveWay;
        }
        Verdict::GoOn {
            for_ticks: running.slice - running.ran,
        }
    }
}

/// The running unit in [`Rules::contest`].
pub(super) struct Contender {
    pub virtual_time: Virtual,
    /// Ticks since its turn began.
    pub ran: u64,
    /// That of its CPU's pool.
    pub ratelimit: u64,
    pub slice: u64,
}

/// The recent past of the first in the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Waking {
    /// It waited its turn, or used up its share before it slept.
    No,
    /// It woke up with credit, as a unit does that mostly waits for I/O: it need not wait for the whole rate limit.
    WithCredit,
    /// As it came from a CPU where it fell behind, it need not wait at all: two CPUs that honour their rate limits would
    /// push it to and fro. Nor need one with credit whose domain has the CPU: who sends an interrupt to another vCPU may
    /// spin until it is acknowledged.
    AtOnce,
}

/// Outcome of [`Rules::contest`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// The running unit goes on with its turn.
    GoOn { for_ticks: u64 },
    /// It is behind and starts another turn.
    NewTurn,
    /// The waiting unit takes the CPU.
    GiveWay,
}

/// CPU time that the units of a capped group have left together in the current period.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    full: u64,
    left: i64,
    /// The time from which on running is charged.
    began: Ticks,
    refill_at: Ticks,
}

impl Budget {
    /// Budget of `cap` percent of a CPU from `now` on; `None` when that is no limit.
    pub fn new(cap: u16, now: Ticks, rules: &Rules) -> Option<Self> {
        if cap == 0 {
            return None;
        }
        let full = (rules.cap_period * u64::from(cap) / 100).max(1);
        Some(Self {
            full,
            left: full as i64,
            began: now,
            refill_at: now.plus(Ticks(rules.cap_period)),
        })
    }

    /// Takes `span` off and says whether any is left at `now`.
    pub fn charge(&mut self, span: u64, now: Ticks, rules: &Rules) -> bool {
        // A unit alone on its CPU may not have been charged for long.
        let span = span.min(now.since(self.began).0);
        self.left = self.left.saturating_sub_unsigned(span);
        self.refill(now, rules)
    }

    /// Adds what is due at `now` and says whether any is left.
    pub fn refill(&mut self, now: Ticks, rules: &Rules) -> bool {
        let period = Ticks(rules.cap_period);
        if now >= self.refill_at {
            let mut due = self.full;
            self.refill_at = self.refill_at.plus(period);
            if now >= self.refill_at {
                due = due.saturating_mul(2);
                self.refill_at = now.plus(period);
            }
            self.left = self.left.saturating_add_unsigned(due).min(self.full as i64);
        }
        self.left > 0
    }

    pub fn refill_at(&self) -> Ticks {
        self.refill_at
    }

    /// Returns when the budget ends if `running` units draw on it from `now` on.
    pub fn ends(&self, now: Ticks, running: u32, rules: &Rules) -> Ticks {
        let left = u32::try_from(self.left.max(0)).unwrap_or(u32::MAX);
        let each = u64::from(left / running.max(1));
        now.plus(Ticks(each.max(rules.cap_grain)))
    }
}
