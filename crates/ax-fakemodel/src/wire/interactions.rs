//! Gemini Interactions: `POST …/interactions`, and stored interactions under their identifier.

use super::{Frame, Stage};
use crate::answer::{Answer, CREATED_AT, Part, SIGNATURE};
use crate::ask::{Item, Role, str_of, text_of};
use crate::script::Outcome;
use serde_json::{Value, json};

pub(super) fn items(body: &Value) -> Vec<Item> {
    let mut items = Vec::new();
    if let Some(system) = body.get("system_instruction") {
        items.push(Item::new(Role::System, text_of(system)));
    }
    match &body["input"] {
        Value::Array(steps) => items.extend(steps.iter().map(item)),
        Value::Null => {}
        one => items.push(item(one)),
    }
    items
}

/// An item of the input: a step, a content, a plain text, or a turn with a role.
fn item(step: &Value) -> Item {
    let role = match (str_of(step, "type"), str_of(step, "role")) {
        (kind, _) if kind.ends_with("_result") => Role::Tool,
        (kind, _) if kind.ends_with("_call") => Role::Assistant,
        ("model_output" | "thought", _) | (_, "model") => Role::Assistant,
        _ => Role::User,
    };
    let text = match text_of(step) {
        // A function's result may be an object of any form.
        text if text.is_empty() && step.get("result").is_some() => step["result"].to_string(),
        text => text,
    };
    Item::new(role, text)
}

pub(super) fn whole(answer: &Answer, stage: Stage) -> Value {
    let status = match stage {
        Stage::Done => done(answer),
        Stage::InProgress => "in_progress",
        Stage::Canceled => "cancelled",
    };
    let mut whole = interaction(answer, status);
    if stage == Stage::Done {
        let steps = answer.parts.iter().enumerate().map(|(index, part)| step(answer, index, part));
        whole["steps"] = steps.collect();
    }
    if let Some(previous) = answer.body.get("previous_interaction_id") {
        whole["previous_interaction_id"] = previous.clone();
    }
    whole
}

pub(super) fn frames(answer: &Answer) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut push = |kind: &str, fields: Value| {
        let number = frames.len() + 1;
        frames.push(event(kind, fields, number));
    };
    push("interaction.created", json!({"interaction": interaction(answer, "in_progress")}));
    let id = answer.id("int_", 0);
    let status = json!({"interaction_id": id, "status": "in_progress"});
    push("interaction.status_update", status);
    for (index, part) in answer.parts.iter().enumerate() {
        let (begun, deltas) = streamed(answer, index, part);
        push("step.start", json!({"index": index, "step": begun}));
        for delta in deltas {
            push("step.delta", json!({"index": index, "delta": delta}));
        }
        push("step.stop", json!({"index": index}));
    }
    if let Some(error) = error(answer) {
        push("error", json!({"error": error}));
    }
    push("interaction.completed", json!({"interaction": interaction(answer, done(answer))}));
    frames.push(Frame { bytes: "event: done\ndata: [DONE]\n\n".into() });
    frames
}

pub(super) fn canceled(answer: &Answer, sent: usize) -> Frame {
    let interaction = interaction(answer, "cancelled");
    event("interaction.completed", json!({"interaction": interaction}), sent + 1)
}

/// How a step begins, and what is added to it.
fn streamed(answer: &Answer, index: usize, part: &Part) -> (Value, Vec<Value>) {
    match part {
        Part::Thought(text) => {
            let summary = |text| json!({"type": "thought_summary", "content": content(text)});
            let deltas = answer.chunks(text).into_iter().map(summary);
            let signature = json!({"type": "thought_signature", "signature": SIGNATURE});
            (json!({"type": "thought"}), deltas.chain([signature]).collect())
        }
        Part::Text(text) => {
            let deltas = answer.chunks(text).into_iter();
            let deltas = deltas.map(|text| json!({"type": "text", "text": text}));
            (json!({"type": "model_output"}), deltas.collect())
        }
        Part::Call { arguments, .. } => {
            let mut begun = step(answer, index, part);
            begun["arguments"] = json!({});
            let deltas = answer.chunks(&arguments.to_string()).into_iter();
            let deltas = deltas.map(|json| json!({"type": "arguments_delta", "arguments": json}));
            (begun, deltas.collect())
        }
    }
}

fn content(text: String) -> Value {
    json!({"type": "text", "text": text})
}

fn step(answer: &Answer, index: usize, part: &Part) -> Value {
    match part {
        Part::Thought(text) => {
            json!({"type": "thought", "summary": [content(text.clone())], "signature": SIGNATURE})
        }
        Part::Text(text) => json!({"type": "model_output", "content": [content(text.clone())]}),
        Part::Call { tool, arguments, .. } => json!({"type": "function_call",
            "id": answer.call_id("call_", index), "name": tool, "arguments": arguments}),
    }
}

/// Events count from 1, and the identifier is the cursor of a resumed stream.
fn event(kind: &str, mut fields: Value, number: usize) -> Frame {
    fields["event_type"] = kind.into();
    fields["event_id"] = format!("e-{number}").into();
    Frame::named(kind, &fields)
}

/// What went wrong, if the answer fails.
fn error(answer: &Answer) -> Option<Value> {
    let failed = answer.outcome == Some(Outcome::Failed);
    failed.then(|| json!({"code": "internal", "message": "failed on demand"}))
}

fn done(answer: &Answer) -> &'static str {
    if let Some(outcome) = answer.outcome {
        return outcome.word();
    }
    if answer.has_calls() { "requires_action" } else { "completed" }
}

fn interaction(answer: &Answer, status: &str) -> Value {
    let usage = &answer.usage;
    let mut interaction = json!({
        "id": answer.id("int_", 0),
        "object": "interaction",
        "status": status,
        "created": CREATED_AT,
        "updated": CREATED_AT,
        "steps": [],
    });
    let named = if answer.body.get("agent").is_some() { "agent" } else { "model" };
    interaction[named] = answer.ask.model.clone().into();
    if status == done(answer) {
        if let Some(error) = error(answer) {
            interaction["errors"] = json!([error]);
        }
        interaction["usage"] = json!({
            "total_input_tokens": usage.input_tokens,
            "total_output_tokens": usage.output_tokens,
            "total_cached_tokens": usage.cached_tokens,
            "total_thought_tokens": 0,
            "total_tool_use_tokens": 0,
            "total_tokens": usage.input_tokens + usage.output_tokens,
        });
    }
    interaction
}
