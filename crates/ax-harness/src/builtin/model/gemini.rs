//! Gemini `generateContent` (`POST /v1beta/models/{model}:streamGenerateContent?alt=sse`).

use super::{
    Decoder, OWN_ID, Reason, Reply, Request, StreamError, Streamed, base64_of, call, number_at,
    object, text_at,
};
use crate::builtin::config::Model;
use crate::builtin::talk::{Piece, Talk};
use crate::launch::Role;
use ax_core::session::Usage;
use serde_json::{Value, json};
use std::io;

pub(super) fn request(model: &Model, talk: &Talk) -> io::Result<Request> {
    let mut contents = Vec::new();
    for message in &talk.messages {
        let parts: io::Result<Vec<Value>> = message.pieces.iter().map(part).collect();
        let role = if message.role == Role::User { "user" } else { "model" };
        contents.push(json!({"role": role, "parts": parts?}));
    }
    let tools: Vec<Value> = talk
        .tools
        .iter()
        .map(|tool| {
            json!({
                "name": tool["name"], "description": tool["description"],
                "parametersJsonSchema": tool["input"],
            })
        })
        .collect();
    let config = object([
        ("maxOutputTokens", json!(model.max_tokens)),
        ("temperature", json!(model.temperature)),
    ]);
    let system = json!({"parts": [{"text": talk.system}]});
    let tools =
        if tools.is_empty() { Value::Null } else { json!([{"functionDeclarations": tools}]) };
    let body = object([
        ("systemInstruction", if talk.system.is_empty() { Value::Null } else { system }),
        ("contents", json!(contents)),
        ("tools", tools),
        ("generationConfig", Value::Object(config)),
    ]);
    let path = format!("/v1beta/models/{}:streamGenerateContent?alt=sse", model.name);
    Ok(Request { path, body })
}

fn part(piece: &Piece) -> io::Result<Value> {
    // The vendor does not know the ids that we gave.
    let given = |id: &str| if id.starts_with(OWN_ID) { Value::Null } else { json!(id) };
    Ok(match piece {
        Piece::Text(text) => json!({"text": text}),
        Piece::File { media_type, path, .. } => {
            json!({"inlineData": {"mimeType": media_type, "data": base64_of(path)?}})
        }
        Piece::Call(call) => {
            let args = if call.input.is_object() { call.input.clone() } else { json!({}) };
            let function =
                object([("name", json!(call.name)), ("args", args), ("id", given(&call.id))]);
            let mut part = object([("functionCall", Value::Object(function))]);
            if !call.signature.is_empty() {
                part.insert("thoughtSignature".into(), json!(call.signature));
            }
            Value::Object(part)
        }
        Piece::Result { id, name, text, error } => {
            let field = if *error { "error" } else { "output" };
            let response = object([
                ("name", json!(name)),
                ("id", given(id)),
                ("response", json!({field: text})),
            ]);
            json!({"functionResponse": response})
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
}

impl Decoder for Stream {
    fn event(&mut self, data: &Value, out: &mut Vec<Streamed>) -> Result<(), StreamError> {
        if let Some(error) = data.get("error") {
            return Err(StreamError::said(error));
        }
        if !data.is_object() {
            return Err(StreamError::Malformed("a chunk that is not an object".into()));
        }
        if data["usageMetadata"].is_object() {
            self.usage.input_tokens = number_at(data, "/usageMetadata/promptTokenCount");
            self.usage.cached_tokens = number_at(data, "/usageMetadata/cachedContentTokenCount");
            self.usage.output_tokens = number_at(data, "/usageMetadata/candidatesTokenCount")
                + number_at(data, "/usageMetadata/thoughtsTokenCount");
        }
        let blocked = text_at(data, "/promptFeedback/blockReason");
        if !blocked.is_empty() {
            self.reason = Some(Reason::Refused(blocked.to_owned()));
        }
        let Some(candidate) = data.pointer("/candidates/0") else { return Ok(()) };
        for part in candidate["content"]["parts"].as_array().into_iter().flatten() {
            self.part(part, out);
        }
        match text_at(candidate, "/finishReason") {
            "" => {}
            "STOP" => self.reason = Some(Reason::Done),
            "MAX_TOKENS" => self.reason = Some(Reason::Length),
            "MALFORMED_FUNCTION_CALL" => {
                let message = "the model called a tool in a way that cannot be read";
                return Err(StreamError::Said(message.into(), true));
            }
            other => self.reason = Some(Reason::Refused(other.to_owned())),
        }
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.reason.is_some()
    }

    fn reply(self: Box<Self>) -> Reply {
        let reason = self.reason.unwrap_or(Reason::Done);
        Reply { text: self.text, pieces: self.pieces, reason, usage: self.usage }
    }
}

impl Stream {
    fn part(&mut self, part: &Value, out: &mut Vec<Streamed>) {
        if let Some(function) = part.get("functionCall") {
            let args = function.get("args").cloned().unwrap_or_else(|| json!({}));
            let (id, at) = (text_at(function, "/id"), self.pieces.len());
            let signature = text_at(part, "/thoughtSignature");
            self.pieces.push(call(id, at, text_at(function, "/name"), args, signature));
            return;
        }
        let text = text_at(part, "/text");
        if text.is_empty() {
            return;
        }
        if part["thought"] == true {
            out.push(Streamed::Thought(text.to_owned()));
        } else {
            self.text.push_str(text);
            out.push(Streamed::Text(text.to_owned()));
        }
    }
}
