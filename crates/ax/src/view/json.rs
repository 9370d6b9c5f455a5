//! The JSON of `--json`: ProtoJSON of the wire's messages, events with a `type` of their own.
//! Described in `docs/cli.md`.

use crate::failure::Failure;
use ax_engine::Code;
use ax_proto::v1;
use serde_json::{Map, Value};

/// The fields of an event that are not its kind.
const HEADER: [&str; 9] =
    ["seq", "atMillis", "actor", "principal", "request", "trace", "execution", "attempt", "keyId"];

/// The name of an event's kind in ProtoJSON, and what is in it.
fn kind_of(fields: &Map<String, Value>) -> Option<(&String, &Value)> {
    fields.iter().find(|(name, _)| !HEADER.contains(&name.as_str()))
}

/// Makes `step.completed` of `stepCompleted`: a dot after the first word, then underlines.
fn dotted(name: &str) -> String {
    let mut dotted = String::with_capacity(name.len() + 2);
    let mut words = 1;
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            dotted.push(if words == 1 { '.' } else { '_' });
            words += 1;
        }
        dotted.push(letter.to_ascii_lowercase());
    }
    dotted
}

/// The JSON object of a message.
pub(crate) fn object(message: &impl serde::Serialize) -> Result<Map<String, Value>, Failure> {
    match serde_json::to_value(message) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Failure::new(Code::Internal, "a message is not a JSON object")),
        Err(error) => {
            Err(Failure::new(Code::Internal, "a message has no JSON form").because(&error))
        }
    }
}

/// The JSON object of a message, with a type.
pub(crate) fn typed(message: &impl serde::Serialize, name: &str) -> Result<Value, Failure> {
    let mut fields = object(message)?;
    fields.insert("type".into(), name.into());
    Ok(Value::Object(fields))
}

/// The JSON object of an event.
pub(crate) fn event(event: &v1::Event) -> Result<Value, Failure> {
    let mut fields = object(event)?;
    let name = kind_of(&fields).map_or_else(|| "unknown".into(), |(name, _)| dotted(name));
    fields.insert("type".into(), name.into());
    Ok(Value::Object(fields))
}

/// The name of an event's kind, such as `step.completed`, and its fields.
pub(crate) fn kind(event: &v1::Event) -> Result<(String, Value), Failure> {
    let fields = object(event)?;
    Ok(kind_of(&fields).map_or_else(
        || ("unknown".into(), Value::Null),
        |(name, value)| (dotted(name), value.clone()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_its_type_and_its_fields() {
        let kind = v1::event::Kind::StepCompleted(v1::StepCompleted {
            step: "s".into(),
            ..Default::default()
        });
        let given = v1::Event { seq: 7, kind: Some(kind), ..Default::default() };
        let expect = r#"{"seq":"7","stepCompleted":{"step":"s"},"type":"step.completed"}"#;
        assert_eq!(event(&given).unwrap().to_string(), expect);
        assert_eq!(event(&v1::Event::default()).unwrap()["type"], "unknown");
    }

    #[test]
    fn names_are_those_of_the_vocabulary() {
        for (name, expect) in
            [("executionTimedOut", "execution.timed_out"), ("note", "note"), ("a", "a")]
        {
            assert_eq!(dotted(name), expect);
        }
    }
}
