//! OpenAI Chat Completions (`POST …/chat/completions`), which most other vendors speak too.

use super::{Reading, Turn, number, params, take_list, take_tools};
use serde_json::{Map, Value, json};

/// Fields that do not change the answer.
pub(super) const IGNORED: [&str; 7] = [
    "client_metadata",
    "metadata",
    "user",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
];

pub(super) fn parts(mut body: Map<String, Value>) -> Vec<Value> {
    let (tools, messages) = (take_tools(&mut body), take_list(&mut body, "messages"));
    let mut parts = vec![params(body, &IGNORED)];
    parts.extend(tools);
    parts.extend(messages);
    parts
}

pub(super) fn read(reading: &mut Reading, event: &Value) {
    usage(reading, &event["usage"]);
    let choice = &event["choices"][0];
    if let Some(reason) = choice["finish_reason"].as_str() {
        reading.stop = Some(reason.to_owned());
    }
    if let Some(message) = choice.get("message") {
        return reading.say(message.clone());
    }
    if let Some(text) = choice["delta"]["content"].as_str() {
        if reading.blocks.is_empty() {
            reading.open(json!({"role": "assistant", "content": ""}));
        }
        reading.append_to(0, "content", text);
    }
    for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
        if reading.blocks.is_empty() {
            reading.open(json!({"role": "assistant"}));
        }
        tool_call(&mut reading.blocks[0], call);
    }
}

/// Adds a piece of a call to the message.
fn tool_call(message: &mut Value, piece: &Value) {
    let at = usize::try_from(number(piece, "index")).unwrap_or(usize::MAX);
    if !message["tool_calls"].is_array() {
        message["tool_calls"] = json!([]);
    }
    let Some(calls) = message["tool_calls"].as_array_mut() else { return };
    if at == calls.len() {
        let call = json!({"id": piece["id"], "type": "function",
            "function": {"name": piece["function"]["name"], "arguments": ""}});
        calls.push(call);
    }
    if let Some(Value::String(arguments)) =
        calls.get_mut(at).map(|call| &mut call["function"]["arguments"])
        && let Some(more) = piece["function"]["arguments"].as_str()
    {
        arguments.push_str(more);
    }
}

/// The stream's last word is no event.
pub(super) fn done(reading: &mut Reading) {
    if let Some(message) = reading.blocks.pop() {
        reading.say(message);
    }
}

fn usage(reading: &mut Reading, usage: &Value) {
    reading.at_least(Turn {
        input: number(usage, "prompt_tokens"),
        cached: number(&usage["prompt_tokens_details"], "cached_tokens"),
        output: number(usage, "completion_tokens"),
    });
}

pub(super) fn error(status: u16, message: &str) -> Value {
    let (kind, code) = match status {
        401 => ("invalid_request_error", "invalid_api_key"),
        402 => ("insufficient_quota", "insufficient_quota"),
        403 => ("invalid_request_error", "permission_denied"),
        404 => ("invalid_request_error", "not_found"),
        429 => ("requests", "rate_limit_exceeded"),
        400..=499 => ("invalid_request_error", "invalid_request"),
        _ => ("server_error", "server_error"),
    };
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}
