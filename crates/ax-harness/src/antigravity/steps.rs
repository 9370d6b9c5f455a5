//! What an agent says of its steps, as frames. Nothing of it is lost: what is no output is a note.

use super::wire::Step;
use ax_core::session::{BlockId, Body, Frame, PartKind};
use serde_json::Value;
use std::collections::BTreeMap;

/// The most steps of a turn that are remembered.
const STEPS_MAX: usize = 100_000;

/// How much of a step was said, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    text: usize,
    thought: usize,
    /// Whether it has come to its end.
    ended: bool,
}

/// Turns updates of steps into frames.
#[derive(Debug, Default)]
pub(super) struct Steps {
    /// The trajectory of the agent; others are of its helpers.
    trajectory: String,
    said: BTreeMap<(String, u32), Said>,
    /// The block that text goes to: its number, its kind, and the step that it belongs to.
    open: Option<(u64, PartKind, u32)>,
    blocks: u64,
    /// The status of the last error of the model, as HTTP has it.
    pub(super) http_code: u32,
}

impl Steps {
    pub(super) fn new(trajectory: &str) -> Self {
        Self { trajectory: trajectory.to_owned(), ..Self::default() }
    }

    /// Takes in an update.
    pub(super) fn hear(&mut self, step: &Step) -> Vec<Frame> {
        if step.source == "SOURCE_USER" {
            return Vec::new();
        }
        if let Some(error) = step.error.as_ref().filter(|error| error.http_code > 0) {
            self.http_code = error.http_code;
        }
        let key = (step.trajectory_id.clone(), step.step_index);
        if self.said.len() >= STEPS_MAX && !self.said.contains_key(&key) {
            return vec![note("step", &step.whole)];
        }
        let before = self.said.get(&key).copied().unwrap_or_default();
        let mut now = before;
        let ours = step.trajectory_id == self.trajectory && step.source == "SOURCE_MODEL";
        let failed = step.state == "STATE_ERROR";
        let mut frames = Vec::new();
        if ours && !failed {
            let thought = fresh(&step.thinking, &step.thinking_delta, &mut now.thought);
            frames.extend(self.text(PartKind::Thought, step.step_index, thought));
            // What is for the environment is the name of an action, not a message.
            if step.target == "TARGET_USER" {
                let text = fresh(&step.text, &step.text_delta, &mut now.text);
                frames.extend(self.text(PartKind::Text, step.step_index, text));
            }
        }
        now.ended = failed || step.state == "STATE_DONE";
        if now.ended && !before.ended {
            let was_said = ours && !failed && step.target == "TARGET_USER" && now.text > 0;
            if self.open.is_some_and(|(.., of)| of == step.step_index) || !was_said {
                frames.extend(self.close());
            }
            if !was_said {
                frames.push(note("step", &step.whole));
            }
        }
        let _before = self.said.insert(key, now);
        frames
    }

    /// Ends what is open.
    pub(super) fn close(&mut self) -> Option<Frame> {
        let (number, ..) = self.open.take()?;
        Some(Frame::Output { block: Some(block(number)), key: None, parts: Vec::new() })
    }

    fn text(&mut self, kind: PartKind, step: u32, text: &str) -> Vec<Frame> {
        if text.is_empty() {
            return Vec::new();
        }
        let fits = self.open.is_some_and(|(_, of, at)| of == kind && at == step);
        let mut frames: Vec<Frame> =
            if fits { Vec::new() } else { self.close().into_iter().collect() };
        let (number, ..) = *self.open.get_or_insert_with(|| {
            self.blocks += 1;
            (self.blocks, kind, step)
        });
        frames.push(Frame::Delta { block: block(number), part: kind, text: text.to_owned() });
        frames
    }
}

/// Returns what of a text was not said yet. An update has all of it, and what was added.
fn fresh<'a>(whole: &'a str, delta: &'a str, said: &mut usize) -> &'a str {
    // It may be another text than before, or only the addition is told.
    let rest = whole.get(*said..).filter(|_| !whole.is_empty());
    let fresh = rest.unwrap_or(delta);
    *said += fresh.len();
    fresh
}

