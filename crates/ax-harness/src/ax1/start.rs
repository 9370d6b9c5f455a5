//! What a server is told at the start of a turn.

use super::config::Config;
use super::content::{role, sent};
use super::failure;
use crate::launch::{AskResult, Content, JournalEntry, JournalKind, Launch, Role};
use ax_core::session::{Answer, Failure, PartKind};
use ax_proto::ax1::{self, confirmation_content, content};
use std::fs;

/// The largest content that is sent, in bytes.
const CONTENT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A question that the server asked, and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Asked {
    /// The server's name for it.
    pub(super) id: String,
    /// In which turn of the execution it was asked, counted from 1.
    pub(super) turn: u32,
    /// What came of it; `None` while it is open.
    pub(super) result: Option<AskResult>,
}

impl Asked {
    const PREFIX: &str = "confirm:";

    /// The key that it has in our log.
    pub(super) fn key(&self) -> String {
        format!("{}{}:{}", Self::PREFIX, self.turn, self.id)
    }

    fn of(entry: &JournalEntry) -> Option<Self> {
        let JournalKind::Ask(result) = &entry.kind else { return None };
        let (turn, id) = entry.key.as_str().strip_prefix(Self::PREFIX)?.split_once(':')?;
        Some(Self { id: id.into(), turn: turn.parse().ok()?, result: result.clone() })
    }

    /// What the server is told of it.
    pub(super) fn message(&self) -> ax1::Message {
        use confirmation_content::Decision;
        let decision = match &self.result {
            Some(AskResult::Answered(Answer::Approve)) => {
                Decision::Approval(ax1::ApprovalDecision { approved: true })
            }
            _ => Decision::Decline(ax1::DeclineDecision { declined: true }),
        };
        let confirmation = ax1::ConfirmationContent {
            id: self.id.clone(),
            decision: Some(decision),
            ..Default::default()
        };
        message("user", content::Type::Confirmation(confirmation))
    }
}

/// Returns the questions of earlier attempts, in their order.
pub(super) fn asked(journal: &[JournalEntry]) -> Vec<Asked> {
    journal.iter().filter_map(Asked::of).collect()
}

/// Returns the messages that an execution begins with: what was said before, then the input. Its
/// texts come last and in one message, since some servers look at nothing else.
pub(super) fn messages(config: &Config, launch: &Launch) -> Result<Vec<ax1::Message>, Failure> {
    let mut messages = Vec::new();
    if config.history {
        for turn in &launch.history {
            for part in &turn.parts {
                let role = match turn.role {
                    Role::User => "user",
                    Role::Agent => role(part.kind),
                };
                messages.push(of_part(role, part)?);
            }
        }
    }
    let mut texts = Vec::new();
    for part in &launch.input {
        if part.kind == PartKind::Text {
            texts.push(String::from_utf8_lossy(&bytes(part)?).into_owned());
        } else {
            messages.push(of_part("user", part)?);
        }
    }
    if !texts.is_empty() {
        let text = ax1::TextContent { text: texts.join("\n\n") };
        messages.push(message("user", content::Type::Text(text)));
    }
    Ok(messages)
}

fn message(role: &str, content: content::Type) -> ax1::Message {
    let content = Some(ax1::Content { r#type: Some(content) });
    ax1::Message { role: role.into(), content, internal_only: false }
}

fn of_part(role: &str, part: &Content) -> Result<ax1::Message, Failure> {
    let content = sent(part.kind, &part.media_type, &part.name, bytes(part)?);
    Ok(ax1::Message { role: role.into(), content: Some(content), internal_only: false })
}

fn bytes(part: &Content) -> Result<Vec<u8>, Failure> {
    let Some((path, _, bytes)) = &part.file else { return Ok(part.text.clone().into_bytes()) };
    if *bytes > CONTENT_BYTES_MAX {
        let message = format!("a content of {bytes} bytes is more than a message can have");
        return Err(failure("input_too_large", message));
    }
    fs::read(path)
        .map_err(|error| failure("input", format!("{} cannot be read: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ax_core::id::Seq;

    #[test]
    fn questions_are_found_again_by_their_keys() {
        let asked_before = Asked {
            id: "call:7".into(),
            turn: 2,
            result: Some(AskResult::Answered(Answer::Approve)),
        };
        let kind = JournalKind::Ask(asked_before.result.clone());
        let entry = JournalEntry { key: asked_before.key().into(), seq: Seq(4), kind };
        let other = JournalEntry { key: "note".into(), seq: Seq(5), kind: JournalKind::Checkpoint };
        assert_eq!(asked(&[entry, other]), std::slice::from_ref(&asked_before));
        let Some(content::Type::Confirmation(told)) =
            asked_before.message().content.and_then(|content| content.r#type)
        else {
            panic!("a confirmation");
        };
        assert_eq!(told.id, "call:7");
        let approval = ax1::ApprovalDecision { approved: true };
        assert_eq!(told.decision, Some(confirmation_content::Decision::Approval(approval)));
        let expired = Asked { result: Some(AskResult::Expired), ..asked_before };
        let Some(content::Type::Confirmation(told)) =
            expired.message().content.and_then(|content| content.r#type)
        else {
            panic!("a confirmation");
        };
        assert!(matches!(told.decision, Some(confirmation_content::Decision::Decline(_))));
    }
}
