//! What a harness' connection is handed.

use super::exchange::Exchange;
use super::recorded::Head;
use super::refuse;
use super::wire::Wire;
use bytes::Bytes;
use futures::{Stream, TryStreamExt as _, stream};
use http::{Response, StatusCode};
use http_body::{Frame as BodyFrame, SizeHint};
use http_body_util::StreamBody;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio_util::sync::CancellationToken;

/// How much of a body that is at hand is handed over at a time, in bytes: a connection that breaks
/// before the last of it has not had it.
const PIECE_BYTES: usize = 64 * 1024;

/// Puts an answer together.
pub(super) fn reply(head: Head, body: Reply) -> Response<Reply> {
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}

/// Hands an exchange to the harness as it comes.
pub(super) async fn deliver(wire: Wire, taken: Taken) -> Response<Reply> {
    match taken.exchange.head().await {
        Some(head) if head.is_stream() => reply(head, Reply::stream(taken)),
        Some(head) => match taken.exchange.body().await {
            Some(body) => reply(head, Reply::taken(taken, body)),
            None => reply(head, Reply::stream(taken)),
        },
        None => {
            let message = "the answer could not be recorded: the session takes nothing more";
            refuse(wire, StatusCode::SERVICE_UNAVAILABLE, message)
        }
    }
}

/// An exchange that is read by a connection; given back if it breaks.
pub(super) struct Taken {
    exchange: Arc<Exchange>,
    whole: bool,
}

impl Taken {
    pub(super) const fn new(exchange: Arc<Exchange>) -> Self {
        Self { exchange, whole: false }
    }

    /// The connection has all of it.
    fn whole(mut self) {
        self.whole = true;
        self.exchange.forget();
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.whole {
            self.exchange.give_back();
        }
    }
}

type Pieces = Pin<Box<dyn Stream<Item = Result<BodyFrame<Bytes>, io::Error>> + Send>>;

/// The body of an answer to a harness.
pub(crate) struct Reply {
    pieces: StreamBody<Pieces>,
    /// How many bytes are left, if that is known.
    left: Option<u64>,
}

impl Reply {
    fn new(pieces: Pieces, left: Option<u64>) -> Self {
        Self { pieces: StreamBody::new(pieces), left }
    }

    /// A body that is at hand.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        let left = bytes.len() as u64;
        Self::new(Box::pin(stream::iter([Ok(BodyFrame::data(bytes))])), Some(left))
    }

    /// A body that is passed on as it comes, until the attempt is over.
    pub(super) fn passed(
        pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        stop: CancellationToken,
    ) -> Self {
        let pieces =
            stream::try_unfold((Box::pin(pieces), stop), |(mut pieces, stop)| async move {
                let piece = tokio::select! {
                    () = stop.cancelled() => return Err(io::Error::other("the attempt is over")),
                    piece = pieces.try_next() => piece?,
                };
                Ok(piece.map(|piece| (BodyFrame::data(piece), (pieces, stop))))
            });
        Self::new(Box::pin(pieces), None)
    }

    /// The body of an exchange that is over.
    fn taken(taken: Taken, body: Bytes) -> Self {
        if body.is_empty() {
            // Nobody asks for any of it.
            taken.whole();
            return Self::whole(body);
        }
        let left = body.len() as u64;
        let pieces = stream::unfold((Some(taken), body), |(mut taken, mut body)| async move {
            if body.is_empty() {
                return None;
            }
            let piece = body.split_to(body.len().min(PIECE_BYTES));
            // Nobody asks for more once the length is reached.
            if body.is_empty()
                && let Some(taken) = taken.take()
            {
                taken.whole();
            }
            Some((Ok(BodyFrame::data(piece)), (taken, body)))
        });
        Self::new(Box::pin(pieces), Some(left))
    }

    /// The body of an exchange, as it comes.
    fn stream(taken: Taken) -> Self {
        let pieces = stream::unfold((taken, 0), |(taken, at)| async move {
            match taken.exchange.chunk(at).await {
                Ok(Some(chunk)) => Some((Ok(BodyFrame::data(chunk)), (taken, at + 1))),
                Ok(None) => {
                    taken.whole();
                    None
                }
                Err(_) => {
                    let error = io::Error::new(io::ErrorKind::UnexpectedEof, "the answer was cut");
                    Some((Err(error), (taken, at)))
                }
            }
        });
        Self::new(Box::pin(pieces), None)
    }
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, io::Error>>> {
        let polled = Pin::new(&mut self.pieces).poll_frame(context);
        if let (Poll::Ready(Some(Ok(frame))), Some(left)) = (&polled, &mut self.left) {
            *left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
        }
        polled
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
