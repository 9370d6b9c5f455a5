//! What was said, as an agent is told of it.

use super::failure;
use crate::launch::{Content, Role, Turn};
use ax_core::session::{Failure, PartKind};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use std::path::Path;

/// How much of the conversation is told as text, in bytes.
const HISTORY_BYTES_MAX: usize = 256 * 1024;
/// What the media type of a part ends in whose text is the content in base64.
pub(crate) const BASE64: &str = ";base64";

/// Returns the text of a part.
pub(crate) fn words(part: &Content) -> Result<String, Failure> {
    Ok(match &part.file {
        None => part.text.clone(),
        Some((path, ..)) => String::from_utf8_lossy(&read(path)?).into_owned(),
    })
}

/// Returns the media type of a part, and its content in base64.
pub(crate) fn in_base64(part: &Content) -> Result<(String, String), Failure> {
    match (part.media_type.strip_suffix(BASE64), &part.file) {
        (Some(media_type), _) => Ok((media_type.to_owned(), words(part)?)),
        (None, Some((path, ..))) => {
            Ok((part.media_type.clone(), BASE64_STANDARD.encode(read(path)?)))
        }
        (None, None) => Ok((part.media_type.clone(), BASE64_STANDARD.encode(&part.text))),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    crate::own::read_input(path)
        .map_err(|error| failure("input", format!("{} cannot be read: {error}", path.display())))
}

/// Returns what was said in a message, in words.
pub(crate) fn said(turn: &Turn) -> Result<String, Failure> {
    let mut said = Vec::new();
    for part in &turn.parts {
        match part.kind {
            PartKind::Text => said.push(words(part)?),
            // What an agent thought is its own affair, and its tools' results are in its words.
            PartKind::Thought | PartKind::ToolResult => {}
            PartKind::ToolCall => said.push(format!("[used the tool {}]", part.name)),
            PartKind::Image
            | PartKind::Audio
            | PartKind::Video
            | PartKind::Document
            | PartKind::Data => said.push(format!("[{} {}]", part.media_type, part.name)),
        }
    }
    Ok(said.join("\n"))
}

/// Returns what was said before, as text, for an agent that does not know
/// it: at most [`HISTORY_BYTES_MAX`], the newest.
pub(crate) fn history(turns: &[Turn]) -> Result<Option<String>, Failure> {
    let mut told = Vec::new();
    let mut room = HISTORY_BYTES_MAX;
    for turn in turns.iter().rev() {
        let said = said(turn)?;
        if said.is_empty() {
            continue;
        }
        if said.len() > room {
            told.push("(What was said before this is left out.)".to_owned());
            break;
        }
        room -= said.len();
        let who = match turn.role {
            Role::User => "User",
            Role::Agent => "You",
        };
        told.push(format!("{who}: {said}"));
    }
    if told.is_empty() {
        return Ok(None);
    }
    told.reverse();
    let told = told.join("\n\n");
    Ok(Some(format!(
        "What was said in this conversation before, for your information:\n\n{told}\n\n\
         What follows is what you are asked now."
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(text: &str) -> Content {
        let (kind, media_type) = (PartKind::Text, "text/plain".to_owned());
        Content { kind, media_type, name: String::new(), text: text.into(), file: None }
    }

    #[test]
    fn the_newest_of_the_history_is_told() {
        let turn = |role, text: &str| Turn { role, parts: vec![part(text)] };
        assert_eq!(history(&[]).unwrap(), None);
        let turns = [turn(Role::User, "one"), turn(Role::Agent, "two")];
        let told = history(&turns).unwrap().unwrap();
        assert!(told.contains("User: one\n\nYou: two"), "{told}");
        let long = "x".repeat(HISTORY_BYTES_MAX);
        let turns = [turn(Role::User, &long), turn(Role::Agent, "two")];
        let told = history(&turns).unwrap().unwrap();
        assert!(told.contains("is left out.)\n\nYou: two"), "{told}");
    }
}
