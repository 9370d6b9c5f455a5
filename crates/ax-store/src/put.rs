//! Taking contents in.

use crate::blobs::{Blobs, Inner, UnderWay};
use crate::error::{PutError, StoreError, failed};
use crate::id::{Blob, BlobId};
use crate::layout;
use ax_core::id::Namespace;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, Stream, StreamExt};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt};

/// A content up to this length is written at once; a longer one goes through an upload in parts of
/// this length. It bounds the memory of a `put`, and is above the 5 MiB that S3 asks of a part.
pub const PART_BYTES: usize = 8 << 20;

/// How much is read from an [`AsyncRead`] at a time.
const READ_BYTES: usize = 64 << 10;

impl Blobs {
    /// Takes in a content that is given piece by piece. When this returns the blob is durable.
    ///
    /// A content that is already there is written again: that makes it young, so that no
    /// collection removes it before its new reference is in a log, and it heals damage.
    ///
    /// # Errors
    ///
    /// Returns [`PutError`] if the content breaks off, is longer than `bytes_max`, or the store
    /// fails. Nothing can be seen of it then.
    ///
    /// # Cancellation
    ///
    /// Dropping the future leaves nothing to be seen, or the whole blob.
    pub async fn put(
        &self,
        namespace: &Namespace,
        content: impl Stream<Item = io::Result<Bytes>> + Send,
        bytes_max: u64,
    ) -> Result<Blob, PutError> {
        self.inner.prepare(namespace).await?;
        let mut intake = Intake::new(&self.inner, namespace, bytes_max);
        match intake.take_all(content).await {
            Ok(()) => Ok(intake.publish().await?),
            Err(error) => {
                intake.abandon().await;
                Err(error)
            }
        }
    }

    /// Takes in a content that is in memory. When this returns the blob is durable.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] if the store fails.
    pub async fn put_bytes(
        &self,
        namespace: &Namespace,
        content: Bytes,
    ) -> Result<Blob, StoreError> {
        self.inner.prepare(namespace).await?;
        let blob = Blob { id: BlobId::of(&content), bytes: content.len() as u64 };
        self.inner.publish_at_once(namespace, blob, content).await
    }

    /// Takes in what a reader gives, as [`Blobs::put`] does.
    ///
    /// # Errors
    ///
    /// As [`Blobs::put`].
    pub async fn put_reader(
        &self,
        namespace: &Namespace,
        content: impl AsyncRead + Send + Unpin,
        bytes_max: u64,
    ) -> Result<Blob, PutError> {
        let pieces = stream::try_unfold(content, |mut content| async move {
            let mut piece = BytesMut::with_capacity(READ_BYTES);
            let read = content.read_buf(&mut piece).await?;
            io::Result::Ok((read > 0).then(|| (piece.freeze(), content)))
        });
        self.put(namespace, pieces, bytes_max).await
    }
}

impl Inner {
    /// Makes the directories of a namespace durable before anything is put into them.
    async fn prepare(&self, namespace: &Namespace) -> Result<(), StoreError> {
        match &self.local {
            Some(local) => local.prepare(namespace).await,
            None => Ok(()),
        }
    }

    /// Writes a content under its name, in one atomic step of the store.
    async fn publish_at_once(
        &self,
        namespace: &Namespace,
        blob: Blob,
        content: Bytes,
    ) -> Result<Blob, StoreError> {
        let path = layout::blob(namespace, &blob.id);
        // Held over the write: a removal that has seen the old blob must not remove the new one.
        let _shared = self.shard(&blob.id).read().await;
        let written = self.store.put(&path, PutPayload::from(content)).await;
        written.map_err(failed(format!("write {}", blob.id)))?;
        self.counting.put(blob.bytes);
        Ok(blob)
    }
}

/// A large content on its way into the store.
#[derive(Debug)]
struct Upload {
    parts: Box<dyn MultipartUpload>,
    path: Path,
    _under_way: UnderWay,
}

/// A content while it is taken in.
#[derive(Debug)]
struct Intake<'a> {
    inner: &'a Arc<Inner>,
    namespace: &'a Namespace,
    bytes_max: u64,
    bytes: u64,
    hasher: blake3::Hasher,
    /// What is not yet in the upload, at most [`PART_BYTES`].
    buffer: BytesMut,
    /// Begun when the buffer is full and there is more.
    upload: Option<Upload>,
}

impl<'a> Intake<'a> {
    fn new(inner: &'a Arc<Inner>, namespace: &'a Namespace, bytes_max: u64) -> Self {
        let hasher = blake3::Hasher::new();
        let buffer = BytesMut::new();
        Self { inner, namespace, bytes_max, bytes: 0, hasher, buffer, upload: None }
    }

    async fn take_all(
        &mut self,
        content: impl Stream<Item = io::Result<Bytes>> + Send,
    ) -> Result<(), PutError> {
        let mut content = pin!(content);
        while let Some(piece) = content.next().await {
            let mut piece = piece.map_err(|source| PutError::Content { source })?;
            self.bytes += piece.len() as u64;
            if self.bytes > self.bytes_max {
                return Err(PutError::TooLarge { bytes_max: self.bytes_max });
            }
            self.hasher.update(&piece);
            while !piece.is_empty() {
                if self.buffer.len() == PART_BYTES {
                    self.send_part().await?;
                }
                let room = PART_BYTES - self.buffer.len();
                self.buffer.extend_from_slice(&piece.split_to(room.min(piece.len())));
            }
        }
        Ok(())
    }

    /// Moves the buffer into the upload, which is begun if there is none.
    async fn send_part(&mut self) -> Result<(), StoreError> {
        if self.upload.is_none() {
            self.upload = Some(begin(self.inner, self.namespace).await?);
        }
        let upload = self.upload.as_mut().expect("it was just begun");
        let part = self.buffer.split().freeze();
        upload.parts.put_part(part.into()).await.map_err(failed("write a part of an upload"))
    }

    /// Gives the content its name. From here on it can be seen.
    async fn publish(mut self) -> Result<Blob, StoreError> {
        let blob = Blob { id: BlobId(*self.hasher.finalize().as_bytes()), bytes: self.bytes };
        if self.upload.is_none() {
            let content = self.buffer.split().freeze();
            return self.inner.publish_at_once(self.namespace, blob, content).await;
        }
        if let Err(error) = self.send_part().await {
            self.abandon().await;
            return Err(error);
        }
        let mut upload = self.upload.take().expect("it was begun");
        upload.parts.complete().await.map_err(failed("complete an upload"))?;
        let path = layout::blob(self.namespace, &blob.id);
        // As in `publish_at_once`.
        let _shared = self.inner.shard(&blob.id).read().await;
        let named = self.inner.store.rename(&upload.path, &path).await;
        named.map_err(failed(format!("name {}", blob.id)))?;
        self.inner.counting.put(blob.bytes);
        Ok(blob)
    }

    /// Drops what was uploaded. A failure to do so leaves a leftover for the next collection.
    async fn abandon(&mut self) {
        if let Some(mut upload) = self.upload.take() {
            drop(upload.parts.abort().await);
        }
    }
}

async fn begin(inner: &Arc<Inner>, namespace: &Namespace) -> Result<Upload, StoreError> {
    let under_way = inner.begin_upload();
    let path = layout::staging(namespace, &under_way.name);
    let parts = inner.store.put_multipart(&path).await.map_err(failed("begin an upload"))?;
    Ok(Upload { parts, path, _under_way: under_way })
}
