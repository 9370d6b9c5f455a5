//! What the provider is asked.

use super::config::Config;
use super::failure;
use crate::launch::{Content, Launch};
use ax_core::session::{Digest, Failure, PartKind};
use ax_gateway::canonical;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

/// The largest content that is sent, in bytes.
const CONTENT_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// What the media type of a part ends in whose text is the content in base64.
const BASE64: &str = ";base64";

/// A request for an interaction.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// What is said: contents, or results of functions.
    pub(super) input: Vec<Value>,
    /// The interaction that it goes on from.
    pub(super) previous: Option<String>,
}

impl Request {
    /// Returns the name of the request: the same for whoever asks the same.
    pub(super) fn digest(&self, config: &Config) -> Digest {
        let (kind, name) = config.who();
        canonical::hash(&json!({kind: name, "input": self.input, "previous": self.previous}))
    }

    /// Returns the body. `tools` are those of tool servers.
    pub(super) fn body(&self, config: &Config, tools: &[Value]) -> Value {
        let (kind, name) = config.who();
        let mut body = Value::Object(config.extra.clone());
        body[kind] = name.into();
        body["input"] = self.input.clone().into();
        // What is not stored cannot be followed, nor gone on from.
        body["store"] = true.into();
        body["stream"] = true.into();
        if config.background {
            body["background"] = true.into();
        }
        if let Some(previous) = &self.previous {
            body["previous_interaction_id"] = previous.as_str().into();
        }
        if !config.system.is_empty() {
            body["system_instruction"] = config.system.as_str().into();
        }
        let functions = tools.iter().map(|tool| {
            json!({"type": "function", "name": tool["name"],
                "description": tool["description"], "parameters": tool["input"]})
        });
        let tools: Vec<Value> = config.tools.iter().cloned().chain(functions).collect();
        if !tools.is_empty() {
            body["tools"] = tools.into();
        }
        body
    }
}

/// Returns the input of an execution, as the provider takes it.
pub(super) fn input(launch: &Launch) -> Result<Vec<Value>, Failure> {
    launch.input.iter().map(content).collect()
}

/// Returns a content of text.
pub(super) fn text(text: impl Into<String>) -> Value {
    json!({"type": "text", "text": text.into()})
}

/// Returns what a function returned.
pub(super) fn result(call: &Value, said: &str, error: bool) -> Value {
    let mut result = json!({"type": "function_result", "call_id": call["id"],
        "name": call["name"], "result": said});
    if error {
        result["is_error"] = true.into();
    }
    result
}

fn content(part: &Content) -> Result<Value, Failure> {
    let kind = match part.kind {
        PartKind::Image => "image",
        PartKind::Audio => "audio",
        PartKind::Video => "video",
        PartKind::Document if part.media_type == "application/pdf" => "document",
        _ => return Ok(text(named(part, words(part)?))),
    };
    let (media_type, data) = match part.media_type.strip_suffix(BASE64) {
        Some(media_type) => (media_type.to_owned(), words(part)?),
        None => (part.media_type.clone(), BASE64_STANDARD.encode(bytes(part)?)),
    };
    Ok(json!({"type": kind, "mime_type": media_type, "data": data}))
}

fn named(part: &Content, text: String) -> String {
    match (part.name.is_empty(), part.kind) {
        (false, PartKind::Document | PartKind::Data) => format!("{}:\n{text}", part.name),
        _ => text,
    }
}

fn words(part: &Content) -> Result<String, Failure> {
    Ok(String::from_utf8_lossy(&bytes(part)?).into_owned())
}

fn bytes(part: &Content) -> Result<Vec<u8>, Failure> {
    let Some((path, _, bytes)) = &part.file else { return Ok(part.text.clone().into_bytes()) };
    if *bytes > CONTENT_BYTES_MAX {
        let message = format!("a content of {bytes} bytes is more than a request can have");
        return Err(failure("input_too_large", message));
    }
    crate::own::read_input(path)
        .map_err(|error| failure("input", format!("{} cannot be read: {error}", path.display())))
}
