//! Anthropic Messages (`POST /v1/messages`, API version 2023-06-01).

use super::{Reading, Turn, number, params, tagged, take_list, take_tools};
use serde_json::{Map, Value, json};

/// Fields that do not change the answer.
const IGNORED: [&str; 2] = ["metadata", "service_tier"];

pub(super) fn parts(mut body: Map<String, Value>) -> Vec<Value> {
    let (system, tools) = (body.remove("system"), take_tools(&mut body));
    let messages = take_list(&mut body, "messages");
    let mut parts = vec![params(body, &IGNORED)];
    parts.extend(system.map(|system| tagged("system", blocks(system))));
    parts.extend(tools);
    parts.extend(messages.into_iter().map(message));
    parts
}

/// A message whose text is a list of blocks, as it may also be written.
fn message(mut message: Value) -> Value {
    if let Some(content) = message.get_mut("content") {
        *content = blocks(content.take());
    }
    message
}

fn blocks(content: Value) -> Value {
    match content {
        Value::String(text) => {
            let mut block = json!({"type": "text"});
            block["text"] = Value::String(text);
            Value::Array(vec![block])
        }
        other => other,
    }
}

pub(super) fn closes(event: &Value) -> bool {
    event["type"] == "message_stop"
}

pub(super) fn read(reading: &mut Reading, event: &Value) {
    match event["type"].as_str() {
        // The whole of an answer that was not streamed.
        Some("message") => {
            usage(reading, &event["usage"]);
            reading.say(json!({"role": "assistant", "content": event["content"]}));
            reading.stop = event["stop_reason"].as_str().map(str::to_owned);
        }
        Some("message_start") => usage(reading, &event["message"]["usage"]),
        Some("content_block_start") => reading.open(event["content_block"].clone()),
        Some("content_block_delta") => delta(reading, &event["delta"]),
        Some("content_block_stop") => block_ended(reading),
        Some("message_delta") => {
            usage(reading, &event["usage"]);
            reading.stop = event["delta"]["stop_reason"].as_str().map(str::to_owned);
        }
        Some("message_stop") => {
            let content = std::mem::take(&mut reading.blocks);
            reading.say(json!({"role": "assistant", "content": content}));
        }
        _ => {}
    }
}

fn usage(reading: &mut Reading, usage: &Value) {
    let cached = number(usage, "cache_read_input_tokens");
    let created = number(usage, "cache_creation_input_tokens");
    // The figures are totals; not all of them come every time.
    reading.at_least(Turn {
        input: number(usage, "input_tokens").saturating_add(created).saturating_add(cached),
        cached,
        output: number(usage, "output_tokens"),
    });
}

fn delta(reading: &mut Reading, delta: &Value) {
    for (field, into) in [
        ("text", "text"),
        ("thinking", "thinking"),
        ("signature", "signature"),
        ("partial_json", "input_json"),
    ] {
        if let Some(text) = delta[field].as_str() {
            reading.append(into, text);
        }
    }
}

fn block_ended(reading: &mut Reading) {
    let Some(Value::Object(block)) = reading.blocks.last_mut() else { return };
    if let Some(Value::String(input)) = block.remove("input_json")
        && let Ok(input) = serde_json::from_str(&input)
    {
        drop(block.insert("input".into(), input));
    }
}

pub(super) fn error(status: u16, message: &str) -> Value {
    let kind = match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        _ => "api_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": message}})
}
