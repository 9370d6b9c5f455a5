//! Parts of a whole.

use std::time::Duration;

/// Returns the duration that this part of all is not longer than, in microseconds.
pub(crate) fn part(durations: &mut [Duration], part: f64) -> f64 {
    assert!(!durations.is_empty(), "something was measured");
    durations.sort_unstable();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is an index")]
    let at = (durations.len() as f64 * part) as usize;
    round1(durations[at.min(durations.len() - 1)].as_secs_f64() * 1e6)
}

pub(crate) fn round1(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
