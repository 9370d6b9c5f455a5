//! What was said, as an agent is told of it.

use super::failure;
use crate::launch::{Content, Turn};
use ax_core::session::{Failure, PartKind};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use std::fs;
use std::path::Path;

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
    fs::read(path)
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
