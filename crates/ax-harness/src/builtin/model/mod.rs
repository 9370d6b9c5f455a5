//! Calling a model: one conversation in, a stream of text and a reply out, over four wire formats.

mod anthropic;
mod chat;
mod client;
mod gemini;
mod responses;

pub(super) use client::{CallError, Client};
pub(crate) use client::{connections, error_message};

use super::config::{Model, Provider};
use super::talk::{Call, Piece, Talk};
use ax_core::session::Usage;
use serde_json::{Map, Value};

/// A piece of an answer as it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Streamed {
    /// Text of the answer.
    Text(String),
    /// What the model thinks on its way.
    Thought(String),
}

/// Why the model stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// It is done, or wants tools.
    Done,
    /// The answer is as long as it may be.
    Length,
    /// It does not want to, in the vendor's word.
    Refused(String),
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reply {
    /// Its text, which was streamed.
    pub(super) text: String,
    /// Everything else: calls, and what the vendor wants back.
    pub(super) pieces: Vec<Piece>,
    /// Why it ends.
    pub(super) reason: Reason,
    /// What it cost.
    pub(super) usage: Usage,
}

/// What is wrong with a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StreamError {
    /// The vendor says so in the stream; asking again may help if the second is true.
    Said(String, bool),
    /// It is not what the format says.
    Malformed(String),
}

impl StreamError {
    /// Reads the error object that all vendors have in some form.
    fn said(error: &Value) -> Self {
        let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
        let kind = [text("type"), text("code"), text("status")].join(" ");
        let again = ["overloaded", "rate_limit", "server_error", "api_error", "UNAVAILABLE"]
            .iter()
            .chain(&["INTERNAL", "RESOURCE_EXHAUSTED", "timeout", "DEADLINE_EXCEEDED"])
            .any(|word| kind.contains(word));
        let message = match text("message") {
            "" => error.to_string(),
            message => message.to_owned(),
        };
        Self::Said(
            message,
            again || error.get("code").and_then(Value::as_u64).is_some_and(|code| code >= 500),
        )
    }
}

/// Reads a vendor's stream.
pub(super) trait Decoder: Send {
    /// Takes in the data of an event; adds what it streams.
    fn event(&mut self, data: &Value, out: &mut Vec<Streamed>) -> Result<(), StreamError>;

    /// Returns whether the answer is whole.
    fn is_whole(&self) -> bool;

    /// Returns whether nothing more comes that matters.
    fn is_over(&self) -> bool {
        self.is_whole()
    }

    /// Returns the answer.
    fn reply(self: Box<Self>) -> Reply;
}

/// A request, ready to be sent.
#[derive(Debug)]
struct Request {
    /// What follows the base URL.
    path: String,
    body: Map<String, Value>,
}

impl Provider {
    /// Returns where the vendor is.
    const fn default_url(self) -> &'static str {
        match self {
            Self::Anthropic => "https://api.anthropic.com",
            Self::Openai | Self::OpenaiChat => "https://api.openai.com/v1",
            Self::Gemini => "https://generativelanguage.googleapis.com",
        }
    }

    /// Returns the environment variable that the vendor's own clients read the key from.
    const fn default_key_variable(self) -> &'static str {
        match self {
            Self::Anthropic => "ANTHROPIC_API_KEY",
            Self::Openai | Self::OpenaiChat => "OPENAI_API_KEY",
            Self::Gemini => "GEMINI_API_KEY",
        }
    }

    fn request(self, model: &Model, talk: &Talk) -> std::io::Result<Request> {
        let mut request = match self {
            Self::Anthropic => anthropic::request(model, talk),
            Self::Openai => responses::request(model, talk),
            Self::OpenaiChat => chat::request(model, talk),
            Self::Gemini => gemini::request(model, talk),
        }?;
        for (name, value) in &model.extra {
            merge(&mut request.body, name, value);
        }
        Ok(request)
    }

    fn decoder(self) -> Box<dyn Decoder> {
        match self {
            Self::Anthropic => Box::<anthropic::Stream>::default(),
            Self::Openai => Box::<responses::Stream>::default(),
            Self::OpenaiChat => Box::<chat::Stream>::default(),
            Self::Gemini => Box::<gemini::Stream>::default(),
        }
    }
}

/// Adds a field; two objects become one, of which the added fields win.
fn merge(into: &mut Map<String, Value>, name: &str, value: &Value) {
    match (into.get_mut(name), value) {
        (Some(Value::Object(there)), Value::Object(added)) => {
            for (name, value) in added {
                merge(there, name, value);
            }
        }
        _ => {
            into.insert(name.to_owned(), value.clone());
        }
    }
}

/// Reads what a tool is given, as the model wrote it; a text if that is not JSON.
fn parse_input(text: &str) -> Value {
    if text.trim().is_empty() {
        return Value::Object(Map::new());
    }
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

/// Returns the text at a pointer (RFC 6901), or an empty one.
fn text_at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Returns the number at a pointer (RFC 6901), or 0.
fn number_at(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

/// Returns the content of a file in base64.
fn base64_of(path: &std::path::Path) -> std::io::Result<String> {
    use base64::Engine;
    Ok(base64::engine::general_purpose::STANDARD.encode(crate::own::read_input(path)?))
}

/// Builds an object from fields, leaving out those that are null.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    let present = fields.into_iter().filter(|(_, value)| !value.is_null());
    present.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Returns a call with an id, which the vendor may not have given.
fn call(id: &str, at: usize, name: &str, input: Value, signature: &str) -> Piece {
    let id = if id.is_empty() { format!("{OWN_ID}{at}") } else { id.to_owned() };
    Piece::Call(Call { id, name: name.into(), input, signature: signature.into() })
}

/// What an id begins with that we gave.
pub(super) const OWN_ID: &str = "ax_call_";
