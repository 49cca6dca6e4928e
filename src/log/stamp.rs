//! Time stamps of lines (`console_timestamps`), in Xen's formats (docs/misc/xen-command-line.pandoc).

use core::fmt;

use crate::cmdline::Timestamps;

const NS_PER_SECOND: u64 = 1_000_000_000;
const NS_PER_MILLISECOND: u64 = 1_000_000;
const NS_PER_MICROSECOND: u64 = 1_000;
const SECONDS_PER_DAY: u64 = 86_400;

/// A point in time, in all units of stamps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// The system counter.
    pub ticks: u64,
    /// Nanoseconds since boot.
    pub since_boot: u64,
    /// Nanoseconds since 1970; `None` until dom0 has set the time of day.
    pub wall: Option<u64>,
}

/// A line's stamp. Displays nothing, or the time in brackets and a blank.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Format. A date that is not known yet is displayed as the time since boot.
    pub mode: Timestamps,
    /// Time of the line.
    pub moment: Moment,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.mode, self.moment.wall) {
            (Timestamps::None, _) => Ok(()),
            (Timestamps::Raw, _) => write!(f, "[{:016x}] ", self.moment.ticks),
            (Timestamps::Date, Some(wall)) => write!(f, "[{}] ", Date(wall)),
            (Timestamps::DateMs, Some(wall)) => {
                let ms = wall % NS_PER_SECOND / NS_PER_MILLISECOND;
                write!(f, "[{}.{ms:03}] ", Date(wall))
            }
            (Timestamps::Boot | Timestamps::Date | Timestamps::DateMs, _) => {
                let ns = self.moment.since_boot;
                let us = ns % NS_PER_SECOND / NS_PER_MICROSECOND;
                write!(f, "[{:5}.{us:06}] ", ns / NS_PER_SECOND)
            }
        }
    }
}

/// Nanoseconds since 1970, displayed as date and time of day (UTC).
struct Date(u64);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / NS_PER_SECOND;
        // Fits: 2^64 nanoseconds are 584 years.
        let day = (seconds / SECONDS_PER_DAY) as u32;
        let second = (seconds % SECONDS_PER_DAY) as u32;
        let (year, month, day) = civil(day);
        let (hour, minute) = (second / 3600, second / 60 % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{:02}",
            second % 60
        )
    }
}

/// Returns year, month and day of a number of days since 1970, in the Gregorian calendar. Years are counted from March,
/// so that the leap day is last: 146097 days in 400 years, 36524 in 100, 1461 in 4, and 153 in five months.
const fn civil(days: u32) -> (u32, u32, u32) {
    /// Days from 1 March of year 0 to 1970.
    const EPOCH: u32 = 719_468;
    let days = days + EPOCH;
    let era = days / 146_097;
    let in_era = days % 146_097;
    let year_of_era = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * in_year + 2) / 153;
    let day = in_year - (153 * from_march + 2) / 5 + 1;
    let (month, next) = match from_march {
        0..=9 => (from_march + 3, 0),
        _ => (from_march - 9, 1),
    };
    (era * 400 + year_of_era + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::{Moment, NS_PER_SECOND, Stamp, civil};
    use crate::cmdline::Timestamps;

    /// 2024-02-29 23:59:58.123456789.
    const LEAP: u64 = 1_709_251_198 * NS_PER_SECOND + 123_456_789;

    fn text(mode: Timestamps, wall: Option<u64>) -> String {
        let moment = Moment {
            ticks: 0xBEEF,
            since_boot: 3 * NS_PER_SECOND + 45_678_999,
            wall,
        };
        Stamp { mode, moment }.to_string()
    }

    #[test]
    fn each_mode_has_the_form_that_xen_gives_it() {
        assert_eq!(text(Timestamps::None, Some(LEAP)), "");
        assert_eq!(text(Timestamps::Boot, Some(LEAP)), "[    3.045678] ");
        assert_eq!(text(Timestamps::Raw, Some(LEAP)), "[000000000000beef] ");
        assert_eq!(text(Timestamps::Date, Some(LEAP)), "[2024-02-29 23:59:58] ");
        assert_eq!(
            text(Timestamps::DateMs, Some(LEAP)),
            "[2024-02-29 23:59:58.123] "
        );
    }

    #[test]
    fn an_unknown_date_is_told_as_the_time_since_boot() {
        assert_eq!(text(Timestamps::Date, None), "[    3.045678] ");
        assert_eq!(text(Timestamps::DateMs, None), "[    3.045678] ");
    }

    #[test]
    fn days_follow_one_another_through_the_calendar() {
        const LENGTHS: [u32; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for number in 0..213_504 {
            assert_eq!(civil(number), (year, month, day));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = LENGTHS[month as usize - 1] + u32::from(leap && month == 2);
            day += 1;
            if day > length {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
        assert_eq!(year, 2554, "as far as 64 bits of nanoseconds go");
    }
}
