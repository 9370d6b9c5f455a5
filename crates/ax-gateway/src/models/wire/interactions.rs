//! Gemini Interactions (`POST …/interactions`).

use super::{Reading, Turn, list, number, tagged, take_params};
use serde_json::{Map, Value, json};

pub(super) fn parts(body: &Map<String, Value>) -> Vec<Value> {
    let mut parts = vec![take_params(body, &[], &["system_instruction", "tools", "input"])];
    parts.extend(body.get("system_instruction").map(|system| tagged("system", system)));
    parts.extend(list(body, "tools").map(|tool| tagged("tool", tool)));
    match body.get("input") {
        Some(Value::Array(items)) => parts.extend(items.iter().cloned()),
        Some(other) => parts.push(json!({"input": other})),
        None => {}
    }
    parts
}

pub(super) fn closes(event: &Value) -> bool {
    event["event_type"] == "interaction.completed"
}

pub(super) fn read(reading: &mut Reading, event: &Value) {
    let interaction = match event.get("interaction") {
        Some(interaction) if closes(event) => interaction,
        None if event.get("event_type").is_none() => event,
        _ => return,
    };
    let usage = &interaction["usage"];
    reading.at_least(Turn {
        input: number(usage, "total_input_tokens"),
        cached: number(usage, "total_cached_tokens"),
        output: number(usage, "total_output_tokens")
            .saturating_add(number(usage, "total_thought_tokens")),
    });
    reading.stop = interaction["status"].as_str().map(str::to_owned);
}
