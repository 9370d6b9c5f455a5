//! The input of `ax run`: from arguments, files and standard input.

use crate::failure::Failure;
use ax_client::Client;
use ax_engine::Code;
use ax_proto::v1;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The largest text that a request holds itself, in bytes; more is streamed.
const INLINE_BYTES_MAX: usize = 64 << 10;
/// The largest input, in bytes.
const INPUT_BYTES_MAX: u64 = 1 << 30;

/// Gathers the parts of an input; large ones are stored on the way.
pub(crate) async fn parts(
    client: &Client,
    words: &[String],
    files: &[PathBuf],
) -> Result<Vec<v1::Part>, Failure> {
    let mut parts = Vec::new();
    if !words.is_empty() {
        let text = words.join(" ");
        let part = part(client, "", text.as_bytes(), tokio::io::empty()).await?;
        parts.extend(part);
    } else if !io::stdin().is_terminal() {
        parts.extend(stream(client, "", tokio::io::stdin()).await?);
    }
    for file in files {
        parts.extend(from_file(client, file).await?);
    }
    if parts.is_empty() {
        return Err(Failure::usage("the input is empty")
            .hint("say it in the arguments, in a file with --file, or on standard input"));
    }
    Ok(parts)
}

async fn from_file(client: &Client, path: &Path) -> Result<Option<v1::Part>, Failure> {
    let failed = |error| Failure::file("read", path, &error);
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let about = file.metadata().await.map_err(failed)?;
    if about.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    if about.len() > INPUT_BYTES_MAX {
        let message = format!("{} is larger than 1 GiB", path.display());
        return Err(Failure::new(Code::TooLarge, message)
            .hint("put it where the agent can read it, and name it in the input"));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    stream(client, &name, file).await
}

/// Reads a content: its beginning here, the rest only if it is large.
async fn stream(
    client: &Client,
    name: &str,
    mut content: impl AsyncRead + Unpin,
) -> Result<Option<v1::Part>, Failure> {
    let mut head = Vec::with_capacity(INLINE_BYTES_MAX + 1);
    let read = (&mut content).take(INLINE_BYTES_MAX as u64 + 1).read_to_end(&mut head).await;
    if let Err(error) = read {
        let what = if name.is_empty() { "standard input" } else { name };
        return Err(Failure::file("read", Path::new(what), &error));
    }
    part(client, name, &head, content).await
}

/// Makes a part of a content; `None` if there is nothing in it.
async fn part(
    client: &Client,
    name: &str,
    head: &[u8],
    rest: impl AsyncRead + Unpin,
) -> Result<Option<v1::Part>, Failure> {
    if head.is_empty() {
        return Ok(None);
    }
    let text = is_text(head);
    let (kind, media_type) = kind_of(name, text);
    let body = match std::str::from_utf8(head) {
        Ok(text) if head.len() <= INLINE_BYTES_MAX => v1::body::Body::Text(text.to_owned()),
        _ => {
            let stored = client.write_blob(head.chain(rest)).await?;
            v1::body::Body::Blob(v1::BlobRef { hash: hash_of(&stored.id)?, bytes: stored.bytes })
        }
    };
    Ok(Some(v1::Part {
        kind: kind.into(),
        media_type: media_type.into(),
        name: name.into(),
        body: Some(v1::Body { body: Some(body) }),
    }))
}

/// Whether the beginning of a content is text: UTF-8, but for a character that is cut, and no NUL.
fn is_text(head: &[u8]) -> bool {
    let valid = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none() && head.len() > INLINE_BYTES_MAX,
    };
    valid && !head.contains(&0)
}

/// The kind and media type of a content, by the end of its name.
fn kind_of(name: &str, text: bool) -> (v1::PartKind, &'static str) {
    use v1::PartKind::{Audio, Document, Image, Text, Video};
    let extension = Path::new(name).extension().unwrap_or_default().to_string_lossy();
    match (&*extension.to_ascii_lowercase(), text) {
        ("png", _) => (Image, "image/png"),
        ("jpg" | "jpeg", _) => (Image, "image/jpeg"),
        ("gif", _) => (Image, "image/gif"),
        ("webp", _) => (Image, "image/webp"),
        ("svg", _) => (Image, "image/svg+xml"),
        ("mp3", _) => (Audio, "audio/mpeg"),
        ("wav", _) => (Audio, "audio/wav"),
        ("ogg", _) => (Audio, "audio/ogg"),
        ("mp4", _) => (Video, "video/mp4"),
        ("webm", _) => (Video, "video/webm"),
        ("pdf", _) => (Document, "application/pdf"),
        ("md", true) => (Text, "text/markdown"),
        ("json", true) => (Text, "application/json"),
        (_, true) => (Text, "text/plain"),
        (_, false) => (Document, "application/octet-stream"),
    }
}

/// The hash in a blob's id.
fn hash_of(id: &str) -> Result<Vec<u8>, Failure> {
    let digits = id.strip_prefix("blob_").unwrap_or_default().as_bytes();
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(text, 16).ok()
    };
    let hash: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    match hash {
        Some(hash) if hash.len() == 32 => Ok(hash),
        _ => Err(Failure::new(Code::Internal, format!("{id:?} is not a blob id"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_told_from_binary() {
        assert!(is_text("für".as_bytes()));
        assert!(!is_text(b"\xff\xfe"));
        assert!(!is_text(b"a\0b"));
        let mut cut = vec![b'a'; INLINE_BYTES_MAX];
        cut.push("ü".as_bytes()[0]);
        assert!(is_text(&cut));
    }

    #[test]
    fn a_blob_id_holds_its_hash() {
        let id = format!("blob_{}", "0a".repeat(32));
        assert_eq!(hash_of(&id).unwrap(), [10; 32]);
        assert!(hash_of("blob_0a").is_err());
    }
}
