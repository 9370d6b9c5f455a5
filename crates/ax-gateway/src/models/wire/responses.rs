//! OpenAI Responses (`POST …/responses`).

use super::chat::IGNORED;
use super::{Reading, Turn, list, number, tagged, take_params};
use serde_json::{Map, Value, json};

pub(super) fn parts(body: &Map<String, Value>) -> Vec<Value> {
    let mut parts = vec![take_params(body, &IGNORED, &["instructions", "tools", "input"])];
    let instructions = body.get("instructions").filter(|text| !text.is_null());
    parts.extend(instructions.map(|text| tagged("instructions", text)));
    parts.extend(list(body, "tools").map(|tool| tagged("tool", tool)));
    match body.get("input") {
        Some(Value::String(text)) => parts.push(json!({"role": "user", "content": text})),
        _ => parts.extend(list(body, "input").cloned()),
    }
    parts
}

pub(super) fn closes(event: &Value) -> bool {
    let last = ["response.completed", "response.incomplete", "response.failed"];
    event["type"].as_str().is_some_and(|kind| last.contains(&kind))
}

pub(super) fn read(reading: &mut Reading, event: &Value) {
    let response = match event.get("response") {
        Some(response) if closes(event) => response,
        // The whole of an answer that was not streamed.
        None if event["object"] == "response" => event,
        _ => return,
    };
    let usage = &response["usage"];
    reading.at_least(Turn {
        input: number(usage, "input_tokens"),
        cached: number(&usage["input_tokens_details"], "cached_tokens"),
        output: number(usage, "output_tokens"),
    });
    reading.stop = response["status"].as_str().map(str::to_owned);
    for item in response["output"].as_array().into_iter().flatten() {
        reading.say(item.clone());
    }
}
