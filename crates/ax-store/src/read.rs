//! Giving contents out, verified.

use crate::blobs::{Blobs, Usage};
use crate::error::{GetError, StoreError, failed};
use crate::id::BlobId;
use crate::layout::{self, Place};
use ax_core::id::Namespace;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The content of a blob, piece by piece.
///
/// Each piece is held back until the next one is there, and the last one until the whole content
/// is verified: a reader that came to the end without an error has what was put, and a reader of
/// damaged content never has all of it.
pub struct BlobStream {
    bytes: u64,
    pieces: BoxStream<'static, Result<Bytes, GetError>>,
}

/// What a check of a namespace found.
#[derive(Debug, Default)]
pub struct Verification {
    /// What is kept, damaged blobs included.
    pub usage: Usage,
    /// The damaged blobs, each as the error that reading it gives.
    pub damaged: Vec<GetError>,
    /// Objects that this crate did not put there. Nothing ever touches them.
    pub foreign_count: u64,
}

/// A read under way.
struct Reading {
    id: BlobId,
    pieces: BoxStream<'static, object_store::Result<Bytes>>,
    hasher: blake3::Hasher,
    bytes: u64,
    held: Option<Bytes>,
    ended: bool,
}

impl Blobs {
    /// Opens a blob for reading.
    ///
    /// # Errors
    ///
    /// Returns [`GetError`] if the blob is not in this namespace or the store fails; the stream
    /// does so later, also if the content is damaged.
    pub async fn get(&self, namespace: &Namespace, id: &BlobId) -> Result<BlobStream, GetError> {
        let found = self.inner.store.get(&layout::blob(namespace, id)).await;
        let found = found.map_err(|error| get_error(*id, error))?;
        let bytes = found.meta.size;
        self.inner.counting.get();
        let reading = Reading {
            id: *id,
            pieces: found.into_stream(),
            hasher: blake3::Hasher::new(),
            bytes: 0,
            held: None,
            ended: false,
        };
        Ok(BlobStream { bytes, pieces: stream::try_unfold(reading, Reading::next).boxed() })
    }

    /// Reads a whole blob into memory.
    ///
    /// # Errors
    ///
    /// Returns [`GetError`] if the blob is not in this namespace, has more than `bytes_max` bytes,
    /// is damaged, or the store fails.
    pub async fn get_bytes(
        &self,
        namespace: &Namespace,
        id: &BlobId,
        bytes_max: u64,
    ) -> Result<Bytes, GetError> {
        let mut pieces = self.get(namespace, id).await?;
        let too_large = |bytes| GetError::TooLarge { id: *id, bytes, bytes_max };
        if pieces.bytes > bytes_max {
            return Err(too_large(pieces.bytes));
        }
        let mut content = BytesMut::new();
        while let Some(piece) = pieces.try_next().await? {
            if content.is_empty() && piece.len() as u64 == pieces.bytes {
                // The usual small blob comes in one piece, which need not be copied.
                return pieces.try_next().await.map(|_| piece);
            }
            content.extend_from_slice(&piece);
            if content.len() as u64 > bytes_max {
                return Err(too_large(content.len() as u64));
            }
        }
        Ok(content.freeze())
    }

    /// Reads every blob of a namespace and tells which are damaged. For `fsck`; slow by nature.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] if the store fails. Damage is no error here but a finding.
    pub async fn verify_all(&self, namespace: &Namespace) -> Result<Verification, StoreError> {
        let mut verification = Verification::default();
        let mut places = self.places(namespace);
        while let Some((place, meta)) = places.try_next().await? {
            let id = match place {
                Place::Blob(id) => id,
                Place::Staging(_) => continue,
                Place::Foreign => {
                    verification.foreign_count += 1;
                    continue;
                }
            };
            match self.verify(namespace, &id).await {
                Ok(()) => {}
                // Removed since it was listed.
                Err(GetError::Missing { .. }) => continue,
                Err(GetError::Store(error)) => return Err(error),
                Err(damaged) => verification.damaged.push(damaged),
            }
            verification.usage.count += 1;
            verification.usage.bytes += meta.size;
        }
        Ok(verification)
    }

    /// Reads a blob to its end.
    async fn verify(&self, namespace: &Namespace, id: &BlobId) -> Result<(), GetError> {
        let mut pieces = self.get(namespace, id).await?;
        while pieces.try_next().await?.is_some() {}
        Ok(())
    }
}

impl Reading {
    /// Returns the next piece that may be given out.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, GetError> {
        while !self.ended {
            let piece = self.pieces.try_next().await.map_err(|error| get_error(self.id, error))?;
            let Some(piece) = piece else {
                self.ended = true;
                self.check()?;
                break;
            };
            if piece.is_empty() {
                continue;
            }
            self.bytes += piece.len() as u64;
            self.hasher.update(&piece);
            if let Some(held) = self.held.replace(piece) {
                return Ok(Some((held, self)));
            }
        }
        Ok(self.held.take().map(|last| (last, self)))
    }

    /// Compares what was read with the name it was read under.
    fn check(&self) -> Result<(), GetError> {
        let found = BlobId(*self.hasher.finalize().as_bytes());
        if found == self.id {
            return Ok(());
        }
        Err(GetError::Damaged { id: self.id, bytes: self.bytes, found })
    }
}

impl BlobStream {
    /// Returns the length that is kept, in bytes; the length of the content unless it is damaged.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Stream for BlobStream {
    type Item = Result<Bytes, GetError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.pieces.poll_next_unpin(context)
    }
}

impl fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobStream").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

fn get_error(id: BlobId, error: object_store::Error) -> GetError {
    match error {
        object_store::Error::NotFound { .. } => GetError::Missing { id },
        error => GetError::Store(failed(format!("read {id}"))(error)),
    }
}
