//! From the wire to the engine and back.

pub(crate) mod cursor;

use ax_core::id::{AskId, Namespace, Seq};
use ax_core::session::{
    Answer, AskKind, BlobRef, Body, IdempotencyKey, OpenAsk, Part, PartKind, SubmitPolicy, Usage,
};
use ax_engine::{AgentView, Code, Error, SessionView, Status, WaitState, codec};
use ax_proto::v1;

fn invalid(message: impl Into<String>) -> Error {
    Error::invalid(message)
}

/// Decodes a stored event, and adds its position.
pub(crate) fn event(seq: Seq, encoded: &[u8]) -> Result<v1::Event, Error> {
    codec::wire_event(seq, encoded).map_err(|error| {
        let message = format!("event {seq} cannot be decoded");
        Error::new(Code::Damaged, message).caused_by(&error)
    })
}

/// Reads an idempotency key; empty means none.
pub(crate) fn key(key: String) -> Result<Option<IdempotencyKey>, Error> {
    if key.len() > IdempotencyKey::BYTES_MAX {
        let bytes = key.len();
        return Err(invalid(format!("a key has at most 256 bytes, this one has {bytes}")));
    }
    Ok((!key.is_empty()).then(|| key.into()))
}

/// Reads a policy.
pub(crate) fn policy(policy: i32) -> Result<Option<SubmitPolicy>, Error> {
    use v1::SubmitPolicy as Wire;
    Ok(Some(match Wire::try_from(policy) {
        Ok(Wire::Unspecified) => return Ok(None),
        Ok(Wire::Enqueue) => SubmitPolicy::Enqueue,
        Ok(Wire::Reject) => SubmitPolicy::Reject,
        Ok(Wire::Interrupt) => SubmitPolicy::Interrupt,
        Ok(Wire::Branch) => SubmitPolicy::Branch,
        Err(_) => return Err(invalid(format!("{policy} is not a submit policy"))),
    }))
}

/// Reads the part with this index.
pub(crate) fn part(index: usize, part: v1::Part) -> Result<Part, Error> {
    use v1::PartKind as Wire;
    let kind = match part.kind() {
        Wire::Unspecified => return Err(invalid(format!("parts[{index}] has no kind"))),
        Wire::Text => PartKind::Text,
        Wire::Thought => PartKind::Thought,
        Wire::Image => PartKind::Image,
        Wire::Audio => PartKind::Audio,
        Wire::Document => PartKind::Document,
        Wire::Video => PartKind::Video,
        Wire::ToolCall => PartKind::ToolCall,
        Wire::ToolResult => PartKind::ToolResult,
        Wire::Data => PartKind::Data,
    };
    let body = match part.body.and_then(|body| body.body) {
        Some(v1::body::Body::Text(text)) => Body::Text(text),
        Some(v1::body::Body::Blob(blob)) => {
            let hash = <[u8; 32]>::try_from(blob.hash)
                .map_err(|_| invalid(format!("parts[{index}].body.blob.hash has not 32 bytes")))?;
            Body::Blob(BlobRef { hash, bytes: blob.bytes })
        }
        None => return Err(invalid(format!("parts[{index}] has no body"))),
    };
    Ok(Part { kind, media_type: part.media_type, name: part.name, body })
}

/// Reads an answer.
pub(crate) fn answer(answer: Option<v1::Answer>) -> Result<Answer, Error> {
    use v1::answer::Answer as Wire;
    match answer.and_then(|answer| answer.answer) {
        Some(Wire::Approve(_)) => Ok(Answer::Approve),
        Some(Wire::Deny(deny)) => Ok(Answer::Deny(deny.reason)),
        Some(Wire::Choice(choice)) => Ok(Answer::Choice(choice.choice, choice.text)),
        Some(Wire::Text(text)) => Ok(Answer::Text(text)),
        None => Err(invalid("there is no answer in the request")),
    }
}

