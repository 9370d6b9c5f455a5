//! Gemini Interactions (`POST …/interactions`).

use super::{Reading, Turn, number, params, tagged, take_tools};
use serde_json::{Map, Value};

pub(super) fn parts(mut body: Map<String, Value>) -> Vec<Value> {
    let (system, tools) = (body.remove("system_instruction"), take_tools(&mut body));
    let input = body.remove("input");
    let mut parts = vec![params(body, &[])];
    parts.extend(system.map(|system| tagged("system", system)));
    parts.extend(tools);
    match input {
        Some(Value::Array(items)) => parts.extend(items),
        Some(other) => parts.push(tagged("input", other)),
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
