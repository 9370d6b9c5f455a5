//! Gemini `generateContent` and `streamGenerateContent` (`v1beta`).

use super::{Reading, Turn, number, params, tagged, take_list, take_tools};
use serde_json::{Map, Value, json};

pub(super) fn parts(mut body: Map<String, Value>) -> Vec<Value> {
    let other = body.remove("system_instruction");
    let system = body.remove("systemInstruction").or(other);
    let (tools, contents) = (take_tools(&mut body), take_list(&mut body, "contents"));
    let mut parts = vec![params(body, &["labels", "sessionId"])];
    parts.extend(system.map(|system| tagged("system", system)));
    parts.extend(tools);
    parts.extend(contents);
    parts
}

/// The last piece says why it is the last.
pub(super) fn closes(event: &Value) -> bool {
    event["candidates"][0]["finishReason"].is_string()
        || event["promptFeedback"]["blockReason"].is_string()
}

pub(super) fn read(reading: &mut Reading, event: &Value) {
    let usage = &event["usageMetadata"];
    reading.at_least(Turn {
        input: number(usage, "promptTokenCount"),
        cached: number(usage, "cachedContentTokenCount"),
        output: number(usage, "candidatesTokenCount")
            .saturating_add(number(usage, "thoughtsTokenCount")),
    });
    let candidate = &event["candidates"][0];
    for part in candidate["content"]["parts"].as_array().into_iter().flatten() {
        reading.open(part.clone());
    }
    if let Some(reason) = candidate["finishReason"].as_str() {
        reading.stop = Some(reason.to_owned());
        let parts = std::mem::take(&mut reading.blocks);
        reading.say(json!({"role": "model", "parts": parts}));
    }
}

pub(super) fn error(status: u16, message: &str) -> Value {
    let word = match status {
        400 | 413 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        402 | 429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        _ => "INTERNAL",
    };
    json!({"error": {"code": status, "message": message, "status": word}})
}
