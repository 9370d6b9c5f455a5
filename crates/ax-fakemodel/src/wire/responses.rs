//! OpenAI Responses: `POST /v1/responses`, and stored responses under their identifier.

use super::{Frame, Stage};
use crate::answer::{Answer, CREATED_AT_SECONDS, Part};
use crate::ask::{Item, Role, list_of, str_of, text_of};
use serde_json::{Value, json};

pub(super) fn items(body: &Value) -> Vec<Item> {
    let mut items = Vec::new();
    if let Some(instructions) = body.get("instructions") {
        items.push(Item::new(Role::System, text_of(instructions)));
    }
    if let Some(text) = body["input"].as_str() {
        items.push(Item::new(Role::User, text));
    }
    items.extend(list_of(body, "input").map(|item| {
        let role = match (str_of(item, "type"), str_of(item, "role")) {
            (kind, _) if kind.ends_with("_output") => Role::Tool,
            (kind, _) if kind.ends_with("_call") || kind == "reasoning" => Role::Assistant,
            (_, "assistant") => Role::Assistant,
            (_, "system" | "developer") => Role::System,
            _ => Role::User,
        };
        Item::new(role, text_of(item))
    }));
    items
}

pub(super) fn whole(answer: &Answer, stage: Stage) -> Value {
    let (status, output) = match stage {
        Stage::Done => ("completed", outputs(answer)),
        Stage::InProgress => ("in_progress", Vec::new()),
        Stage::Canceled => ("cancelled", Vec::new()),
    };
    response(answer, status, output)
}

pub(super) fn frames(answer: &Answer) -> Vec<Frame> {
    let mut events = Events { frames: Vec::new() };
    for kind in ["response.created", "response.in_progress"] {
        let response = response(answer, "in_progress", Vec::new());
        events.push(kind, json!({"response": response}));
    }
    for (index, (part, item)) in answer.parts.iter().zip(outputs(answer)).enumerate() {
        let mut begun = item.clone();
        begun["status"] = "in_progress".into();
        let id = item["id"].clone();
        let at = json!({"output_index": index, "item_id": id});
        let (text, kind, name) = match part {
            Part::Thought(text) => (text.clone(), "response.reasoning_summary_text", "text"),
            Part::Text(text) => (text.clone(), "response.output_text", "text"),
            Part::Call { arguments, .. } => {
                (arguments.to_string(), "response.function_call_arguments", "arguments")
            }
        };
        for hidden in ["content", "summary"].iter().filter(|key| item.get(**key).is_some()) {
            begun[*hidden] = json!([]);
        }
        if item.get("arguments").is_some() {
            begun["arguments"] = "".into();
        }
        events.push("response.output_item.added", json!({"output_index": index, "item": begun}));
        let within = within(part);
        if let Some((added, done)) = within.parts {
            events.push(added, with(&at, &[&within.index, &json!({"part": part_of(part, "")})]));
            events.text(answer, kind, name, &text, &with(&at, &[&within.index]));
            events.push(done, with(&at, &[&within.index, &json!({"part": part_of(part, &text)})]));
        } else {
            let name_of_tool = json!({"name": item["name"]});
            events.text(answer, kind, name, &text, &with(&at, &[&name_of_tool]));
        }
        events.push("response.output_item.done", json!({"output_index": index, "item": item}));
    }
    let response = response(answer, "completed", outputs(answer));
    events.push("response.completed", json!({"response": response}));
    events.frames
}

pub(super) fn canceled(answer: &Answer, sent: usize) -> Frame {
    let response = response(answer, "cancelled", Vec::new());
    event("response.incomplete", json!({"response": response}), sent)
}

/// The events of a stream so far.
struct Events {
    frames: Vec<Frame>,
}

impl Events {
    fn push(&mut self, kind: &str, fields: Value) {
        let number = self.frames.len();
        self.frames.push(event(kind, fields, number));
    }

