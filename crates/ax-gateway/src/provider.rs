//! What all who call a provider of models read of its answers.

use http::header::{HeaderMap, HeaderName, RETRY_AFTER};
use std::error::Error;
use std::time::Duration;

/// The longest pause that a provider can ask for.
const PAUSE_MAX: Duration = Duration::from_secs(120);

/// Returns how long a provider wants us to wait: `Retry-After-Ms`, or `Retry-After` in seconds
/// (RFC 9110 §10.2.3; not the form with a date), two minutes at most.
pub fn pause(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &HeaderName| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let millis = number(&HeaderName::from_static("retry-after-ms")).map(|millis| millis / 1e3);
    let seconds = millis.or_else(|| number(&RETRY_AFTER))?;
    Duration::try_from_secs_f64(seconds).ok().map(|pause| pause.min(PAUSE_MAX))
}

/// Returns what an error and its causes say.
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
