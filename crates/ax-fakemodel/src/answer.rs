//! An answer before it takes the form of a format.

use crate::ask::Ask;
use crate::script::Outcome;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A part of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Part {
    Thought(String),
    Text(String),
    Call { id: Option<String>, tool: String, arguments: Value },
}

/// Usage figures of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Tokens of the request.
    pub input_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
    /// Tokens of the request that came from a cache; a part of `input_tokens`.
    #[serde(default)]
    pub cached_tokens: u64,
}

/// Everything that a format needs to write an answer. The same request, asked for the same time,
/// gets the same answer to the byte.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) ask: Ask,
    pub(crate) body: Value,
    /// The hash of the request and its occurrence; every identifier is made of it.
    pub(crate) seed: String,
    pub(crate) parts: Vec<Part>,
    /// How it ends, in formats that have more than one way.
    pub(crate) outcome: Option<Outcome>,
    pub(crate) usage: Usage,
    pub(crate) chunk_chars: usize,
}

/// When everything was made that has a time: 2023-11-14T22:13:20Z, in seconds.
pub(crate) const CREATED_AT_SECONDS: u64 = 1_700_000_000;
/// The same as text.
pub(crate) const CREATED_AT: &str = "2023-11-14T22:13:20Z";
/// A signature of a thought, in base64.
pub(crate) const SIGNATURE: &str = "ZmFrZSBzaWduYXR1cmU=";

impl Answer {
    /// Makes an identifier: the same for the same answer and index.
    pub(crate) fn id(&self, prefix: &str, index: usize) -> String {
        let made_of = format!("{} {prefix} {index}", self.seed);
        format!("{prefix}{}", &blake3::hash(made_of.as_bytes()).to_hex()[..24])
    }

    /// The identifier of the call at this index of the parts.
    pub(crate) fn call_id(&self, prefix: &str, index: usize) -> String {
        match &self.parts[index] {
            Part::Call { id: Some(id), .. } => id.clone(),
            _ => self.id(prefix, index),
        }
    }

    /// Whether the answer wants a tool to be called.
    pub(crate) fn has_calls(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Call { .. }))
    }

    /// Cuts a text into the chunks in which it is streamed.
    pub(crate) fn chunks(&self, text: &str) -> Vec<String> {
        let chars: Vec<char> = text.chars().collect();
        chars.chunks(self.chunk_chars.max(1)).map(|chunk| chunk.iter().collect()).collect()
    }

    /// All text of the answer.
    pub(crate) fn text(&self) -> String {
        let texts = self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Thought(_) | Part::Call { .. } => None,
        });
        texts.collect()
    }
}

/// Estimates the tokens of a text: a quarter of its bytes, at least one.
pub(crate) fn tokens(text: &str) -> u64 {
    (text.len() as u64 / 4).max(1)
}

/// Estimates the tokens of an answer.
pub(crate) fn tokens_of(parts: &[Part]) -> u64 {
    let tokens_of = |part: &Part| match part {
        Part::Thought(text) | Part::Text(text) => tokens(text),
        Part::Call { tool, arguments, .. } => tokens(tool) + tokens(&arguments.to_string()),
    };
    parts.iter().map(tokens_of).sum()
}
