//! What a client saw, beside the log.

use super::text::text;
use ax_proto::v1;
use prost::Message as _;
use serde_json::Value;

/// What a client saw of a session.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) client: &'static str,
    pub(crate) session: String,
    pub(crate) events: Vec<v1::Event>,
    /// What it put together itself.
    pub(crate) text: String,
    /// Where its inputs are, as it was told.
    pub(crate) acknowledged: Vec<u64>,
}

impl Seen {
    /// Reads the report of a client that was given JSON.
    pub(crate) fn of_json(client: &'static str, report: &Value) -> Result<Self, String> {
        let events = report["events"].as_array().cloned().unwrap_or_default();
        let read = |event: Value| {
            let shown = event.to_string();
            serde_json::from_value(event).map_err(|error| format!("{client}: {error} in {shown}"))
        };
        let acknowledged = report["acknowledged"].as_array().cloned().unwrap_or_default();
        Ok(Self {
            client,
            session: report["session"].as_str().unwrap_or_default().to_owned(),
            events: events.into_iter().map(read).collect::<Result<_, _>>()?,
            text: report["text"].as_str().unwrap_or_default().to_owned(),
            acknowledged: acknowledged.iter().filter_map(Value::as_u64).collect(),
        })
    }

    /// Compares it with the log, which must not be longer.
    pub(crate) fn check(&self, log: &[v1::Event]) -> Result<(), String> {
        let wrong = |what: String| Err(format!("{} in {}: {what}", self.client, self.session));
        for (index, (seen, logged)) in self.events.iter().zip(log).enumerate() {
            if seen.encode_to_vec() != logged.encode_to_vec() {
                let at = index + 1;
                return wrong(format!("event {at} was seen as {seen:?}, and it is {logged:?}"));
            }
        }
        if self.events.len() != log.len() {
            return wrong(format!("{} of {} events were seen", self.events.len(), log.len()));
        }
        let expected = text(log);
        if self.text != expected {
            return wrong(format!("the text is {:?}, not {expected:?}", self.text));
        }
        for &seq in &self.acknowledged {
            let at = usize::try_from(seq).unwrap().checked_sub(1);
            let event = at.and_then(|at| log.get(at)).and_then(|event| event.kind.as_ref());
            if !matches!(event, Some(v1::event::Kind::InputReceived(_))) {
                return wrong(format!("input {seq} was acknowledged, and there is {event:?}"));
            }
        }
        Ok(())
    }
}
