//! Contents that are streamed.

use crate::convert::namespace;
use crate::status::status;
use crate::{BLOB_BYTES_MAX, CHUNK_BYTES_MAX};
use ax_core::session::Caller;
use ax_engine::{Code, Engine, Error};
use ax_proto::v1;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, stream};
use std::io;
use tonic::{Status, Streaming};

/// Cuts a stream into chunks of at most [`CHUNK_BYTES_MAX`].
pub(crate) fn chunks(
    content: impl Stream<Item = Result<Bytes, Status>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, Status>> + Send + 'static {
    content.flat_map(|piece| {
        let pieces = match piece {
            Ok(mut piece) => {
                let mut pieces = Vec::with_capacity(piece.len() / CHUNK_BYTES_MAX + 1);
                while piece.len() > CHUNK_BYTES_MAX {
                    pieces.push(Ok(piece.split_to(CHUNK_BYTES_MAX)));
                }
                pieces.push(Ok(piece));
                pieces
            }
            Err(status) => vec![Err(status)],
        };
        stream::iter(pieces)
    })
}

/// Makes a session of an archive.
pub(crate) async fn import(
    engine: &Engine,
    caller: Caller,
    mut requests: Streaming<v1::ImportRequest>,
) -> Result<v1::ImportResponse, Status> {
    let first = requests.message().await?.unwrap_or_default();
    let namespace = namespace(&first.namespace)?;
    let name = (!first.name.is_empty()).then_some(first.name);
    let rest = requests.map(|request| match request {
        Ok(request) => Ok(Bytes::from(request.chunk)),
        Err(status) => Err(Error::invalid(format!("the archive broke off: {}", status.message()))),
    });
    let archive = stream::iter([Ok(Bytes::from(first.chunk))]).chain(rest).boxed();
    let imported = engine.import(caller, &namespace, name, archive).await;
    let (session, last) = imported.map_err(status)?;
    Ok(v1::ImportResponse { session: session.to_string(), last: last.0 })
}

/// Streams a blob.
pub(crate) async fn read_blob(
    engine: &Engine,
    request: v1::ReadBlobRequest,
) -> Result<BoxStream<'static, Result<v1::ReadBlobResponse, Status>>, Status> {
    let namespace = namespace(&request.namespace)?;
    let id = request.id.parse();
    let id =
        id.map_err(|_| status(Error::invalid(format!("{:?} is not a blob id", request.id))))?;
    let blobs = engine.blobs();
    let known = blobs.stat(&namespace, &id).await.map_err(|error| failed(&error))?;
    if known.is_none() {
        let message = format!("there is no {id} in this namespace");
        return Err(status(Error::new(Code::NoBlob, message)));
    }
    let content = blobs.get(&namespace, &id).await.map_err(|error| failed(&error))?;
    let pieces = chunks(content.map(|piece| piece.map_err(|error| failed(&error))));
    Ok(pieces.map(|piece| Ok(v1::ReadBlobResponse { chunk: piece?.into() })).boxed())
}

/// Stores a blob.
pub(crate) async fn write_blob(
    engine: &Engine,
    mut requests: Streaming<v1::WriteBlobRequest>,
) -> Result<v1::WriteBlobResponse, Status> {
    let first = requests.message().await?.unwrap_or_default();
    let namespace = namespace(&first.namespace)?;
    let rest = requests.map(|request| match request {
        Ok(request) => Ok(Bytes::from(request.chunk)),
        Err(status) => Err(io::Error::other(status.message().to_owned())),
    });
    let mut bytes = 0;
    let content = stream::iter([Ok(Bytes::from(first.chunk))]).chain(rest);
    let content = content.inspect(|piece| bytes += piece.as_ref().map_or(0, Bytes::len) as u64);
    let stored = engine.blobs().put(&namespace, content, BLOB_BYTES_MAX).await;
    match stored {
        Ok(blob) => Ok(v1::WriteBlobResponse { id: blob.id.to_string(), bytes: blob.bytes }),
        Err(_) if bytes > BLOB_BYTES_MAX => {
            let message = format!("the content is larger than {} MiB", BLOB_BYTES_MAX >> 20);
            let hint = "hand large data over as a file that the agent can read";
            Err(status(Error::new(Code::TooLarge, message).with_hint(hint)))
        }
        Err(error) => Err(failed(&error)),
    }
}

/// A store that failed, whatever it was asked to do.
fn failed(error: &dyn std::error::Error) -> Status {
    let mut source = error.source();
    while let Some(below) = source {
        let full = below.downcast_ref::<io::Error>().map(io::Error::kind);
        if full == Some(io::ErrorKind::StorageFull) {
            return status(Error::new(Code::Full, "the disk is full").caused_by(error));
        }
        source = below.source();
    }
    status(Error::new(Code::Read, error.to_string()).caused_by(error))
}
