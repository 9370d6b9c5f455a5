//! Parts of a whole.

use std::time::Duration;

/// Returns what half and what 99 % of all are not longer than, in microseconds.
pub(crate) fn parts(durations: &mut [Duration]) -> [f64; 2] {
    durations.sort_unstable();
    [0.5, 0.99].map(|part| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
        let at = (durations.len() as f64 * part) as usize;
        let found = durations.get(at.min(durations.len().saturating_sub(1)));
        found.map_or(f64::NAN, |duration| (duration.as_secs_f64() * 1e7).round() / 10.0)
    })
}

/// Returns the middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
