//! What all who call a provider of models read of its answers.

use bytes::Bytes;
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

/// Returns a text without a key that somebody repeats in it.
pub(crate) fn hidden(key: &str, text: Bytes) -> Bytes {
    let there = !key.is_empty() && text.windows(key.len()).any(|part| part == key.as_bytes());
    if !there {
        return text;
    }
    String::from_utf8_lossy(&text).replace(key, "[key]").into()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_taken_out_and_nothing_else_is_changed() {
        let check = |key: &str, text: &'static [u8], expect: &[u8]| {
            assert_eq!(hidden(key, Bytes::from_static(text)), expect);
        };
        check("sk-1", b"wrong key sk-1, again: sk-1", b"wrong key [key], again: [key]");
        check("sk-1", b"wrong key \xff", b"wrong key \xff");
        check("", b"no key", b"no key");
        check("longer than the text", b"text", b"text");
    }
}
