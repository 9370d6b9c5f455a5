//! Anthropic Messages (`POST /v1/messages`, API version 2023-06-01).

use super::{
    Decoder, Reason, Reply, Request, StreamError, Streamed, base64_of, call, number_at, object,
    parse_input, text_at,
};
use crate::builtin::config::Model;
use crate::builtin::talk::{Piece, Talk};
use crate::launch::Role;
use ax_core::session::Usage;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;

pub(super) fn request(model: &Model, talk: &Talk) -> io::Result<Request> {
    let mut messages = Vec::new();
    for message in &talk.messages {
        let content: io::Result<Vec<Value>> = message.pieces.iter().map(piece).collect();
        let role = match message.role {
            Role::User => "user",
            Role::Agent => "assistant",
        };
        messages.push(json!({"role": role, "content": content?}));
    }
    // What was sent before is read from the cache up to this mark.
    if let Some(last) = messages.last_mut()
        && let Some(Value::Object(last)) = last["content"].as_array_mut().and_then(|c| c.last_mut())
    {
        last.insert("cache_control".into(), json!({"type": "ephemeral"}));
    }
    let tools: Vec<Value> = talk
        .tools
        .iter()
        .map(|tool| {
            json!({
                "name": tool["name"], "description": tool["description"],
                "input_schema": tool["input"],
            })
        })
        .collect();
    let body = object([
        ("model", json!(model.name)),
        ("max_tokens", json!(model.max_tokens)),
        ("stream", json!(true)),
        ("system", if talk.system.is_empty() { Value::Null } else { json!(talk.system) }),
        ("messages", json!(messages)),
        ("tools", if tools.is_empty() { Value::Null } else { json!(tools) }),
        ("temperature", json!(model.temperature)),
    ]);
    Ok(Request { path: "/v1/messages".into(), body })
}

fn piece(piece: &Piece) -> io::Result<Value> {
    Ok(match piece {
        Piece::Text(text) => json!({"type": "text", "text": text}),
        Piece::File { media_type, path, .. } => {
            let kind = if media_type.starts_with("image/") { "image" } else { "document" };
            let source =
                json!({"type": "base64", "media_type": media_type, "data": base64_of(path)?});
            json!({"type": kind, "source": source})
        }
        Piece::Call(call) => {
            let input = if call.input.is_object() { call.input.clone() } else { json!({}) };
            json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input})
        }
        Piece::Result { id, text, error, .. } => {
            json!({"type": "tool_result", "tool_use_id": id, "content": text, "is_error": error})
        }
        Piece::Opaque(value) => value.clone(),
    })
}

/// A block of content that is not finished.
#[derive(Debug)]
enum Open {
    Call { id: String, name: String, input: String },
    Thought { thinking: String, signature: String },
    Other(Value),
    Text,
}

/// Reads the stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    open: BTreeMap<u64, Open>,
    text: String,
    pieces: Vec<Piece>,
    reason: Option<Reason>,
    usage: Usage,
    whole: bool,
}

impl Decoder for Stream {
    fn event(&mut self, data: &Value, out: &mut Vec<Streamed>) -> Result<(), StreamError> {
        let index = number_at(data, "/index");
        match text_at(data, "/type") {
            "message_start" => self.usage(&data["message"]["usage"]),
            "content_block_start" => self.begin(index, &data["content_block"], out),
            "content_block_delta" => self.delta(index, &data["delta"], out),
            "content_block_stop" => self.end(index),
            "message_delta" => {
                self.usage(&data["usage"]);
                self.reason = Some(match text_at(data, "/delta/stop_reason") {
                    "max_tokens" | "model_context_window_exceeded" => Reason::Length,
                    "refusal" => Reason::Refused("refusal".into()),
                    _ => Reason::Done,
                });
            }
            "message_stop" => self.whole = true,
            "error" => return Err(StreamError::said(&data["error"])),
            "" => return Err(StreamError::Malformed("an event without a type".into())),
            _ => {}
        }
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.whole
    }

    fn reply(self: Box<Self>) -> Reply {
        let reason = self.reason.unwrap_or(Reason::Done);
        Reply { text: self.text, pieces: self.pieces, reason, usage: self.usage }
    }
}

impl Stream {
    fn usage(&mut self, usage: &Value) {
        let cached = number_at(usage, "/cache_read_input_tokens");
        let input = number_at(usage, "/input_tokens")
            + number_at(usage, "/cache_creation_input_tokens")
            + cached;
        // The figures are totals; the last ones count, and not all of them come every time.
        self.usage.input_tokens = self.usage.input_tokens.max(input);
        self.usage.cached_tokens = self.usage.cached_tokens.max(cached);
        self.usage.output_tokens = self.usage.output_tokens.max(number_at(usage, "/output_tokens"));
    }

    fn begin(&mut self, index: u64, block: &Value, out: &mut Vec<Streamed>) {
        let text = |name: &str| block[name].as_str().unwrap_or_default().to_owned();
        let open = match text_at(block, "/type") {
            "text" => {
                self.say(&text("text"), out);
                Open::Text
            }
            "tool_use" => {
                let given = block["input"].as_object().filter(|input| !input.is_empty());
                let input = given.map_or_else(String::new, |_| block["input"].to_string());
                Open::Call { id: text("id"), name: text("name"), input }
            }
            "thinking" => {
                Open::Thought { thinking: text("thinking"), signature: text("signature") }
            }
            _ => Open::Other(block.clone()),
        };
        self.open.insert(index, open);
    }

    fn say(&mut self, text: &str, out: &mut Vec<Streamed>) {
        if !text.is_empty() {
            self.text.push_str(text);
            out.push(Streamed::Text(text.to_owned()));
        }
    }

    fn delta(&mut self, index: u64, delta: &Value, out: &mut Vec<Streamed>) {
        let text = text_at(delta, "/text");
        match self.open.get_mut(&index) {
            Some(Open::Call { input, .. }) => input.push_str(text_at(delta, "/partial_json")),
            Some(Open::Thought { thinking, signature }) => {
                let thought = text_at(delta, "/thinking");
                thinking.push_str(thought);
                signature.push_str(text_at(delta, "/signature"));
                if !thought.is_empty() {
                    out.push(Streamed::Thought(thought.to_owned()));
                }
            }
            _ => self.say(text, out),
        }
    }

    fn end(&mut self, index: u64) {
        let at = self.pieces.len();
        match self.open.remove(&index) {
            Some(Open::Call { id, name, input }) => {
                self.pieces.push(call(&id, at, &name, parse_input(&input), ""));
            }
            // The vendor wants its thoughts back, as they were, before the calls they led to.
            Some(Open::Thought { thinking, signature }) if !signature.is_empty() => {
                let thought =
                    json!({"type": "thinking", "thinking": thinking, "signature": signature});
                self.pieces.push(Piece::Opaque(thought));
            }
            Some(Open::Other(block)) => self.pieces.push(Piece::Opaque(block)),
            Some(Open::Text | Open::Thought { .. }) | None => {}
        }
    }
}
