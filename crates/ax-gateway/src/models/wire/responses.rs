//! OpenAI Responses (`POST …/responses`).

use super::chat::IGNORED;
use super::{Reading, Turn, number, params, tagged, take_tools};
use serde_json::{Map, Value, json};

pub(super) fn parts(mut body: Map<String, Value>) -> Vec<Value> {
    let (instructions, tools) = (body.remove("instructions"), take_tools(&mut body));
    let input = body.remove("input");
    let mut parts = vec![params(body, &IGNORED)];
    let instructions = instructions.filter(|text| !text.is_null());
    parts.extend(instructions.map(|text| tagged("instructions", text)));
    parts.extend(tools);
    match input {
        Some(Value::String(text)) => parts.push(json!({"role": "user", "content": text})),
        Some(Value::Array(items)) => parts.extend(items),
        _ => {}
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
