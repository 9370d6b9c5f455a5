//! What was done to the world: a file for each session, a line for each effect.

use std::fs;
use std::path::Path;

/// An effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The tag of the input.
    pub(crate) tag: String,
    /// The key of the step.
    pub(crate) key: String,
    /// The attempt that did it.
    pub(crate) attempt: u32,
}

/// Reads the effects of a session.
pub(crate) fn read(dir: &Path, session: &str) -> Vec<Line> {
    let text = fs::read_to_string(dir.join(session)).unwrap_or_default();
    let lines = text.lines().map(|line| {
        let words: Vec<_> = line.split(' ').collect();
        let [tag, key, attempt] = words[..] else { panic!("{line:?} is no effect") };
        let attempt = attempt.parse().unwrap();
        Line { tag: tag.into(), key: key.into(), attempt }
    });
    lines.collect()
}
