//! Scripts: a list of turns, each with what it waits for and what it answers.
//!
//! The document is described in `docs/formats/fakemodel-script.md`.

use crate::answer::Usage;
use crate::fault::Fault;
use crate::wire::Format;
use regex_lite::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The version of the document.
pub const VERSION: u32 = 1;
/// The most turns of a script.
pub const TURNS_MAX: usize = 10_000;

/// What the server answers. Without turns, the prompt of each request decides.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// The version of the document: 1.
    pub version: u32,
    /// How answers are paced, unless their turn says otherwise.
    #[serde(default)]
    pub defaults: Pace,
    /// The turns; the first one that fits a request answers it.
    #[serde(default)]
    pub turns: Vec<Turn>,
    /// What happens to a request that no turn fits.
    #[serde(default)]
    pub otherwise: Otherwise,
    /// The compiled patterns, by turn.
    #[serde(skip)]
    pub(crate) patterns: BTreeMap<usize, Regex>,
}

/// What happens to a request that no turn fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Otherwise {
    /// The prompt decides.
    #[default]
    Prompt,
    /// The request is refused with status 400.
    Refuse,
}

/// How an answer is paced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// Characters in a chunk of streamed text; 16 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk_chars: Option<usize>,
    /// Milliseconds between two events of a stream; 0 unless given. An answer that is not streamed
    /// takes as long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk_delay_millis: Option<u64>,
    /// Milliseconds before the answer begins; 0 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_millis: Option<u64>,
}

/// A turn of a script.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// What a request must be like; anything, unless given.
    #[serde(default)]
    pub when: When,
    /// So many fitting requests pass by first.
    #[serde(default)]
    pub skip: u64,
    /// Then so many are answered, and later ones pass by; all, unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// A thought before the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thought: Option<String>,
    /// The text; `{{prompt}}` and `{{result}}` in it stand for the user's text and the results of
    /// tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// How an interaction ends; completed, or with its calls, unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Tool calls after the text.
    #[serde(default)]
    pub calls: Vec<Call>,
    /// Usage figures; estimated unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// How the answer is paced.
    #[serde(default)]
    pub pace: Pace,
    /// What goes wrong.
    #[serde(default)]
    pub fault: Fault,
}

/// How an interaction ends that does not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It fails, and says why.
    Failed,
    /// It breaks off.
    Incomplete,
    /// It waits for an answer.
    RequiresAction,
    /// The budget is used up.
    BudgetExceeded,
}

impl Outcome {
    /// The word of the format for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Incomplete => "incomplete",
            Self::RequiresAction => "requires_action",
            Self::BudgetExceeded => "budget_exceeded",
        }
    }
}

/// What a request must be like; all that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// How often the assistant has spoken in the conversation so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<u64>,
    /// What the last text of the user contains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// A regular expression that is found in the last text of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// What the results of tools, which came last, contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// What the instructions contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The name of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The format of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Whether a stream is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// Headers of the request: name in lower case, and value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// A tool call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The name of the tool.
    pub tool: String,
    /// Its arguments, an object.
    #[serde(default = "no_arguments")]
    pub arguments: Value,
    /// The identifier of the call; made of the request unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// Why a script is none.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is not JSON of the documented form.
    #[error("the script is not of the documented form")]
    Json {
        /// What is wrong, and where.
        #[source]
        source: serde_json::Error,
    },
    /// It is of another version.
    #[error("the script is of version {version}, not {VERSION}")]
    Version {
        /// What it says.
        version: u32,
    },
    /// It has too many turns.
    #[error("the script has {count} turns, more than {TURNS_MAX}")]
    Turns {
        /// How many it has.
        count: usize,
    },
    /// A turn contradicts itself.
    #[error("turn {index} of the script, counted from 0: {reason}")]
    Turn {
        /// Which one.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
}

fn no_arguments() -> Value {
    Value::Object(serde_json::Map::new())
}

impl Default for Script {
    fn default() -> Self {
        Self {
            version: VERSION,
            defaults: Pace::default(),
            turns: Vec::new(),
            otherwise: Otherwise::Prompt,
            patterns: BTreeMap::new(),
        }
    }
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    ///
    /// Returns [`LoadError`] if the text is no script of version 1, or a turn contradicts itself.
    pub fn from_json(text: &str) -> Result<Self, LoadError> {
        let mut script: Self =
            serde_json::from_str(text).map_err(|source| LoadError::Json { source })?;
        if script.version != VERSION {
            return Err(LoadError::Version { version: script.version });
        }
        if script.turns.len() > TURNS_MAX {
            return Err(LoadError::Turns { count: script.turns.len() });
        }
        for (index, turn) in script.turns.iter().enumerate() {
            let pattern = turn.check().map_err(|reason| LoadError::Turn { index, reason })?;
            script.patterns.extend(pattern.map(|pattern| (index, pattern)));
        }
        Ok(script)
    }
}

impl Turn {
    /// Says what contradicts itself; else returns the compiled pattern, if there is one.
    fn check(&self) -> Result<Option<Regex>, String> {
        self.fault.check()?;
        if self.calls.iter().any(|call| !call.arguments.is_object() || call.tool.is_empty()) {
            return Err("a call needs the name of a tool, and an object as arguments".to_owned());
        }
        if self.pace.chunk_chars == Some(0) || self.times == Some(0) {
            return Err("chunk_chars and times are at least 1".to_owned());
        }
        if self.when.headers.keys().any(|name| *name != name.to_lowercase()) {
            return Err("names of headers are in lower case".to_owned());
        }
        let pattern = self.when.regex.as_deref().map(Regex::new).transpose();
        pattern.map_err(|error| format!("the regular expression is wrong: {error}"))
    }

    /// Whether the turn says what to answer; else it only adds a fault or a pace to what the
    /// prompt asks for.
    pub(crate) fn has_answer(&self) -> bool {
        self.thought.is_some() || self.text.is_some() || !self.calls.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_script_is_said() {
        let turn = |turn: &str| format!(r#"{{"version": 1, "turns": [{{}}, {turn}]}}"#);
        for (text, message) in [
            ("[]", "documented form"),
            (r#"{"version": 2}"#, "version 2"),
            (r#"{"version": 1, "trns": []}"#, "documented form"),
            (&turn(r#"{"when": {"regex": "("}}"#), "turn 1"),
            (&turn(r#"{"calls": [{"tool": "t", "arguments": 1}]}"#), "an object"),
            (&turn(r#"{"fault": {"status": 200}}"#), "status 200"),
            (&turn(r#"{"fault": {"status": 500, "cut_after_chunks": 1}}"#), "no body"),
            (&turn(r#"{"fault": {"retry_after_seconds": 1}}"#), "need a status"),
            (&turn(r#"{"when": {"headers": {"X-Run": "1"}}}"#), "lower case"),
            (&turn(r#"{"times": 0}"#), "at least 1"),
        ] {
            let error = Script::from_json(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn a_script_reads_back_as_it_was_written() {
        let text = r#"{"version": 1, "turns": [{"when": {"turn": 2, "format": "anthropic"},
            "text": "x", "calls": [{"tool": "t"}], "fault": {"status": 429}}]}"#;
        let script = Script::from_json(text).unwrap();
        let again = Script::from_json(&serde_json::to_string(&script).unwrap()).unwrap();
        assert_eq!(script.turns, again.turns);
    }
}
