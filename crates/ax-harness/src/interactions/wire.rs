//! What the provider says, event by event. Fields that are missing are taken for empty; what is no
//! event at all is an error.

use ax_core::session::Usage;
use serde_json::Value;

/// Where an interaction stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Standing {
    /// Its name; empty if it was not said.
    pub(super) id: String,
    /// The provider's word for where it stands; empty if it was not said.
    pub(super) status: String,
    /// What it has consumed.
    pub(super) usage: Usage,
    /// What went wrong, in the provider's words.
    pub(super) errors: Vec<String>,
    /// What its agent said last, if it waits for an answer.
    pub(super) words: String,
    /// All its steps, where they were asked for.
    pub(super) steps: Vec<Value>,
}

impl Standing {
    /// Reads an interaction.
    pub(super) fn of(interaction: &Value) -> Self {
        let text = |name: &str| interaction[name].as_str().unwrap_or_default().to_owned();
        let list = |name: &str| interaction[name].as_array().cloned().unwrap_or_default();
        let one = interaction.get("error").filter(|error| !error.is_null()).cloned();
        let errors = list("errors").into_iter().chain(one);
        Self {
            id: text("id"),
            status: text("status"),
            usage: usage(&interaction["usage"]),
            errors: errors.map(|error| words(&error)).collect(),
            words: text("words"),
            steps: list("steps"),
        }
    }

    /// Whether the provider does nothing more for it.
    pub(super) fn is_over(&self) -> bool {
        !matches!(self.status.as_str(), "" | "queued" | "in_progress")
    }
}

fn usage(usage: &Value) -> Usage {
    let number = |name: &str| usage[name].as_u64().unwrap_or(0);
    Usage {
        input_tokens: number("total_input_tokens").saturating_add(number("total_tool_use_tokens")),
        cached_tokens: number("total_cached_tokens"),
        output_tokens: number("total_output_tokens").saturating_add(number("total_thought_tokens")),
        ..Usage::default()
    }
}

/// Returns what an error object says.
fn words(error: &Value) -> String {
    let text = |name: &str| error[name].as_str().unwrap_or_default();
    match (text("code"), text("message")) {
        ("", "") => error.to_string(),
        ("", message) => message.to_owned(),
        (code, message) => format!("{message} ({code})"),
    }
}

/// An event.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    /// The provider's name for its place in the stream.
    pub(super) id: Option<String>,
    pub(super) kind: Kind,
}

/// What an event says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// The interaction has begun.
    Created(Standing),
    /// It stands elsewhere now.
    Status(Standing),
    /// It is over.
    Completed(Standing),
    /// A step begins.
    Start(u64, Value),
    /// Something is added to a step.
    Delta(u64, Value),
    /// A step is whole.
    Stop(u64),
    /// The stream breaks off, in the provider's words.
    Error(String),
    /// Nothing more comes.
    Done,
    /// Something that we do not know, by its name.
    Other(String),
}

impl Event {
    /// Reads the data of an event.
    pub(super) fn read(data: &str) -> Result<Self, String> {
        if data.trim() == "[DONE]" {
            return Ok(Self { id: None, kind: Kind::Done });
        }
        let mut event: Value =
            serde_json::from_str(data).map_err(|error| format!("an event is not JSON: {error}"))?;
        if !event.is_object() {
            return Err("an event is not an object".into());
        }
        let id = event["event_id"].as_str().filter(|id| !id.is_empty()).map(str::to_owned);
        let kind = event["event_type"].as_str().unwrap_or_default().to_owned();
        let index = event["index"].as_u64();
        let at = || index.ok_or_else(|| format!("an event {kind} does not say of which step"));
        let kind = match kind.as_str() {
            "interaction.created" => Kind::Created(Standing::of(&event["interaction"])),
            "interaction.completed" => Kind::Completed(Standing::of(&event["interaction"])),
            "interaction.status_update" => {
                let named = event["interaction_id"].take();
                event["id"] = named;
                Kind::Status(Standing::of(&event))
            }
            "step.start" => Kind::Start(at()?, event["step"].take()),
            "step.delta" => Kind::Delta(at()?, event["delta"].take()),
            "step.stop" => Kind::Stop(at()?),
            "error" => Kind::Error(words(&event["error"])),
            _ => Kind::Other(kind),
        };
        Ok(Self { id, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(event: &Value) -> Kind {
        Event::read(&event.to_string()).unwrap().kind
    }

    #[test]
    fn events_are_read_and_what_is_missing_is_empty() {
        let created = json!({"event_type": "interaction.created", "event_id": "e-1",
            "interaction": {"id": "int_1", "status": "in_progress"}});
        let event = Event::read(&created.to_string()).unwrap();
        assert_eq!(event.id.as_deref(), Some("e-1"));
        let Kind::Created(standing) = event.kind else { panic!("the beginning") };
        assert_eq!((standing.id.as_str(), standing.is_over()), ("int_1", false));
        let failed = json!({"event_type": "interaction.completed", "interaction": {
            "status": "failed", "errors": [{"code": "internal", "message": "it broke"}],
            "usage": {"total_input_tokens": 7, "total_output_tokens": 3,
                "total_thought_tokens": 2}}});
        let Kind::Completed(standing) = read(&failed) else { panic!("the end") };
        assert_eq!(standing.errors, ["it broke (internal)"]);
        assert_eq!((standing.usage.input_tokens, standing.usage.output_tokens), (7, 5));
        assert!(standing.is_over() && standing.id.is_empty());
        assert_eq!(read(&json!({"event_type": "new"})), Kind::Other("new".into()));
        assert_eq!(read(&json!({})), Kind::Other(String::new()));
        assert_eq!(read(&json!({"event_type": "step.stop", "index": 2})), Kind::Stop(2));
    }

    #[test]
    fn what_is_no_event_is_said() {
        for data in ["", "{", "7", "[]", "null", r#"{"event_type": "step.start"}"#] {
            assert!(Event::read(data).is_err(), "{data}");
        }
        let negative = r#"{"event_type": "step.delta", "index": -1, "delta": {}}"#;
        assert!(Event::read(negative).is_err());
    }
}
