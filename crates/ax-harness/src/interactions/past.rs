//! What earlier attempts recorded, and the keys under which it is recorded.
//!
//! | key | what |
//! |---|---|
//! | `create:N` | the step that begins the N-th interaction: its identifier |
//! | `intent:N` | a note: that interaction may have begun |
//! | `run:N` | the step that hears it to its end: where it stands then |
//! | `out:N:INDEX:EVENT` | a step of the provider that is whole, and no call of a function |
//! | `call:N:INDEX:EVENT` | a call of a function |
//! | `ask:N:INDEX` | a question to a person about a call |
//!
//! EVENT is the event from behind which nothing is lacking; it is left out if the provider names
//! none.

use super::steps::last;
use crate::launch::{AskResult, JournalEntry, JournalKind};
use ax_core::session::{Failure, StepKey};
use serde_json::Value;
use std::collections::BTreeMap;

/// The longest name of an event that is kept, in bytes.
const EVENT_BYTES_MAX: usize = 160;

/// The key of the step that begins an interaction.
pub(super) fn create_key(turn: u32) -> StepKey {
    format!("create:{turn}").into()
}

/// The key of the note that comes before the request.
pub(super) fn intent_key(turn: u32) -> StepKey {
    format!("intent:{turn}").into()
}

/// The key of the step that hears an interaction to its end.
pub(super) fn run_key(turn: u32) -> StepKey {
    format!("run:{turn}").into()
}

/// The key of a question.
pub(super) fn ask_key(turn: u32, index: u64) -> StepKey {
    format!("ask:{turn}:{index}").into()
}

/// The key of what the provider said.
pub(super) fn said_key(turn: u32, index: u64, is_call: bool, after: Option<&str>) -> StepKey {
    let what = if is_call { "call" } else { "out" };
    format!("{what}:{turn}:{index}:{}", after.unwrap_or_default()).into()
}

/// Whether the name of an event can be kept.
pub(super) fn fits(event: &str) -> bool {
    let plain = event.bytes().all(|byte| byte.is_ascii_graphic());
    plain && (1..=EVENT_BYTES_MAX).contains(&event.len())
}

/// What of an interaction is in the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Heard {
    /// The event from behind which nothing is lacking.
    pub(super) after: Option<String>,
    /// The steps of the provider that are whole, and what was said in those that are calls.
    pub(super) steps: BTreeMap<u64, Option<Value>>,
    /// The end of the newest output that has a text.
    pub(super) words: String,
}

/// What earlier attempts recorded.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    steps: BTreeMap<StepKey, Result<String, Failure>>,
    asks: BTreeMap<StepKey, AskResult>,
    heard: BTreeMap<u32, Heard>,
}

impl Past {
    pub(super) fn of(journal: &[JournalEntry]) -> Self {
        let mut past = Self::default();
        for JournalEntry { key, kind, .. } in journal {
            match kind {
                JournalKind::Step { result, .. } => {
                    past.steps.insert(key.clone(), result.clone());
                }
                JournalKind::Ask(Some(result)) => {
                    past.asks.insert(key.clone(), result.clone());
                }
                JournalKind::Output(text) => past.output(key.as_str(), text),
                _ => {}
            }
        }
        past
    }

    fn output(&mut self, key: &str, text: &str) {
        let mut words = key.splitn(4, ':');
        let (Some(what), Some(turn), Some(index), Some(after)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return;
        };
        let (Ok(turn), Ok(index)) = (turn.parse::<u32>(), index.parse::<u64>()) else { return };
        let call = (what == "call").then(|| serde_json::from_str(text).unwrap_or(Value::Null));
        let heard = self.heard.entry(turn).or_default();
        heard.after = Some(after.to_owned()).filter(|after| !after.is_empty());
        if call.is_none() && !text.trim().is_empty() {
            heard.words = last(text);
        }
        heard.steps.insert(index, call);
    }

    /// Returns what came of a step.
    pub(super) fn step(&self, key: &StepKey) -> Option<&Result<String, Failure>> {
        self.steps.get(key)
    }

    /// Returns what came of a question.
    pub(super) fn ask(&self, key: &StepKey) -> Option<&AskResult> {
        self.asks.get(key)
    }

    /// Returns what of an interaction is in the log.
    pub(super) fn heard(&self, turn: u32) -> Heard {
        self.heard.get(&turn).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ax_core::id::Seq;
    use serde_json::json;

    #[test]
    fn what_was_heard_is_found_again_by_its_keys() {
        let entry = |key: StepKey, text: &str| JournalEntry {
            key,
            seq: Seq(1),
            kind: JournalKind::Output(text.into()),
        };
        let past = Past::of(&[
            entry(said_key(1, 0, false, Some("e:4")), "a thought"),
            entry(said_key(1, 2, true, Some("e:9")), r#"{"name": "count"}"#),
            entry(said_key(2, 0, false, None), "text"),
            entry("something:else".into(), "text"),
        ]);
        let first = past.heard(1);
        assert_eq!(first.after.as_deref(), Some("e:9"));
        let call = Some(json!({"name": "count"}));
        assert_eq!(first.steps, BTreeMap::from([(0, None), (2, call)]));
        assert_eq!(first.words, "a thought");
        assert_eq!(past.heard(2).after, None);
        assert_eq!(past.heard(3), Heard::default());
        assert!(fits("e-1") && !fits("") && !fits("a b") && !fits(&"e".repeat(161)));
    }
}
