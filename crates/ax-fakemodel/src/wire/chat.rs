//! OpenAI Chat Completions: `POST /v1/chat/completions`.

use super::Frame;
use crate::answer::{Answer, CREATED_AT_SECONDS, Part};
use crate::ask::{Item, Role, list_of, str_of, text_of};
use serde_json::{Value, json};

pub(super) fn items(body: &Value) -> Vec<Item> {
    let item = |message: &Value| {
        let role = match str_of(message, "role") {
            "system" | "developer" => Role::System,
            "assistant" => Role::Assistant,
            "tool" | "function" => Role::Tool,
            _ => Role::User,
        };
        Item::new(role, text_of(&message["content"]))
    };
    list_of(body, "messages").map(item).collect()
}

pub(super) fn whole(answer: &Answer) -> Value {
    let calls: Vec<Value> = calls(answer)
        .map(|(id, tool, arguments)| {
            let function = json!({"name": tool, "arguments": arguments.to_string()});
            json!({"id": id, "type": "function", "function": function})
        })
        .collect();
    let text = answer.text();
    let content = if text.is_empty() { Value::Null } else { text.into() };
    let mut message = json!({"role": "assistant", "content": content, "refusal": null});
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    let choice = json!({"index": 0, "message": message, "logprobs": null,
        "finish_reason": finish_reason(answer)});
    let mut whole = head(answer, "chat.completion", vec![choice]);
    whole["usage"] = usage(answer);
    whole
}

pub(super) fn frames(answer: &Answer) -> Vec<Frame> {
    let chunk = |delta: Value, finish: Value| {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
        Frame::data(&head(answer, "chat.completion.chunk", vec![choice]).to_string())
    };
    let mut frames = vec![chunk(json!({"role": "assistant", "content": ""}), Value::Null)];
    for text in answer.chunks(&answer.text()) {
        frames.push(chunk(json!({"content": text}), Value::Null));
    }
    for (index, (id, tool, arguments)) in calls(answer).enumerate() {
        let function = json!({"name": tool, "arguments": ""});
        let call = json!({"index": index, "id": id, "type": "function", "function": function});
        frames.push(chunk(json!({"tool_calls": [call]}), Value::Null));
        for piece in answer.chunks(&arguments.to_string()) {
            let call = json!({"index": index, "function": {"arguments": piece}});
            frames.push(chunk(json!({"tool_calls": [call]}), Value::Null));
        }
    }
    frames.push(chunk(json!({}), finish_reason(answer).into()));
    if answer.body["stream_options"]["include_usage"] == true {
        let mut last = head(answer, "chat.completion.chunk", Vec::new());
        last["usage"] = usage(answer);
        frames.push(Frame::data(&last.to_string()));
    }
    frames.push(Frame::data("[DONE]"));
    frames
}

fn calls(answer: &Answer) -> impl Iterator<Item = (String, &str, &Value)> {
    answer.parts.iter().enumerate().filter_map(|(index, part)| match part {
        Part::Call { tool, arguments, .. } => {
            Some((answer.call_id("call_", index), tool.as_str(), arguments))
        }
        Part::Thought(_) | Part::Text(_) => None,
    })
}

fn head(answer: &Answer, object: &str, choices: Vec<Value>) -> Value {
    json!({
        "id": answer.id("chatcmpl-", 0),
        "object": object,
        "created": CREATED_AT_SECONDS,
        "model": answer.ask.model,
        "system_fingerprint": "fp_fake",
        "choices": choices,
    })
}

fn usage(answer: &Answer) -> Value {
    let usage = &answer.usage;
    json!({
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": 0},
    })
}

fn finish_reason(answer: &Answer) -> &'static str {
    if answer.has_calls() { "tool_calls" } else { "stop" }
}

/// The errors of both of OpenAI's formats.
pub(super) fn error(status: u16, message: &str) -> Value {
    let kind = match status {
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    };
    json!({"error": {"message": message, "type": kind, "param": null, "code": null}})
}
