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

/// Checks who acted in a session, and when: once a later attempt has done anything, no earlier one
/// does.
pub(crate) fn one_at_a_time(dir: &Path, session: &str) -> Result<usize, String> {
    let mut acts = dir.as_os_str().to_owned();
    acts.push("-acts");
    let text = fs::read_to_string(Path::new(&acts).join(session)).unwrap_or_default();
    let mut past: Vec<(&str, &str)> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let words: Vec<_> = line.split(' ').collect();
        let [_, tag, attempt] = words[..] else { panic!("{line:?} says nobody") };
        let who = (tag, attempt);
        if past.last() == Some(&who) {
            continue;
        }
        if past.contains(&who) {
            let others = past.last();
            return Err(format!("line {at}: {who:?} acts after {others:?} has begun: {text}"));
        }
        past.push(who);
    }
    Ok(past.len())
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
