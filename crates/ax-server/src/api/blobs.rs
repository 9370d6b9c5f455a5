//! Contents that are streamed.

use super::{Api, Stream};
use crate::caller::{Act, Asker};
use crate::{BLOB_BYTES_MAX, CHUNK_BYTES_MAX};
use ax_engine::{Code, Error};
use ax_proto::v1;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Cuts a stream into chunks of at most [`CHUNK_BYTES_MAX`].
pub(crate) fn chunks(content: Stream<Bytes>) -> Stream<Bytes> {
    let chunks = content.flat_map(|piece| {
        let pieces = match piece {
            Ok(mut piece) => {
                let mut pieces = Vec::with_capacity(piece.len() / CHUNK_BYTES_MAX + 1);
                while piece.len() > CHUNK_BYTES_MAX {
                    pieces.push(Ok(piece.split_to(CHUNK_BYTES_MAX)));
                }
                pieces.push(Ok(piece));
                pieces
            }
            Err(error) => vec![Err(error)],
        };
        stream::iter(pieces)
    });
    chunks.boxed()
}

impl Api {
    /// Streams a blob; says how long it is.
    pub(crate) async fn read_blob(
        self,
        asker: Asker,
        request: v1::ReadBlobRequest,
    ) -> Result<(Stream<Bytes>, u64), Error> {
        let namespace = asker.namespace(Act::Read, &request.namespace)?;
        let id = request.id.parse();
        let id = id.map_err(|_| {
            Error::invalid(format!("{:?} is not a blob id", request.id))
                .with_hint("a blob id is blob_ and 64 hexadecimal digits")
        })?;
        let blobs = self.engine().blobs();
        let known = blobs.stat(&namespace, &id).await.map_err(|error| failed(&error))?;
        asker.content(&id.0)?;
        let Some(known) = known else {
            let message = format!("there is no {id} in this namespace");
            return Err(Error::new(Code::NoBlob, message));
        };
        let content = blobs.get(&namespace, &id).await.map_err(|error| failed(&error))?;
        let content = content.map(|piece| piece.map_err(|error| failed(&error))).boxed();
        Ok((chunks(content), known.bytes))
    }

    /// Stores a blob.
    pub(crate) async fn write_blob(
        self,
        asker: Asker,
        namespace: &str,
        content: Stream<Bytes>,
    ) -> Result<v1::WriteBlobResponse, Error> {
        let namespace = asker.namespace(Act::Write, namespace)?;
        let bytes = Arc::new(AtomicU64::new(0));
        let broken = Arc::new(std::sync::Mutex::new(None));
        let (count, told) = (Arc::clone(&bytes), Arc::clone(&broken));
        let content = content.map(move |piece| match piece {
            Ok(piece) => {
                count.fetch_add(piece.len() as u64, Ordering::Relaxed);
                Ok(piece)
            }
            Err(error) => {
                let cause = io::Error::other(error.message.clone());
                *told.lock().expect("nothing panics while it is held") = Some(error);
                Err(cause)
            }
        });
        let stored = self.engine().blobs().put(&namespace, content, BLOB_BYTES_MAX).await;
        let broken = broken.lock().expect("nothing panics while it is held").take();
        match (stored, broken) {
            (Ok(blob), _) => {
                asker.shown(&blob.id.0)?;
                Ok(v1::WriteBlobResponse { id: blob.id.to_string(), bytes: blob.bytes })
            }
            (Err(_), Some(error)) => Err(error),
            (Err(_), None) if bytes.load(Ordering::Relaxed) > BLOB_BYTES_MAX => {
                let message = format!("the content is larger than {} MiB", BLOB_BYTES_MAX >> 20);
                let hint = "hand large data over as a file that the agent can read";
                Err(Error::new(Code::TooLarge, message).with_hint(hint))
            }
            (Err(error), None) => Err(failed(&error)),
        }
    }
}

/// A store that failed, whatever it was asked to do.
fn failed(error: &dyn std::error::Error) -> Error {
    let mut source = error.source();
    while let Some(below) = source {
        let full = below.downcast_ref::<io::Error>().map(io::Error::kind);
        if full == Some(io::ErrorKind::StorageFull) {
            return Error::new(Code::Full, "the disk is full").caused_by(error);
        }
        source = below.source();
    }
    Error::new(Code::Read, error.to_string()).caused_by(error)
}
