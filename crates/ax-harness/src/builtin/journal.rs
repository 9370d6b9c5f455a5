//! What earlier attempts recorded, looked up by key and checked against what would be done now.

use crate::launch::{JournalEntry, JournalKind};
use crate::link::Stop;
use ax_core::session::{Digest, Failure, StepKey, StepKind};
use std::collections::BTreeMap;

/// The journal of an execution.
#[derive(Debug)]
pub(super) struct Journal {
    entries: BTreeMap<StepKey, JournalKind>,
}

/// A step as it would be done now.
#[derive(Debug)]
pub(super) struct Step<'a> {
    pub(super) key: &'a StepKey,
    pub(super) kind: StepKind,
    pub(super) name: &'a str,
    pub(super) digest: Digest,
}

impl Journal {
    pub(super) fn new(entries: Vec<JournalEntry>) -> Self {
        Self { entries: entries.into_iter().map(|entry| (entry.key, entry.kind)).collect() }
    }

    /// Returns what came of a step, if it was carried out.
    pub(super) fn step(&self, now: &Step<'_>) -> Result<Option<&Result<String, Failure>>, Stop> {
        let Some(entry) = self.entries.get(now.key) else { return Ok(None) };
        let found = describe(now.kind, now.name, now.digest);
        let expected = match entry {
            JournalKind::Step { kind, name, digest, result, .. } => {
                if (*kind, &**name, *digest) == (now.kind, now.name, now.digest) {
                    return Ok(Some(result));
                }
                describe(*kind, name, *digest)
            }
            JournalKind::Output(_) => "an output".into(),
            JournalKind::Ask(_) => "a question".into(),
            JournalKind::Sleep { .. } => "a sleep".into(),
            JournalKind::Signal { .. } => "a wait for a signal".into(),
            JournalKind::Note { .. } => "a note".into(),
            JournalKind::Checkpoint => "a checkpoint".into(),
        };
        Err(Stop::Diverged { step: now.key.clone(), expected, found })
    }

    /// Returns the text of an output, if it was given.
    pub(super) fn output(&self, key: &StepKey) -> Option<&str> {
        match self.entries.get(key) {
            Some(JournalKind::Output(text)) => Some(text),
            _ => None,
        }
    }

    /// Returns whether anything is recorded under this key.
    pub(super) fn has(&self, key: &StepKey) -> bool {
        self.entries.contains_key(key)
    }
}

fn describe(kind: StepKind, name: &str, digest: Digest) -> String {
    let kind = match kind {
        StepKind::Model => "model",
        StepKind::Tool => "tool",
        StepKind::User => "user",
    };
    format!("{kind} step {name} with request {digest}")
}
