//! Which trace an execution belongs to, and the ids of its spans.
//!
//! Ids are derived from what is in the log, so that every life of the runtime finds the same ones,
//! and a harness can be told the span of its attempt before that span has ended.

use ax_core::id::{AttemptId, ExecId, SessionKey};
use std::fmt::Write as _;

/// Which trace an execution belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The trace, 16 bytes.
    pub trace: Vec<u8>,
    /// The span of the client's request, 8 bytes; empty if it sent none.
    pub parent: Vec<u8>,
    /// The client said that it does not record this.
    pub unsampled: bool,
}

impl Context {
    /// Reads a W3C `traceparent`; makes a trace of its own if there is none.
    pub fn of(traceparent: &str, key: &SessionKey, exec: ExecId) -> Self {
        Self::read(traceparent).unwrap_or_else(|| Self {
            trace: derive(key, &format!("trace {exec}"), 16),
            ..Self::default()
        })
    }

    /// Reads a W3C `traceparent`, if it is one.
    pub fn read(traceparent: &str) -> Option<Self> {
        let mut fields = traceparent.split('-');
        let version = fields.next()?;
        let trace = hex(fields.next()?, 16)?;
        let parent = hex(fields.next()?, 8)?;
        let flags = hex(fields.next()?, 1)?;
        let unsampled = flags.first().is_some_and(|flags| flags & 1 == 0);
        let known = version != "ff" && hex(version, 1).is_some();
        known.then_some(Self { trace, parent, unsampled })
    }

    /// Writes the `traceparent` of what is done within a span of this trace.
    pub fn within(&self, span: &[u8]) -> String {
        let text = |bytes: &[u8]| {
            bytes.iter().fold(String::new(), |mut text, byte| {
                let _never_fails = write!(text, "{byte:02x}");
                text
            })
        };
        let flags = if self.unsampled { "00" } else { "01" };
        format!("00-{}-{}-{flags}", text(&self.trace), text(span))
    }
}

/// The `traceparent` of an attempt: within its span if spans are made, within that of the client
/// if the client sent one, else nothing.
pub(crate) fn of_attempt(
    makes_spans: bool,
    traceparent: &str,
    key: &SessionKey,
    exec: ExecId,
    attempt: AttemptId,
) -> Option<String> {
    if makes_spans {
        let span = attempt_id(key, exec, attempt);
        return Some(Context::of(traceparent, key, exec).within(&span));
    }
    Context::read(traceparent).map(|context| context.within(&context.parent))
}

/// The id of the span of an execution.
pub fn execution_id(key: &SessionKey, exec: ExecId) -> Vec<u8> {
    derive(key, &exec.to_string(), 8)
}

/// The id of the span of an attempt.
pub fn attempt_id(key: &SessionKey, exec: ExecId, attempt: AttemptId) -> Vec<u8> {
    derive(key, &format!("{exec} attempt {}", attempt.0), 8)
}

/// Makes an id of so many bytes, at most 32, that is the same whenever it is made.
pub fn derive(key: &SessionKey, what: &str, bytes: usize) -> Vec<u8> {
    let text = format!("{} {} {what}", key.namespace.as_str(), key.session);
    blake3::derive_key("agentexecutor span id v1", text.as_bytes())[..bytes].to_vec()
}

/// Reads so many bytes, not all of them zero unless it is one.
fn hex(text: &str, bytes: usize) -> Option<Vec<u8>> {
    if text.len() != 2 * bytes || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let read = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).ok();
    let found = (0..text.len()).step_by(2).map(read).collect::<Option<Vec<_>>>()?;
    (bytes == 1 || found.iter().any(|byte| *byte != 0)).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ax_core::id::{Namespace, SessionId};

    const SENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn an_attempt_is_within_its_own_span_that_of_the_client_or_none() {
        let key = SessionKey::new(Namespace::default(), SessionId(1));
        let of = |makes_spans, sent, attempt| {
            of_attempt(makes_spans, sent, &key, ExecId(1), AttemptId(attempt))
        };
        assert_eq!(of(false, "", 1), None);
        assert_eq!(of(false, "00-nonsense", 1), None);
        assert_eq!(of(false, SENT, 1).as_deref(), Some(SENT));
        let (first, next) = (of(true, SENT, 1).unwrap(), of(true, SENT, 2).unwrap());
        assert_eq!(first[..36], SENT[..36], "the trace of the client goes on");
        assert!(first[36..] != SENT[36..] && first != next && first == of(true, SENT, 1).unwrap());
        let unsampled = SENT.replace("-01", "-00");
        assert!(of(true, &unsampled, 1).unwrap().ends_with("-00"));
        let own = Context::read(&of(true, "", 1).unwrap()).unwrap();
        assert_eq!(own.trace, Context::of("", &key, ExecId(1)).trace);
        assert_eq!(own.parent, attempt_id(&key, ExecId(1), AttemptId(1)));
    }
}
