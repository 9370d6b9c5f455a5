//! Anthropic Messages: `POST /v1/messages`.

use super::Frame;
use crate::answer::{Answer, Part, SIGNATURE};
use crate::ask::{Item, Role, list_of, str_of, text_of};
use serde_json::{Value, json};

pub(super) fn items(body: &Value) -> Vec<Item> {
    let mut items = Vec::new();
    if let Some(system) = body.get("system") {
        items.push(Item::new(Role::System, text_of(system)));
    }
    for message in list_of(body, "messages") {
        let content = &message["content"];
        match (str_of(message, "role"), content) {
            ("assistant", content) => items.push(Item::new(Role::Assistant, text_of(content))),
            ("system", content) => items.push(Item::new(Role::System, text_of(content))),
            (_, Value::Array(blocks)) => items.extend(blocks.iter().map(|block| {
                let result = str_of(block, "type").ends_with("tool_result");
                Item::new(if result { Role::Tool } else { Role::User }, text_of(block))
            })),
            (_, content) => items.push(Item::new(Role::User, text_of(content))),
        }
    }
    items
}

pub(super) fn whole(answer: &Answer) -> Value {
    let block = |(index, part): (usize, &Part)| match part {
        Part::Thought(text) => {
            json!({"type": "thinking", "thinking": text, "signature": SIGNATURE})
        }
        Part::Text(text) => json!({"type": "text", "text": text}),
        Part::Call { tool, arguments, .. } => json!({"type": "tool_use",
            "id": answer.call_id("toolu_", index), "name": tool, "input": arguments}),
    };
    let content: Vec<Value> = answer.parts.iter().enumerate().map(block).collect();
    message(answer, content, Some(stop_reason(answer)), answer.usage.output_tokens)
}

pub(super) fn frames(answer: &Answer) -> Vec<Frame> {
    let event = |kind: &str, mut fields: Value| {
        fields["type"] = kind.into();
        Frame::named(kind, &fields)
    };
    let start = message(answer, Vec::new(), None, 1);
    let mut frames = vec![event("message_start", json!({"message": start}))];
    frames.push(event("ping", json!({})));
    for (index, part) in answer.parts.iter().enumerate() {
        let (block, deltas) = block(answer, index, part);
        let fields = json!({"index": index, "content_block": block});
        frames.push(event("content_block_start", fields));
        let deltas = deltas.into_iter().map(|delta| json!({"index": index, "delta": delta}));
        frames.extend(deltas.map(|fields| event("content_block_delta", fields)));
        frames.push(event("content_block_stop", json!({"index": index})));
    }
    let delta = json!({"stop_reason": stop_reason(answer), "stop_sequence": null});
    let usage = json!({"output_tokens": answer.usage.output_tokens});
    frames.push(event("message_delta", json!({"delta": delta, "usage": usage})));
    frames.push(event("message_stop", json!({})));
    frames
}

/// How a block begins, and what is added to it.
fn block(answer: &Answer, index: usize, part: &Part) -> (Value, Vec<Value>) {
    match part {
        Part::Thought(text) => {
            let deltas = answer.chunks(text).into_iter();
            let deltas = deltas.map(|text| json!({"type": "thinking_delta", "thinking": text}));
            let signature = json!({"type": "signature_delta", "signature": SIGNATURE});
            let block = json!({"type": "thinking", "thinking": "", "signature": ""});
            (block, deltas.chain([signature]).collect())
        }
        Part::Text(text) => {
            let deltas = answer.chunks(text).into_iter();
            let deltas = deltas.map(|text| json!({"type": "text_delta", "text": text}));
            (json!({"type": "text", "text": ""}), deltas.collect())
        }
        Part::Call { tool, arguments, .. } => {
            let id = answer.call_id("toolu_", index);
            let deltas = answer.chunks(&arguments.to_string()).into_iter();
            let deltas =
                deltas.map(|json| json!({"type": "input_json_delta", "partial_json": json}));
            (json!({"type": "tool_use", "id": id, "name": tool, "input": {}}), deltas.collect())
        }
    }
}

fn message(answer: &Answer, content: Vec<Value>, stop: Option<&str>, output: u64) -> Value {
    let usage = &answer.usage;
    json!({
        "id": answer.id("msg_", 0),
        "type": "message",
        "role": "assistant",
        "model": answer.ask.model,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": null,
        "usage": {
            "input_tokens": usage.input_tokens.saturating_sub(usage.cached_tokens),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": usage.cached_tokens,
            "output_tokens": output,
        },
    })
}

fn stop_reason(answer: &Answer) -> &'static str {
    if answer.has_calls() { "tool_use" } else { "end_turn" }
}

pub(super) fn error(status: u16, message: &str) -> Value {
    let kind = match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        _ => "api_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": message}})
}
