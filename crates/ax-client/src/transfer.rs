//! Contents that are streamed, in one direction or the other.

use crate::client::Client;
use crate::error::Error;
use ax_proto::v1;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// How much is sent at a time, in bytes.
pub const CHUNK_BYTES: usize = 256 << 10;

impl Client {
    /// Stores what `content` gives, and returns its id.
    ///
    /// # Errors
    ///
    /// Returns what the server refused, that it is gone, or that the content cannot be read.
    pub async fn write_blob(
        &self,
        content: impl AsyncRead + Unpin,
    ) -> Result<v1::WriteBlobResponse, Error> {
        let namespace = self.namespace().to_owned();
        let (sender, receiver) = mpsc::channel(4);
        let requests = numbered(receiver).map(move |(first, chunk)| v1::WriteBlobRequest {
            namespace: if first { namespace.clone() } else { String::new() },
            chunk: chunk.into(),
        });
        let mut sessions = self.sessions();
        let (answer, read) =
            futures::join!(sessions.write_blob(self.ask(requests)), send_chunks(content, sender));
        read?;
        Ok(answer?.into_inner())
    }

    /// Writes a blob's content to `into`; returns its length in bytes.
    ///
    /// # Errors
    ///
    /// Returns what the server refused, that it is gone, or that `into` cannot be written.
    pub async fn read_blob(
        &self,
        id: &str,
        into: &mut (impl AsyncWrite + Unpin),
    ) -> Result<u64, Error> {
        let request =
            v1::ReadBlobRequest { namespace: self.namespace().to_owned(), id: id.to_owned() };
        let answer = self.sessions().read_blob(self.ask(request)).await?.into_inner();
        write_chunks(answer.map(|part| part.map(|part| Bytes::from(part.chunk))), into).await
    }

    /// Writes a session as an archive to `into`; returns its length in bytes.
    ///
    /// # Errors
    ///
    /// As [`Client::read_blob`].
    pub async fn export(
        &self,
        session: &str,
        into: &mut (impl AsyncWrite + Unpin),
    ) -> Result<u64, Error> {
        let request = v1::ExportRequest {
            namespace: self.namespace().to_owned(),
            session: session.to_owned(),
        };
        let answer = self.sessions().export(self.ask(request)).await?.into_inner();
        write_chunks(answer.map(|part| part.map(|part| part.chunk)), into).await
    }

    /// Makes a session of an archive.
    ///
    /// # Errors
    ///
    /// As [`Client::write_blob`].
    pub async fn import(
        &self,
        name: &str,
        archive: impl AsyncRead + Unpin,
    ) -> Result<v1::ImportResponse, Error> {
        let (namespace, name) = (self.namespace().to_owned(), name.to_owned());
        let (sender, receiver) = mpsc::channel(4);
        let requests = numbered(receiver).map(move |(first, chunk)| v1::ImportRequest {
            namespace: if first { namespace.clone() } else { String::new() },
            name: if first { name.clone() } else { String::new() },
            chunk: chunk.into(),
        });
        let mut sessions = self.sessions();
        let (answer, read) =
            futures::join!(sessions.import(self.ask(requests)), send_chunks(archive, sender));
        read?;
        Ok(answer?.into_inner())
    }
}

/// The chunks, each with whether it is the first. An empty content is one empty chunk.
fn numbered(receiver: mpsc::Receiver<Bytes>) -> impl Stream<Item = (bool, Bytes)> + Send {
    futures::stream::unfold((receiver, true), |(mut receiver, first)| async move {
        match receiver.recv().await {
            Some(chunk) => Some(((first, chunk), (receiver, false))),
            None => first.then(|| ((true, Bytes::new()), (receiver, false))),
        }
    })
}

/// Reads to the end, or until nobody listens any more: then the answer says why.
async fn send_chunks(
    mut content: impl AsyncRead + Unpin,
    sender: mpsc::Sender<Bytes>,
) -> Result<(), Error> {
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let mut limited = (&mut content).take(CHUNK_BYTES as u64);
        limited.read_to_end(&mut chunk).await.map_err(|error| Error::content(&error))?;
        if chunk.is_empty() || sender.send(chunk.into()).await.is_err() {
            return Ok(());
        }
    }
}

async fn write_chunks(
    mut chunks: impl Stream<Item = Result<Bytes, tonic::Status>> + Unpin,
    into: &mut (impl AsyncWrite + Unpin),
) -> Result<u64, Error> {
    let mut bytes = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        into.write_all(&chunk).await.map_err(|error| Error::content(&error))?;
        bytes += chunk.len() as u64;
    }
    into.flush().await.map_err(|error| Error::content(&error))?;
    Ok(bytes)
}
