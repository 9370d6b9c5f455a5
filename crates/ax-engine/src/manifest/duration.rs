//! Durations as people write them.

/// The longest duration, in milliseconds: ten years.
const MILLIS_MAX: u64 = 3_650 * DAY;
const DAY: u64 = 24 * 60 * 60 * 1_000;

/// The units, the largest first, in milliseconds.
const UNITS: [(&str, u64); 5] =
    [("d", DAY), ("h", 60 * 60 * 1_000), ("m", 60 * 1_000), ("s", 1_000), ("ms", 1)];

/// Why a text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Error {
    /// It does not look like one.
    Form,
    /// It is longer than ten years.
    TooLong,
}

/// Reads a duration such as `30s`, `1h30m` or `500ms`, in milliseconds; `None` if it is none, or
/// longer than ten years.
pub fn millis(text: &str) -> Option<u64> {
    parse(text).ok()
}

/// Reads a duration such as `30s`, `1h30m` or `500ms`, in milliseconds. Larger units come first,
/// each at most once.
pub(super) fn parse(text: &str) -> Result<u64, Error> {
    let mut rest = text;
    let mut units = &UNITS[..];
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| Error::Form)?;
        let letters =
            after.len() - after.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, after) = after.split_at(letters);
        let at = units.iter().position(|(name, _)| *name == unit).ok_or(Error::Form)?;
        let part = number.checked_mul(units[at].1);
        total = part.and_then(|part| total.checked_add(part)).ok_or(Error::TooLong)?;
        units = &units[at + 1..];
        rest = after;
    }
    if text.is_empty() {
        return Err(Error::Form);
    }
    if total > MILLIS_MAX { Err(Error::TooLong) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(parse("0s"), Ok(0));
        assert_eq!(parse("500ms"), Ok(500));
        assert_eq!(parse("1h30m"), Ok(5_400_000));
        assert_eq!(parse("1d1ms"), Ok(DAY + 1));
        assert_eq!(parse("3650d"), Ok(MILLIS_MAX));
        for text in ["", "s", "30", "30 s", "-1s", "1.5s", "1m1h", "1s1s", "1w", "1S", "ä", "1ä"]
        {
            assert_eq!(parse(text), Err(Error::Form), "{text}");
        }
        assert_eq!(parse("99999999999999999999s"), Err(Error::Form));
        assert_eq!(parse("9999999999999999999d"), Err(Error::TooLong));
        assert_eq!(parse("3651d"), Err(Error::TooLong));
    }
}
