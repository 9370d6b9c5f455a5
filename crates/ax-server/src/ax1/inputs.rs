//! What a client of the wire says.

use ax_core::id::{AskId, Namespace, Seq};
use ax_core::session::{Answer, BlobRef, Body, IdempotencyKey, Part};
use ax_engine::{Code, Engine, Error};
use ax_harness::ax1::{Received, binary, received};
use ax_proto::ax1;
use ax_proto::ax1::confirmation_content::Decision;
use prost::Message as _;

/// The prefix of the id of a question.
const ASK: &str = "ask_";

/// What the inputs of a request amount to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    /// Nothing: the client only listens.
    Nothing,
    /// An input for the agent.
    Input(Vec<Part>),
    /// Answers to questions, by their ids.
    Answers(Vec<(AskId, Answer)>),
}

/// Reads the inputs of a request.
pub(super) fn read(inputs: Vec<ax1::Message>) -> Result<Said, Error> {
    let (mut parts, mut answers) = (Vec::new(), Vec::new());
    for (at, message) in inputs.into_iter().enumerate() {
        if !matches!(message.role.as_str(), "user" | "") {
            let role = message.role;
            return Err(Error::invalid(format!(
                "inputs[{at}] is said by {role:?}, not by the user"
            ))
            .with_hint("send what is new: what was said before is kept here"));
        }
        match message.content.map_or(Received::Nothing, received) {
            Received::Part(part) => parts.push(part),
            Received::Confirmation(confirmation) => answers.push(answer(at, confirmation)?),
            Received::Nothing => {
                return Err(Error::invalid(format!("inputs[{at}] has no content that is known")));
            }
        }
    }
    match (parts.is_empty(), answers.is_empty()) {
        (true, true) => Ok(Said::Nothing),
        (false, true) => Ok(Said::Input(parts)),
        (true, false) => Ok(Said::Answers(answers)),
        (false, false) => Err(Error::invalid("an answer comes together with other inputs")
            .with_hint("answer the question first, in a request of its own")),
    }
}

fn answer(at: usize, confirmation: ax1::ConfirmationContent) -> Result<(AskId, Answer), Error> {
    let id = confirmation.id.strip_prefix(ASK).and_then(|number| number.parse().ok());
    let id = id.map(AskId).ok_or_else(|| {
        let id = confirmation.id;
        Error::new(Code::NotOpen, format!("inputs[{at}] answers {id:?}, which was never asked"))
            .with_hint("an answer has the id of its question")
    })?;
    let answer = match confirmation.decision {
        Some(Decision::Approval(approval)) if approval.approved => Answer::Approve,
        Some(Decision::Approval(_) | Decision::Decline(_)) => Answer::Deny(String::new()),
        None => {
            return Err(Error::invalid(format!("inputs[{at}] neither approves nor declines")));
        }
    };
    Ok((id, answer))
}

/// The id of a question on the wire.
pub(super) fn ask_id(ask: AskId) -> String {
    format!("{ASK}{}", ask.0)
}

/// The key of an input that its client gave none: the same request again is the same input.
/// `turn` tells apart what is said again on purpose.
pub(super) fn key(after: Seq, turn: u32, inputs: &[ax1::Message]) -> IdempotencyKey {
    let mut hasher = blake3::Hasher::new_derive_key("agentexecutor ax1 input key v1");
    hasher.update(&after.0.to_be_bytes()).update(&turn.to_be_bytes());
    for input in inputs {
        let bytes = input.encode_to_vec();
        hasher.update(&(bytes.len() as u64).to_be_bytes()).update(&bytes);
    }
    IdempotencyKey::from(format!("ax1:{}", hasher.finalize().to_hex()))
}

/// Moves what is not text into the blob store.
pub(super) async fn store(
    engine: &Engine,
    namespace: &Namespace,
    parts: Vec<Part>,
) -> Result<Vec<Part>, Error> {
    let mut stored = Vec::with_capacity(parts.len());
    for part in parts {
        let Some((media_type, data)) = binary(&part) else {
            stored.push(part);
            continue;
        };
        let put = engine.blobs().put_bytes(namespace, data.into()).await;
        let blob = put.map_err(|error| {
            Error::new(Code::Read, "a content cannot be stored").caused_by(&error)
        })?;
        let body = Body::Blob(BlobRef { hash: blob.id.0, bytes: blob.bytes });
        stored.push(Part { media_type, body, ..part });
    }
    Ok(stored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ax_proto::ax1::content::Type;

    fn message(role: &str, content: Option<Type>) -> ax1::Message {
        let content = content.map(|content| ax1::Content { r#type: Some(content) });
        ax1::Message { role: role.into(), content, internal_only: false }
    }

    fn text(text: &str) -> ax1::Message {
        message("user", Some(Type::Text(ax1::TextContent { text: text.into() })))
    }

    fn confirm(id: &str, decision: Option<Decision>) -> ax1::Message {
        let id = id.into();
        let content = ax1::ConfirmationContent { id, decision, ..Default::default() };
        message("user", Some(Type::Confirmation(content)))
    }

    #[test]
    fn inputs_are_parts_or_answers() {
        let approve = Some(Decision::Approval(ax1::ApprovalDecision { approved: true }));
        let decline = Some(Decision::Decline(ax1::DeclineDecision { declined: true }));
        assert_eq!(read(Vec::new()).unwrap(), Said::Nothing);
        assert_eq!(read(vec![text("a")]).unwrap(), Said::Input(vec![Part::text("a")]));
        let answers = read(vec![confirm("ask_2", approve), confirm("ask_3", decline)]).unwrap();
        let expected = vec![(AskId(2), Answer::Approve), (AskId(3), Answer::Deny(String::new()))];
        assert_eq!(answers, Said::Answers(expected));
        let code = |inputs| read(inputs).unwrap_err().code;
        assert_eq!(code(vec![confirm("call_2", approve)]), Code::NotOpen);
        assert_eq!(code(vec![confirm("ask_2", None)]), Code::Invalid);
        assert_eq!(code(vec![text("a"), confirm("ask_2", approve)]), Code::Invalid);
        assert_eq!(code(vec![message("model", None)]), Code::Invalid);
        assert_eq!(code(vec![message("user", None)]), Code::Invalid);
    }

    #[test]
    fn a_key_stands_for_a_request() {
        let one = key(Seq(1), 0, &[text("a"), text("b")]);
        assert_eq!(one, key(Seq(1), 0, &[text("a"), text("b")]));
        assert_ne!(one, key(Seq(2), 0, &[text("a"), text("b")]));
        assert_ne!(one, key(Seq(1), 1, &[text("a"), text("b")]));
        assert_ne!(one, key(Seq(1), 0, &[text("ab")]));
    }
}
