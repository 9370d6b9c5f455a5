//! Gemini: `POST …/models/<model>:generateContent` and its stream.

use super::Frame;
use crate::answer::{Answer, Part, SIGNATURE};
use crate::ask::{Item, Role, list_of, str_of, text_of};
use serde_json::{Value, json};

pub(super) fn items(body: &Value) -> Vec<Item> {
    let mut items = Vec::new();
    let system = ["systemInstruction", "system_instruction"].iter().find_map(|key| body.get(*key));
    if let Some(system) = system {
        items.push(Item::new(Role::System, text_of(system)));
    }
    // A count may wrap the whole request.
    let body = body.get("generateContentRequest").unwrap_or(body);
    for content in list_of(body, "contents") {
        let said = str_of(content, "role") == "model";
        // Results are no speech, whatever role their content has.
        if said && !list_of(content, "parts").any(|part| result_of(part).is_some()) {
            items.push(Item::new(Role::Assistant, text_of(content)));
            continue;
        }
        items.extend(list_of(content, "parts").map(|part| match result_of(part) {
            Some(result) => Item::new(Role::Tool, result_text(&result["response"])),
            None if said => Item::new(Role::Assistant, text_of(part)),
            None => Item::new(Role::User, text_of(part)),
        }));
    }
    items
}

fn result_of(part: &Value) -> Option<&Value> {
    ["functionResponse", "function_response"].iter().find_map(|key| part.get(*key))
}

/// A result is an object of any form; its usual fields are taken out.
fn result_text(response: &Value) -> String {
    let inner = ["output", "result", "error"].iter().find_map(|key| response.get(*key));
    match inner.unwrap_or(response) {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub(super) fn whole(answer: &Answer) -> Value {
    let parts = answer.parts.iter().enumerate().map(|(index, p)| part(answer, index, p));
    response(answer, parts.collect(), true)
}

pub(super) fn frames(answer: &Answer) -> Vec<Frame> {
    let mut parts = Vec::new();
    for (index, whole) in answer.parts.iter().enumerate() {
        let pieces = |text: &str, of: fn(String) -> Part| -> Vec<Value> {
            answer.chunks(text).into_iter().map(|text| part(answer, index, &of(text))).collect()
        };
        match whole {
            Part::Thought(text) => parts.extend(pieces(text, Part::Thought)),
            Part::Text(text) => parts.extend(pieces(text, Part::Text)),
            Part::Call { .. } => parts.push(part(answer, index, whole)),
        }
    }
    if parts.is_empty() {
        parts.push(json!({"text": ""}));
    }
    let last = parts.len() - 1;
    let chunks = parts.into_iter().enumerate();
    let chunks = chunks.map(|(index, part)| response(answer, vec![part], index == last));
    chunks.map(|chunk| Frame::data(&chunk.to_string())).collect()
}

fn part(answer: &Answer, index: usize, part: &Part) -> Value {
    match part {
        Part::Thought(text) => json!({"text": text, "thought": true}),
        Part::Text(text) => json!({"text": text}),
        Part::Call { tool, arguments, .. } => {
            let id = answer.call_id("call_", index);
            let call = json!({"id": id, "name": tool, "args": arguments});
            json!({"functionCall": call, "thoughtSignature": SIGNATURE})
        }
    }
}

fn response(answer: &Answer, parts: Vec<Value>, last: bool) -> Value {
    let usage = &answer.usage;
    let mut candidate = json!({"content": {"role": "model", "parts": parts}, "index": 0});
    let mut metadata = json!({"promptTokenCount": usage.input_tokens,
        "totalTokenCount": usage.input_tokens});
    if last {
        candidate["finishReason"] = "STOP".into();
        metadata["candidatesTokenCount"] = usage.output_tokens.into();
        metadata["totalTokenCount"] = (usage.input_tokens + usage.output_tokens).into();
    }
    if usage.cached_tokens > 0 {
        metadata["cachedContentTokenCount"] = usage.cached_tokens.into();
    }
    json!({
        "candidates": [candidate],
        "usageMetadata": metadata,
        "modelVersion": answer.ask.model,
        "responseId": answer.id("", 0),
    })
}

/// The errors of both of Gemini's formats.
pub(super) fn error(status: u16, message: &str) -> Value {
    let name = match status {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "INTERNAL",
    };
    json!({"error": {"code": status, "message": message, "status": name}})
}
