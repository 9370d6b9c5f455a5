//! What is recorded of a step, and reading it back.
//!
//! A model's text is in the output that was streamed; the step's result only names the block.

use super::journal::Journal;
use super::model::{Reason, Reply};
use super::talk::{Call, Piece};
use super::tools::Returned;
use crate::link::Stop;
use ax_core::session::{Failure, StepKey};
use serde_json::{Map, Value, json};

/// How long a text in a tool's input may be to be shown whole, in bytes.
const SHOWN_BYTES_MAX: usize = 160;
/// How much of a longer one is shown, in characters.
const SHOWN_CHARS: usize = 80;
/// How much of a tool's input is shown, in values.
const SHOWN_VALUES_MAX: usize = 8;

/// What a model call came to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Recorded {
    /// What the model said, in the order in which it is sent back.
    pub(super) pieces: Vec<Piece>,
    /// Why it stopped.
    pub(super) stop_reason: String,
    /// The vendor's word if the model did not want to answer.
    pub(super) refused: Option<String>,
}

/// Returns the name of the block for a try of a model call, counted from 1.
pub(super) fn block(step: &StepKey, number: u32) -> String {
    match number {
        1 => step.to_string(),
        _ => format!("{step}~{number}"),
    }
}

/// Returns the key of the output that closes a block.
pub(super) fn output_key(block: &str) -> StepKey {
    format!("out:{block}").into()
}

/// Returns what is recorded of an answer.
pub(super) fn of(reply: &Reply) -> Recorded {
    let (calls, others): (Vec<_>, Vec<_>) =
        reply.pieces.iter().cloned().partition(|piece| matches!(piece, Piece::Call(_)));
    let said = (!reply.text.trim().is_empty()).then(|| Piece::Text(reply.text.clone()));
    let stop_reason = match &reply.reason {
        Reason::Done if calls.is_empty() => "end_turn",
        Reason::Done => "tool_use",
        Reason::Length => "max_tokens",
        Reason::Refused(_) => "refused",
    };
    Recorded {
        pieces: others.into_iter().chain(said).chain(calls).collect(),
        stop_reason: stop_reason.into(),
        refused: (&reply.reason).into(),
    }
}

impl Recorded {
    /// Returns the result of the step; `block` names where the text is.
    pub(super) fn json(&self, block: Option<&str>) -> Value {
        let streamed = || json!({"type": "streamed", "block": block.unwrap_or_default()});
        let mut content: Vec<Value> = Vec::new();
        for piece in &self.pieces {
            content.push(match piece {
                Piece::Call(call) => {
                    let mut fields = json!({
                        "type": "tool_use", "id": call.id, "name": call.name, "input": call.input,
                    });
                    if !call.signature.is_empty() {
                        fields["signature"] = json!(call.signature);
                    }
                    fields
                }
                Piece::Opaque(value) => json!({"type": "opaque", "value": value}),
                _ => streamed(),
            });
        }
        let mut result = json!({"content": content, "stop_reason": self.stop_reason});
        if let Some(word) = &self.refused {
            result["refused"] = json!(word);
        }
        result
    }
}

/// Reads the result of a model call back.
pub(super) fn read(result: &str, journal: &Journal) -> Result<Recorded, Stop> {
    let bad = |what: &str| Stop::final_failure("journal", format!("a recorded answer {what}"));
    let result: Value = serde_json::from_str(result).map_err(|_| bad("is not JSON"))?;
    let content = result["content"].as_array().ok_or_else(|| bad("has no content"))?;
    let mut pieces = Vec::new();
    for item in content {
        let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
        match item["type"].as_str() {
            Some("streamed") => {
                let said = journal.output(&output_key(&text("block")));
                pieces.push(Piece::Text(said.ok_or_else(|| bad("lacks its text"))?.to_owned()));
            }
            Some("tool_use") => pieces.push(Piece::Call(Call {
                id: text("id"),
                name: text("name"),
                input: item["input"].clone(),
                signature: text("signature"),
            })),
            Some("opaque") => pieces.push(Piece::Opaque(item["value"].clone())),
            _ => return Err(bad("has content of an unknown type")),
        }
    }
    let word = |name: &str| result[name].as_str().map(str::to_owned);
    let stop_reason = word("stop_reason").unwrap_or_default();
    Ok(Recorded { pieces, stop_reason, refused: word("refused") })
}

/// Returns the result of a tool's step.
pub(super) fn tool_json(returned: &Returned) -> Value {
    if returned.error {
        json!({"content": returned.text, "error": true})
    } else {
        json!({"content": returned.text})
    }
}

/// Reads what a tool returned, or what a person said became of it.
pub(super) fn returned(result: &Result<String, Failure>) -> Returned {
    let json = match result {
        Ok(json) => json,
        Err(failure) => return Returned::error(failure.message.clone()),
    };
    let value: Value = serde_json::from_str(json).unwrap_or(Value::Null);
    match (&value["content"], &value) {
        (Value::String(text), _) => Returned { text: text.clone(), error: value["error"] == true },
        (_, Value::String(text)) => Returned { text: text.clone(), error: false },
        (_, Value::Null) => Returned {
            text: "[it was carried out; what it returned is not known]".into(),
            error: false,
        },
        _ => Returned { text: json.clone(), error: false },
    }
}

/// Returns a tool's input to look at, with long texts cut: all of it is in the model's answer.
pub(super) fn shortened(input: &Value) -> Value {
    match input {
        Value::Object(fields) => {
            let shown = fields.iter().take(SHOWN_VALUES_MAX);
            Value::Object(
                shown.map(|(name, value)| (cut(name), shorten(value))).collect::<Map<_, _>>(),
            )
        }
        other => shorten(other),
    }
}

fn shorten(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::from(cut(text)),
        Value::Array(_) | Value::Object(_) => Value::from(cut(&value.to_string())),
        plain => plain.clone(),
    }
}

fn cut(text: &str) -> String {
    if text.len() <= SHOWN_BYTES_MAX {
        return text.to_owned();
    }
    let start: String = text.chars().take(SHOWN_CHARS).collect();
    format!("{start}… ({} bytes)", text.len())
}
