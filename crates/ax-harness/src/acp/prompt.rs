//! What an agent is told.

use crate::launch::{Content, Launch};
use crate::turn::said::{BASE64, in_base64, words};
use ax_core::session::{Failure, PartKind};
use serde_json::{Value, json};
use std::path::Path;

/// The largest content that is sent as it is, in bytes; a larger one is named by its file.
const CONTENT_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// What a prompt may contain beside text and links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Takes {
    image: bool,
    audio: bool,
    embedded: bool,
}

impl Takes {
    /// Reads `promptCapabilities`.
    pub(super) fn of(capabilities: &Value) -> Self {
        let has = |name: &str| capabilities.get(name) == Some(&Value::Bool(true));
        Self { image: has("image"), audio: has("audio"), embedded: has("embeddedContext") }
    }
}

/// Returns the blocks of a prompt.
pub(super) fn blocks(launch: &Launch, takes: Takes) -> Result<Vec<Value>, Failure> {
    launch.input.iter().map(|part| block(part, takes)).collect()
}

/// Returns a block of text.
pub(super) fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

fn block(part: &Content, takes: Takes) -> Result<Value, Failure> {
    if part.kind == PartKind::Text {
        return Ok(text(&words(part)?));
    }
    let kind = match part.kind {
        PartKind::Image if takes.image => Some("image"),
        PartKind::Audio if takes.audio => Some("audio"),
        _ => None,
    };
    let too_large = part.file.as_ref().is_some_and(|(_, _, bytes)| *bytes > CONTENT_BYTES_MAX);
    if let Some(kind) = kind.filter(|_| !too_large) {
        let (media_type, data) = in_base64(part)?;
        return Ok(json!({"type": kind, "mimeType": media_type, "data": data}));
    }
    if let Some((path, _, bytes)) = &part.file {
        let name = if part.name.is_empty() { file_name(path) } else { part.name.clone() };
        let uri = uri(path);
        return Ok(json!({"type": "resource_link", "name": name, "uri": uri,
            "mimeType": part.media_type, "size": bytes}));
    }
    if takes.embedded && !part.media_type.ends_with(BASE64) {
        let name = if part.name.is_empty() { "input" } else { &part.name };
        let uri = format!("attachment:///{}", name.replace(' ', "%20"));
        return Ok(json!({"type": "resource", "resource":
            {"uri": uri, "mimeType": part.media_type, "text": part.text}}));
    }
    Ok(text(&part.text))
}

fn uri(path: &Path) -> String {
    let url =
        std::path::absolute(path).ok().and_then(|path| reqwest::Url::from_file_path(path).ok());
    url.map_or_else(|| path.display().to_string(), String::from)
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| "file".into(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn part(kind: PartKind, media_type: &str, text: &str) -> Content {
        let (media_type, name) = (media_type.to_owned(), "n".to_owned());
        Content { kind, media_type, name, text: text.into(), file: None }
    }

    #[test]
    fn a_part_is_sent_as_the_agent_takes_it() {
        let all = Takes::of(&json!({"image": true, "audio": true, "embeddedContext": true}));
        let none = Takes::default();
        let check = |part: &Content, takes, expect: Value| {
            assert_eq!(block(part, takes).unwrap(), expect);
        };
        check(&part(PartKind::Text, "text/plain", "t"), none, text("t"));
        let image = part(PartKind::Image, "image/png;base64", "AAA=");
        check(&image, all, json!({"type": "image", "mimeType": "image/png", "data": "AAA="}));
        let data = part(PartKind::Data, "application/json", "{}");
        check(&data, none, text("{}"));
        let resource =
            json!({"uri": "attachment:///n", "mimeType": "application/json", "text": "{}"});
        check(&data, all, json!({"type": "resource", "resource": resource}));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a b.png");
        fs::write(&path, [0, 255]).unwrap();
        let file = Content { file: Some((path.clone(), "id".into(), 2)), ..image };
        let file = Content { media_type: "image/png".into(), ..file };
        check(&file, all, json!({"type": "image", "mimeType": "image/png", "data": "AP8="}));
        let uri = format!("file://{}/a%20b.png", dir.path().display());
        let link = json!({"type": "resource_link", "name": "n", "uri": uri,
            "mimeType": "image/png", "size": 2});
        check(&file, none, link);
    }
}