    /// A text in pieces, and then as a whole.
    fn text(&mut self, answer: &Answer, kind: &str, name: &str, text: &str, at: &Value) {
        let logprobs = json!({"logprobs": []});
        let is_output = kind == "response.output_text";
        let more = if is_output { logprobs } else { json!({}) };
        for piece in answer.chunks(text) {
            let fields = with(at, &[&json!({"delta": piece}), &more]);
            self.push(&format!("{kind}.delta"), fields);
        }
        self.push(&format!("{kind}.done"), with(at, &[&json!({name: text}), &more]));
    }
}

/// Where the text of a part stands within its item.
struct Within {
    index: Value,
    parts: Option<(&'static str, &'static str)>,
}

fn within(part: &Part) -> Within {
    match part {
        Part::Thought(_) => Within {
            index: json!({"summary_index": 0}),
            parts: Some((
                "response.reasoning_summary_part.added",
                "response.reasoning_summary_part.done",
            )),
        },
        Part::Text(_) => Within {
            index: json!({"content_index": 0}),
            parts: Some(("response.content_part.added", "response.content_part.done")),
        },
        Part::Call { .. } => Within { index: json!({}), parts: None },
    }
}

fn part_of(part: &Part, text: &str) -> Value {
    match part {
        Part::Thought(_) => json!({"type": "summary_text", "text": text}),
        _ => json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []}),
    }
}

fn with(fields: &Value, more: &[&Value]) -> Value {
    let mut all = fields.clone();
    for (key, value) in more.iter().filter_map(|more| more.as_object()).flatten() {
        all[key] = value.clone();
    }
    all
}

/// Events count from 0, and the number is the cursor of a resumed stream.
fn event(kind: &str, mut fields: Value, number: usize) -> Frame {
    fields["type"] = kind.into();
    fields["sequence_number"] = number.into();
    Frame::named(kind, &fields)
}

fn outputs(answer: &Answer) -> Vec<Value> {
    let output = |(index, part): (usize, &Part)| match part {
        Part::Thought(text) => json!({"type": "reasoning", "id": answer.id("rs_", index),
            "summary": [part_of(part, text)], "encrypted_content": null}),
        Part::Text(text) => json!({"type": "message", "id": answer.id("msg_", index),
            "status": "completed", "role": "assistant", "content": [part_of(part, text)]}),
        Part::Call { tool, arguments, .. } => {
            let mut call = json!({"type": "function_call", "id": answer.id("fc_", index),
                "call_id": answer.call_id("call_", index), "status": "completed", "name": tool,
                "arguments": arguments.to_string()});
            if let Some((namespace, name)) = within_namespace(&answer.body, tool) {
                call["namespace"] = namespace.into();
                call["name"] = name.into();
            }
            call
        }
    };
    answer.parts.iter().enumerate().map(output).collect()
}

/// Takes `NAMESPACE__TOOL` apart, if the request offers a namespace of this name.
fn within_namespace<'a>(body: &'a Value, tool: &'a str) -> Option<(&'a str, &'a str)> {
    let namespaces = list_of(body, "tools").filter(|tool| str_of(tool, "type") == "namespace");
    namespaces
        .map(|namespace| str_of(namespace, "name"))
        .find_map(|name| Some((name, tool.strip_prefix(name)?.strip_prefix("__")?)))
}

fn response(answer: &Answer, status: &str, output: Vec<Value>) -> Value {
    let usage = &answer.usage;
    let usage = json!({
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    });
    let body = &answer.body;
    let or = |key: &str, other: Value| body.get(key).cloned().unwrap_or(other);
    json!({
        "id": answer.id("resp_", 0),
        "object": "response",
        "created_at": CREATED_AT_SECONDS,
        "status": status,
        "background": or("background", false.into()),
        "error": null,
        "incomplete_details": null,
        "instructions": or("instructions", Value::Null),
        "max_output_tokens": null,
        "metadata": or("metadata", json!({})),
        "model": answer.ask.model,
        "output": output,
        "parallel_tool_calls": or("parallel_tool_calls", true.into()),
        "previous_response_id": or("previous_response_id", Value::Null),
        "store": or("store", true.into()),
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": or("tool_choice", "auto".into()),
        "tools": or("tools", json!([])),
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": if status == "completed" { usage } else { Value::Null },
    })
}
