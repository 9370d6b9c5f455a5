//! Large content goes to the blob store before an event refers to it, and comes back from there.

use crate::{Code, Error};
use ax_core::id::SessionKey;
use ax_core::session::{BlobRef, Body, Frame, Part};
use ax_harness::Content;
use ax_store::{BlobId, Blobs};
use bytes::Bytes;
use futures::TryStreamExt;
use std::path::Path;
use tokio::io::AsyncWriteExt;

/// The most text that the parts of one event hold themselves, in bytes, all together.
const PARTS_INLINE_BYTES_MAX: usize = Body::INLINE_BYTES_MAX;
/// The longest failure message that is kept, in bytes.
const MESSAGE_BYTES_MAX: usize = 32 * 1024;
/// The largest value that is handed to a harness in a frame, in bytes.
const VALUE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Moves large bodies out of and back into the blob store of a namespace.
#[derive(Clone, Debug)]
pub(crate) struct Bodies {
    blobs: Blobs,
}

impl Bodies {
    pub(crate) const fn new(blobs: Blobs) -> Self {
        Self { blobs }
    }

    /// Stores a text in the blob store if it is too large for an event.
    pub(crate) async fn spill(&self, key: &SessionKey, body: Body) -> Result<Body, Error> {
        match body {
            Body::Text(text) if text.len() > Body::INLINE_BYTES_MAX => self.store(key, text).await,
            body => Ok(body),
        }
    }

    async fn store(&self, key: &SessionKey, text: String) -> Result<Body, Error> {
        let put = self.blobs.put_bytes(&key.namespace, Bytes::from(text)).await;
        let blob = put.map_err(|error| blob_failed(&error))?;
        Ok(Body::Blob(BlobRef { hash: blob.id.0, bytes: blob.bytes }))
    }

    /// Stores the parts that are too large for one event.
    pub(crate) async fn spill_parts(
        &self,
        key: &SessionKey,
        parts: Vec<Part>,
    ) -> Result<Vec<Part>, Error> {
        let mut spilled = Vec::with_capacity(parts.len());
        let mut room = PARTS_INLINE_BYTES_MAX;
        for mut part in parts {
            part.body = match part.body {
                Body::Text(text) if text.len() > room => self.store(key, text).await?,
                body => body,
            };
            if let Body::Text(text) = &part.body {
                room -= text.len();
            }
            spilled.push(part);
        }
        Ok(spilled)
    }

    /// Stores what is too large for an event in what a harness said.
    pub(crate) async fn spill_frame(&self, key: &SessionKey, frame: Frame) -> Result<Frame, Error> {
        Ok(match frame {
            Frame::Output { block, key: name, parts } => {
                let parts = self.spill_parts(key, parts).await?;
                Frame::Output { block, key: name, parts }
            }
            Frame::StepBegin {
                step,
                kind,
                name,
                effect,
                digest,
                request,
                prefix,
                limit_millis,
            } => {
                let request = self.spill_option(key, request).await?;
                let (name, effect) = (short(name, 256), effect);
                Frame::StepBegin { step, kind, name, effect, digest, request, prefix, limit_millis }
            }
            Frame::StepEnd { step, result, usage } => {
                let result = match result {
                    Ok(body) => Ok(self.spill(key, body).await?),
                    Err(mut failure) => {
                        failure.message = short(failure.message, MESSAGE_BYTES_MAX);
                        failure.code = short(failure.code, 256);
                        Err(failure)
                    }
                };
                Frame::StepEnd { step, result, usage }
            }
            Frame::Ask { key: name, kind, prompt, choices, details, expires_millis } => {
                let details = self.spill_option(key, details).await?;
                Frame::Ask { key: name, kind, prompt, choices, details, expires_millis }
            }
            Frame::Note { key: name, name: note, data } => {
                let data = self.spill(key, data).await?;
                Frame::Note { key: name, name: note, data }
            }
            Frame::End { result } => Frame::End { result: self.spill_option(key, result).await? },
            Frame::Fail { mut failure, retry } => {
                failure.message = short(failure.message, MESSAGE_BYTES_MAX);
                failure.code = short(failure.code, 256);
                Frame::Fail { failure, retry }
            }
            other => other,
        })
    }

