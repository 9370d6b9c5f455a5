//! OpenAI Responses (`POST /responses`), without state at the vendor.

use super::{
    Decoder, Reason, Reply, Request, StreamError, Streamed, base64_of, call, number_at, object,
    parse_input, text_at,
};
use crate::builtin::config::Model;
use crate::builtin::talk::{Piece, Talk};
use crate::launch::Role;
use ax_core::session::Usage;
use serde_json::{Value, json};
use std::io;

pub(super) fn request(model: &Model, talk: &Talk) -> io::Result<Request> {
    let mut input = Vec::new();
    for message in &talk.messages {
        for piece in &message.pieces {
            input.push(item(message.role, piece)?);
        }
    }
    let tools: Vec<Value> = talk
        .tools
        .iter()
        .map(|tool| {
            json!({
                "type": "function", "name": tool["name"], "description": tool["description"],
                "parameters": tool["input"], "strict": false,
            })
        })
        .collect();
    let body = object([
        ("model", json!(model.name)),
        ("max_output_tokens", json!(model.max_tokens)),
        ("stream", json!(true)),
        ("store", json!(false)),
        ("instructions", if talk.system.is_empty() { Value::Null } else { json!(talk.system) }),
        ("input", json!(input)),
        ("tools", if tools.is_empty() { Value::Null } else { json!(tools) }),
        ("temperature", json!(model.temperature)),
    ]);
    Ok(Request { path: "/responses".into(), body })
}

fn item(role: Role, piece: &Piece) -> io::Result<Value> {
    let message = |part: Value| {
        let role = if role == Role::User { "user" } else { "assistant" };
        json!({"type": "message", "role": role, "content": [part]})
    };
    Ok(match piece {
        Piece::Text(text) => {
            let kind = if role == Role::User { "input_text" } else { "output_text" };
            message(json!({"type": kind, "text": text}))
        }
        Piece::File { media_type, name, path, .. } => {
            let url = format!("data:{media_type};base64,{}", base64_of(path)?);
            message(if media_type.starts_with("image/") {
                json!({"type": "input_image", "image_url": url})
            } else {
                json!({"type": "input_file", "filename": name, "file_data": url})
            })
        }
        Piece::Call(call) => json!({
            "type": "function_call", "call_id": call.id, "name": call.name,
            "arguments": call.input.as_str().map_or_else(|| call.input.to_string(), str::to_owned),
        }),
        Piece::Result { id, text, .. } => {
            json!({"type": "function_call_output", "call_id": id, "output": text})
        }
        Piece::Opaque(value) => value.clone(),
    })
}

/// Reads the stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    text: String,
    pieces: Vec<Piece>,
    reason: Option<Reason>,
    usage: Usage,
    whole: bool,
}

impl Decoder for Stream {
    fn event(&mut self, data: &Value, out: &mut Vec<Streamed>) -> Result<(), StreamError> {
        match text_at(data, "/type") {
            "response.output_text.delta" => {
                let text = text_at(data, "/delta");
                self.text.push_str(text);
                out.push(Streamed::Text(text.to_owned()));
            }
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                out.push(Streamed::Thought(text_at(data, "/delta").to_owned()));
            }
            "response.refusal.delta" => self.reason = Some(Reason::Refused("refusal".into())),
            "response.output_item.done" => self.item(&data["item"]),
            "response.completed" => self.end(&data["response"], Reason::Done),
            "response.incomplete" => {
                let reason = match text_at(data, "/response/incomplete_details/reason") {
                    "max_output_tokens" => Reason::Length,
                    other => Reason::Refused(other.to_owned()),
                };
                self.end(&data["response"], reason);
            }
            "response.failed" => return Err(StreamError::said(&data["response"]["error"])),
            "error" => {
                let error = data.get("error").filter(|error| error.is_object());
                return Err(StreamError::said(error.unwrap_or(data)));
            }
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
    fn item(&mut self, item: &Value) {
        match text_at(item, "/type") {
            "function_call" => {
                let input = parse_input(text_at(item, "/arguments"));
                let (id, at) = (text_at(item, "/call_id"), self.pieces.len());
                self.pieces.push(call(id, at, text_at(item, "/name"), input, ""));
            }
            // Without this, it could not be sent back to a vendor who keeps nothing.
            "reasoning" if item["encrypted_content"].is_string() => {
                self.pieces.push(Piece::Opaque(item.clone()));
            }
            _ => {}
        }
    }

    fn end(&mut self, response: &Value, reason: Reason) {
        self.usage.input_tokens = number_at(response, "/usage/input_tokens");
        self.usage.cached_tokens = number_at(response, "/usage/input_tokens_details/cached_tokens");
        self.usage.output_tokens = number_at(response, "/usage/output_tokens");
        self.reason.get_or_insert(reason);
        self.whole = true;
    }
}
