//! Time for people: RFC 3339 in UTC, and spans in words.

use ax_core::time::Timestamp;
use ax_engine::{Clock as _, SystemClock};

const DAY_SECONDS: u64 = 86_400;

/// Returns the time.
pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

/// Writes a time as `2026-08-04T12:00:00.250Z`.
pub(crate) fn rfc3339(at_millis: u64) -> String {
    let (seconds, millis) = (at_millis / 1000, at_millis % 1000);
    let (year, month, day) = date(seconds / DAY_SECONDS);
    let (hour, minute, second) = clock(seconds);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Writes the time of day as `12:00:00.250`.
pub(crate) fn time_of_day(at_millis: u64) -> String {
    let (hour, minute, second) = clock(at_millis / 1000);
    format!("{hour:02}:{minute:02}:{second:02}.{:03}", at_millis % 1000)
}

/// Writes a span in its two biggest units, such as `2 h 5 min`.
pub(crate) fn span(millis: u64) -> String {
    let seconds = millis / 1000;
    let (days, hours) = (seconds / DAY_SECONDS, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) if seconds == 0 => format!("{millis} ms"),
        (0, 0, 0) if seconds < 10 => format!("{}.{} s", seconds, millis % 1000 / 100),
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {rest} s"),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

const fn clock(seconds: u64) -> (u64, u64, u64) {
    (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

/// The date that is so many days after 1970-01-01: the Gregorian calendar, in years that begin in
/// March and eras of 400 years.
const fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, expect) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_827_696, "2000-02-29T12:34:56.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (1_709_251_200, "2024-03-01T00:00:00.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(seconds * 1000), expect);
        }
        assert_eq!(time_of_day(45_296_007), "12:34:56.007");
    }

    #[test]
    fn spans_have_two_units() {
        let spans = [999, 1_250, 61_000, 7_500_000, 200_000_000, 42_000].map(span);
        assert_eq!(spans, ["999 ms", "1.2 s", "1 min 1 s", "2 h 5 min", "2 d 7 h", "42 s"]);
    }
}