/// Returns a note.
pub(super) fn note(name: &str, data: &Value) -> Frame {
    let data = Body::Text(data.to_string());
    Frame::Note { key: None, name: format!("antigravity.{name}"), data }
}

fn block(number: u64) -> BlockId {
    format!("antigravity-{number}").as_str().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::antigravity::wire::{Heard, heard};
    use serde_json::json;

    fn hear(updates: &[Value]) -> Vec<String> {
        let mut steps = Steps::new("t");
        let mut said = Vec::new();
        for update in updates {
            let text = json!({"stepUpdate": update}).to_string();
            let Heard::Step(step) = heard(text.as_bytes()).unwrap() else { panic!("a step") };
            said.extend(steps.hear(&step).iter().map(shown));
        }
        said.extend(steps.close().iter().map(shown));
        said
    }

    fn shown(frame: &Frame) -> String {
        match frame {
            Frame::Delta { block, part, text } => format!("{block} {part:?} {text}"),
            Frame::Output { block: Some(block), .. } => format!("{block} ."),
            Frame::Note { name, .. } => format!("note {name}"),
            other => panic!("{other:?}"),
        }
    }

    fn update(step: u32, state: &str, target: &str, more: Value) -> Value {
        let mut update = json!({"trajectoryId": "t", "stepIndex": step, "source": "SOURCE_MODEL",
            "state": format!("STATE_{state}"), "target": format!("TARGET_{target}")});
        for (name, value) in more.as_object().unwrap() {
            update[name] = value.clone();
        }
        update
    }

    #[test]
    fn text_and_thoughts_of_a_step_are_streamed_once() {
        let said = hear(&[
            update(1, "ACTIVE", "USER", json!({"thinking": "hm", "thinkingDelta": "hm"})),
            update(1, "ACTIVE", "USER", json!({"thinking": "hm", "text": "a", "textDelta": "a"})),
            update(1, "ACTIVE", "USER", json!({"thinking": "hm", "text": "a", "textDelta": ""})),
            update(1, "ACTIVE", "USER", json!({"text": "ab", "textDelta": "b"})),
            update(1, "DONE", "USER", json!({"text": "abc", "textDelta": ""})),
            update(1, "DONE", "USER", json!({"text": "abc", "textDelta": ""})),
        ]);
        let expect = [
            "antigravity-1 Thought hm",
            "antigravity-1 .",
            "antigravity-2 Text a",
            "antigravity-2 Text b",
            "antigravity-2 Text c",
            "antigravity-2 .",
        ];
        assert_eq!(said, expect);
    }

    #[test]
    fn what_is_no_message_is_a_note_when_it_ends() {
        let helper = json!({"trajectoryId": "other", "stepIndex": 1, "state": "STATE_DONE",
            "source": "SOURCE_MODEL", "target": "TARGET_USER", "text": "of a helper"});
        let said = hear(&[
            update(1, "ACTIVE", "ENVIRONMENT", json!({"text": "Running", "textDelta": "Running"})),
            update(1, "DONE", "ENVIRONMENT", json!({"text": "Running"})),
            update(2, "ERROR", "USER", json!({"text": "denied", "textDelta": "denied"})),
            helper,
            json!({"trajectoryId": "t", "stepIndex": 0, "source": "SOURCE_USER", "text": "hello"}),
        ]);
        assert_eq!(said, ["note antigravity.step"; 3]);
    }

    #[test]
    fn the_status_of_an_error_is_kept() {
        let mut steps = Steps::new("t");
        let error = json!({"stepUpdate": {"trajectoryId": "t", "stepIndex": 1,
            "state": "STATE_ERROR", "source": "SOURCE_SYSTEM", "error": {"httpCode": 400}}});
        let Heard::Step(step) = heard(error.to_string().as_bytes()).unwrap() else { panic!() };
        assert_eq!(shown(&steps.hear(&step)[0]), "note antigravity.step");
        assert_eq!(steps.http_code, 400);
    }
}