/// Reads states.
pub(crate) fn states(states: &[i32]) -> Result<Vec<WaitState>, Error> {
    let state = |number: &i32| {
        let known = u8::try_from(*number).ok().and_then(WaitState::from_number);
        known.ok_or_else(|| invalid(format!("{number} is not a state")))
    };
    states.iter().map(state).collect()
}

/// Reads a text that may be left out.
pub(crate) fn text(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Reads the limit of a page; 0 means the greatest.
pub(crate) fn limit(asked: u32, most: usize) -> usize {
    if asked == 0 { most } else { (asked as usize).min(most) }
}

/// Reads a position; 0 means none.
pub(crate) const fn seq(seq: u64) -> Option<Seq> {
    if seq == 0 { None } else { Some(Seq(seq)) }
}

pub(crate) fn usage(usage: &Usage) -> v1::Usage {
    v1::Usage {
        input_tokens: usage.input_tokens,
        cached_tokens: usage.cached_tokens,
        output_tokens: usage.output_tokens,
        cost_micros: usage.cost_micros,
        model_calls: usage.model_calls,
        tool_calls: usage.tool_calls,
    }
}

pub(crate) fn wire_status(status: Status) -> v1::Status {
    v1::Status {
        state: i32::from(status.state as u8),
        waiting: status.waiting,
        due_at_millis: status.due_at.map_or(0, |due| due.millis),
        execution: status.exec.map_or(0, |exec| exec.0),
        attempt: status.attempt.map_or(0, |attempt| attempt.0),
        asks: status.asks.into_iter().map(open_ask).collect(),
        queued: status.queued,
        outcome: status.outcome,
        reason: status.reason,
    }
}

fn open_ask((id, ask): (AskId, OpenAsk)) -> v1::OpenAsk {
    let kind = match ask.kind {
        AskKind::Approval => v1::AskKind::Approval,
        AskKind::Choice => v1::AskKind::Choice,
        AskKind::Text => v1::AskKind::Text,
    };
    v1::OpenAsk {
        ask: id.0,
        kind: kind.into(),
        prompt: ask.prompt,
        choices: ask.choices,
        about: ask.about.map(|step| step.to_string()).unwrap_or_default(),
        expires_at_millis: ask.expires_at.map_or(0, |at| at.millis),
    }
}

pub(crate) fn wire_session(namespace: &Namespace, view: SessionView) -> v1::Session {
    v1::Session {
        namespace: namespace.to_string(),
        id: view.id.to_string(),
        name: view.name,
        title: view.title,
        agent: view.agent.name,
        agent_version: view.agent.version,
        sandbox: view.sandbox,
        status: Some(wire_status(view.status)),
        last: view.last.0,
        parent: view.parent.map(|(parent, _)| parent.to_string()).unwrap_or_default(),
        branched_at: view.parent.map_or(0, |(_, at)| at.0),
        created_at_millis: view.created_at.millis,
        updated_at_millis: view.updated_at.millis,
        usage: Some(usage(&view.usage)),
    }
}

pub(crate) fn agent(view: AgentView) -> v1::Agent {
    v1::Agent {
        name: view.name,
        version: view.version,
        manifest: view.manifest,
        applied_at_millis: view.applied_at.millis,
        dir: view.dir.map(|dir| dir.display().to_string()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_the_same_numbers_on_the_wire() {
        for state in WaitState::ALL {
            let wire = v1::State::try_from(i32::from(state as u8)).unwrap();
            let name = format!("STATE_{}", state.word().to_uppercase().replace('-', "_"));
            assert_eq!(wire.as_str_name(), name);
        }
    }

    #[test]
    fn malformed_fields_are_named() {
        let message = |error: Error| error.message;
        assert!(message(key("k".repeat(257)).unwrap_err()).contains("257"));
        assert!(message(policy(99).unwrap_err()).contains("99"));
        assert!(message(states(&[1, 12]).unwrap_err()).contains("12"));
        assert!(message(part(3, v1::Part::default()).unwrap_err()).contains("parts[3]"));
        assert!(message(answer(None).unwrap_err()).contains("no answer"));
    }
}