    async fn spill_option(
        &self,
        key: &SessionKey,
        body: Option<Body>,
    ) -> Result<Option<Body>, Error> {
        match body {
            Some(body) => Ok(Some(self.spill(key, body).await?)),
            None => Ok(None),
        }
    }

    /// Returns the text of a body.
    pub(crate) async fn text(&self, key: &SessionKey, body: &Body) -> Result<String, Error> {
        let blob = match body {
            Body::Text(text) => return Ok(text.clone()),
            Body::Blob(blob) => blob,
        };
        let id = BlobId(blob.hash);
        let read = self.blobs.get_bytes(&key.namespace, &id, VALUE_BYTES_MAX).await;
        let bytes = read.map_err(|error| blob_failed(&error))?;
        let text = String::from_utf8(bytes.to_vec());
        text.map_err(|_| Error::new(Code::Damaged, format!("{blob} is not text")))
    }

    /// Returns a part whose content is at hand: small texts here, the rest in a file in the
    /// workspace. Nothing of the session may run.
    pub(crate) async fn content(
        &self,
        key: &SessionKey,
        part: &Part,
        workspace: &Path,
    ) -> Result<Content, Error> {
        let mut content = Content {
            kind: part.kind,
            media_type: part.media_type.clone(),
            name: part.name.clone(),
            text: String::new(),
            file: None,
        };
        match &part.body {
            Body::Text(text) => content.text.clone_from(text),
            Body::Blob(blob) => {
                let dir = ax_harness::own_dir(workspace, ".ax/blobs".as_ref());
                let path = dir.map(|dir| dir.join(blob.to_string())).map_err(|error| {
                    let what = format!("{}/.ax/blobs cannot be made", workspace.display());
                    Error::new(Code::Directory, what).caused_by(&error)
                })?;
                self.write_file(key, *blob, &path).await?;
                content.file = Some((path, blob.to_string(), blob.bytes));
            }
        }
        Ok(content)
    }

    async fn write_file(&self, key: &SessionKey, blob: BlobRef, path: &Path) -> Result<(), Error> {
        let found = tokio::fs::symlink_metadata(path).await;
        let is_there = found.is_ok_and(|found| found.is_file() && found.len() == blob.bytes);
        if is_there {
            return Ok(());
        }
        let failed = |error: std::io::Error| {
            Error::new(Code::Directory, format!("writing {} failed", path.display()))
                .caused_by(&error)
        };
        let opened = self.blobs.get(&key.namespace, &BlobId(blob.hash)).await;
        let mut pieces = opened.map_err(|error| blob_failed(&error))?;
        let part = path.with_extension("part");
        // What a harness left there is not followed.
        let _was_there = tokio::fs::remove_file(&part).await;
        let mut file = tokio::fs::File::create_new(&part).await.map_err(failed)?;
        while let Some(piece) = pieces.try_next().await.map_err(|error| blob_failed(&error))? {
            file.write_all(&piece).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        drop(file);
        tokio::fs::rename(&part, path).await.map_err(failed)
    }
}

/// Cuts a text that is too long, at a character's border.
pub(crate) fn short(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let cut = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(cut);
    }
    text
}

fn blob_failed(error: &(dyn std::error::Error + 'static)) -> Error {
    let code = match error.downcast_ref::<ax_store::GetError>() {
        Some(ax_store::GetError::TooLarge { .. }) => Code::TooLarge,
        Some(ax_store::GetError::Missing { .. }) => Code::NoBlob,
        _ => Code::Read,
    };
    let failed = Error::new(code, error.to_string());
    match error.source() {
        Some(source) => failed.caused_by(source),
        None => failed,
    }
}
