//! OpenAI Chat Completions (`POST /chat/completions`), and the many servers that imitate it.

use super::{
    Decoder, Reason, Reply, Request, StreamError, Streamed, base64_of, call, number_at, object,
    parse_input, text_at,
};
use crate::builtin::config::Model;
use crate::builtin::talk::{Message, Piece, Talk};
use crate::launch::Role;
use ax_core::session::Usage;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io;

pub(super) fn request(model: &Model, talk: &Talk) -> io::Result<Request> {
    let mut messages = Vec::new();
    if !talk.system.is_empty() {
        messages.push(json!({"role": "system", "content": talk.system}));
    }
    for message in &talk.messages {
        add(message, &mut messages)?;
    }
    let tools: Vec<Value> = talk.tools.iter().map(|tool| {
        let function = json!({
            "name": tool["name"], "description": tool["description"], "parameters": tool["input"],
        });
        json!({"type": "function", "function": function})
    }).collect();
    // The vendor renamed the field; those who imitate it still know the old name.
    let length = if model.base_url.is_none() { "max_completion_tokens" } else { "max_tokens" };
    let body = object([
        ("model", json!(model.name)),
        (length, json!(model.max_tokens)),
        ("stream", json!(true)),
        ("stream_options", json!({"include_usage": true})),
        ("messages", json!(messages)),
        ("tools", if tools.is_empty() { Value::Null } else { json!(tools) }),
        ("temperature", json!(model.temperature)),
    ]);
    Ok(Request { path: "/chat/completions".into(), body })
}

/// Adds a message: results of tools are messages of their own, and come before what is said.
fn add(message: &Message, messages: &mut Vec<Value>) -> io::Result<()> {
    let mut content = Vec::new();
    let mut calls = Vec::new();
    for piece in &message.pieces {
        match piece {
            Piece::Text(text) => content.push(json!({"type": "text", "text": text})),
            Piece::File { media_type, name, path, .. } => {
                let url = format!("data:{media_type};base64,{}", base64_of(path)?);
                content.push(if media_type.starts_with("image/") {
                    json!({"type": "image_url", "image_url": {"url": url}})
                } else {
                    json!({"type": "file", "file": {"filename": name, "file_data": url}})
                });
            }
            Piece::Call(call) => {
                let arguments = call.input.as_str();
                let arguments = arguments.map_or_else(|| call.input.to_string(), str::to_owned);
                let function = json!({"name": call.name, "arguments": arguments});
                calls.push(json!({"type": "function", "id": call.id, "function": function}));
            }
            Piece::Result { id, text, .. } => {
                messages.push(json!({"role": "tool", "tool_call_id": id, "content": text}));
            }
            Piece::Opaque(_) => {}
        }
    }
    // Plain text is understood by all, a list of parts is not.
    let content = match &content[..] {
        [] => Value::Null,
        [only] if only["type"] == "text" => only["text"].clone(),
        _ => Value::from(content),
    };
    let role = if message.role == Role::User { "user" } else { "assistant" };
    let mut fields = Map::from_iter([("role".to_owned(), json!(role))]);
    if !content.is_null() || !calls.is_empty() {
        fields.insert("content".into(), content);
        if !calls.is_empty() {
            fields.insert("tool_calls".into(), Value::from(calls));
        }
        messages.push(Value::Object(fields));
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Open {
    id: String,
    name: String,
    arguments: String,
}

/// Reads the stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    text: String,
    calls: BTreeMap<u64, Open>,
    reason: Option<Reason>,
    usage: Usage,
}

impl Decoder for Stream {
    fn event(&mut self, data: &Value, out: &mut Vec<Streamed>) -> Result<(), StreamError> {
        if let Some(error) = data.get("error").filter(|error| !error.is_null()) {
            return Err(StreamError::said(error));
        }
        if !data.is_object() {
            return Err(StreamError::Malformed("a chunk that is not an object".into()));
        }
        if data["usage"].is_object() {
            self.usage.input_tokens = number_at(data, "/usage/prompt_tokens");
            self.usage.cached_tokens =
                number_at(data, "/usage/prompt_tokens_details/cached_tokens");
            self.usage.output_tokens = number_at(data, "/usage/completion_tokens");
        }
        let Some(choice) = data.pointer("/choices/0") else { return Ok(()) };
        let text = text_at(choice, "/delta/content");
        if !text.is_empty() {
            self.text.push_str(text);
            out.push(Streamed::Text(text.to_owned()));
        }
        let thought = text_at(choice, "/delta/reasoning_content");
        if !thought.is_empty() {
            out.push(Streamed::Thought(thought.to_owned()));
        }
        for part in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            let open = self.calls.entry(number_at(part, "/index")).or_default();
            open.id.push_str(text_at(part, "/id"));
            open.name.push_str(text_at(part, "/function/name"));
            open.arguments.push_str(text_at(part, "/function/arguments"));
        }
        match text_at(choice, "/finish_reason") {
            "" => {}
            "length" => self.reason = Some(Reason::Length),
            "content_filter" => self.reason = Some(Reason::Refused("content_filter".into())),
            _ => self.reason = Some(Reason::Done),
        }
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.reason.is_some()
    }

    /// The usage comes after the end, and not from everybody.
    fn is_over(&self) -> bool {
        self.is_whole() && self.usage.output_tokens > 0
    }

    fn reply(self: Box<Self>) -> Reply {
        let calls = self.calls.into_values().enumerate();
        let pieces = calls
            .map(|(at, open)| call(&open.id, at, &open.name, parse_input(&open.arguments), ""))
            .collect();
        let reason = self.reason.unwrap_or(Reason::Done);
        Reply { text: self.text, pieces, reason, usage: self.usage }
    }
}
