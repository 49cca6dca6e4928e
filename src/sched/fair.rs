//! The fairness rules: virtual time, pre-emption, caps. Pure arithmetic without a queue.
//!
//! A unit's virtual time advances while it runs, the slower the heavier the unit; the unit with the lowest runs next.
//! At the default weight one tick of running is 2^6 of virtual time. The 64-bit value wraps (after months for a lone
//! unit of weight 1), so it is only compared by difference, and units that compete stay close together.
//!
//! No hot path divides by a variable: the Cortex-A15 has no 64-bit division, which dominates a wake-up in Xen's
//! credit2. Weights are inverted when they are set.

use crate::pqueue::Key;
use crate::time::Ticks;

/// Default weight, as in credit2.
pub const DEFAULT_WEIGHT: u16 = 256;
/// Microseconds a unit runs before one of equal standing may pre-empt it (`sched_ratelimit_us`).
pub const DEFAULT_RATELIMIT_US: u32 = 1000;

/// A unit that wakes with credit waits for this fraction of the rate limit only. A wait of zero would let a unit that
/// sends a stream to it be interrupted at each piece.
const PART_WITH_CREDIT: u64 = 8;

/// Virtual time of one tick at weight 256 is `1 << VIRTUAL_SHIFT`.
const VIRTUAL_SHIFT: u32 = 6;
/// Inverse weight is `2^28 / weight`; 2^28 / 256 >> 14 = 2^6.
const INVERSE_ONE: u32 = 1 << 28;
const INVERSE_SHIFT: u32 = 14;

/// Turn of a unit while others wait, in microseconds, at weights of 256 and more.
const SLICE_US: u32 = 4000;
/// Shortest turn, for light units, and the smallest lead that lets one unit pre-empt another; in microseconds.
const MIN_SLICE_US: u32 = 1000;
/// Period over which a cap is enforced (credit2's replenishment period), in microseconds.
const CAP_PERIOD_US: u32 = 10_000;
/// Shortest timer set because of a cap, in microseconds; an overrun is charged to the next period.
const CAP_GRAIN_US: u32 = 50;

/// Virtual time; wraps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Virtual(pub u64);

impl Virtual {
    /// Returns how far `self` is ahead of `other`; negative when it is behind.
    pub fn lead(self, other: Self) -> i64 {
        self.0.wrapping_sub(other.0) as i64
    }

    pub fn plus(self, span: u64) -> Self {
        Self(self.0.wrapping_add(span))
    }

    pub fn minus(self, span: u64) -> Self {
        Self(self.0.wrapping_sub(span))
    }

    /// Returns the later of the two.
    pub fn max(self, other: Self) -> Self {
        if self.lead(other) < 0 { other } else { self }
    }
}

impl Key for Virtual {
    fn before(self, other: Self) -> bool {
        self.lead(other) < 0
    }
}

/// A weight with its inverse and its turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weight {
    pub weight: u16,
    inverse: u32,
    /// Ticks of a turn while others wait.
    pub slice: u64,
    /// Virtual time by which a waiting unit must be behind another CPU's units to move to that CPU.
    pub migration: i64,
    /// Largest lag of one CPU's clock behind another's that counts when a unit moves between them.
    pub lag_limit: i64,
}

impl Weight {
    /// Returns the values for `weight`, of which 0 counts as 1. Divides.
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

    /// Returns the virtual time that `span` ticks of running cost, by one 32-bit multiplication. A span over 2^32 ticks
    /// (a minute at 62.5 MHz) counts as 2^32, as a unit that ran so long ran alone.
    pub fn charge(&self, span: u64) -> u64 {
        let span = u32::try_from(span).unwrap_or(u32::MAX);
        (u64::from(span) * u64::from(self.inverse)) >> INVERSE_SHIFT
    }
}

/// Durations in ticks and in virtual time, computed once from the counter's frequency.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    ticks_per_us_16: u64,
    slice: u64,
    min_slice: u64,
    /// Lead over a waiting unit at which the running one gives way before its turn ends.
    pub margin: i64,
    /// Maximum credit that a sleeper keeps.
    pub sleeper_credit: u64,
    cap_period: u64,
    cap_grain: u64,
}

/// Returns `us` microseconds in ticks, at least 1. `per_us` is ticks per microsecond with 16 fractional bits.
const fn ticks(us: u32, per_us: u64) -> u64 {
    match (us as u64 * per_us) >> 16 {
        0 => 1,
        ticks => ticks,
    }
}

impl Rules {
    pub const fn new(ticks_per_second: u32) -> Self {
        // 16 fractional bits suffice for 32.768 kHz as well as for 1 GHz.
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

    /// Returns a rate limit in ticks; 0 is no limit.
    pub const fn ratelimit(&self, us: u32) -> u64 {
        (us as u64 * self.ticks_per_us_16) >> 16
    }

    /// Returns whether the running unit goes on while another waits, and for how long.
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
    /// Rate limit of its CPU's pool, in ticks.
    pub ratelimit: u64,
    pub slice: u64,
}

/// How the first unit in the queue came to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Waking {
    /// It waited its turn, or used up its share before it slept.
    No,
    /// It woke with credit, typical of a unit that waits for I/O, and waits for a part of the rate limit only.
    WithCredit,
    /// It does not wait for the rate limit. Either it moved here from a CPU where it fell behind, and two CPUs that
    /// honour their rate limits would push it to and fro; or it woke with credit and its own domain has the CPU, where
    /// a vCPU that sent it an interrupt may spin until the interrupt is acknowledged.
    AtOnce,
}

/// Outcome of [`Rules::contest`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// The running unit goes on with its turn, for this many ticks.
    GoOn { for_ticks: u64 },
    /// The running unit is behind and starts another turn.
    NewTurn,
    /// The waiting unit takes the CPU.
    GiveWay,
}

/// CPU time in ticks that the units of a capped group have left together in the current period.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    full: u64,
    left: i64,
    /// Time from which on running is charged.
    began: Ticks,
    refill_at: Ticks,
}

impl Budget {
    /// Returns a budget of `cap` percent of one CPU from `now` on; `None` for 0, no cap.
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

    /// Charges `span` ticks. Returns whether any budget is left at `now`.
    pub fn charge(&mut self, span: u64, now: Ticks, rules: &Rules) -> bool {
        // The span of a unit alone on its CPU may begin before the budget did.
        let span = span.min(now.since(self.began).0);
        self.left = self.left.saturating_sub_unsigned(span);
        self.refill(now, rules)
    }

    /// Adds what is due at `now`. Returns whether any budget is left.
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

    /// Returns when the budget is used up if `running` units draw on it from `now` on.
    pub fn ends(&self, now: Ticks, running: u32, rules: &Rules) -> Ticks {
        let left = u32::try_from(self.left.max(0)).unwrap_or(u32::MAX);
        let each = u64::from(left / running.max(1));
        now.plus(Ticks(each.max(rules.cap_grain)))
    }
}
