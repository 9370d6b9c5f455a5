//! Handing an answer to the connection, with everything that may go wrong on the way.

use crate::fault::Fault;
use crate::ledger::{Open, Status};
use crate::stored::Production;
use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// What comes instead of an event, or before an answer, when garbage is wanted.
const GARBAGE: &[u8] = b"data: {\"this\": is not JSON\n\n";

/// Where the body comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// The events of an answer, from this index on.
    Events { production: Arc<Production>, next: usize },
    /// All at once.
    Whole(Option<Bytes>),
}

/// A body on its way.
#[derive(Debug)]
struct Delivery {
    source: Source,
    fault: Fault,
    /// Decides the entry in the ledger.
    open: Option<Open>,
    chunks: u64,
    bytes: u64,
    /// What is left of a chunk that goes byte by byte.
    dribble: Bytes,
    garbage_sent: bool,
    broken: bool,
}

/// Makes the body of a response.
pub(crate) fn body(source: Source, fault: Fault, open: Open) -> Body {
    let delivery = Delivery {
        source,
        fault,
        open: Some(open),
        chunks: 0,
        bytes: 0,
        dribble: Bytes::new(),
        garbage_sent: false,
        broken: false,
    };
    let pieces = stream::unfold(delivery, |mut delivery| async move {
        let piece = delivery.next().await?;
        Some((piece, delivery))
    });
    Body::from_stream(pieces)
}

impl Source {
    async fn next(&mut self) -> Option<Bytes> {
        match self {
            Self::Events { production, next } => {
                let frame = production.frame(*next).await?;
                *next += 1;
                Some(frame.bytes)
            }
            Self::Whole(bytes) => bytes.take(),
        }
    }

    fn is_at_end(&self) -> bool {
        match self {
            Self::Events { production, next } => production.ends_before(*next),
            Self::Whole(bytes) => bytes.is_none(),
        }
    }
}

impl Delivery {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if self.broken {
            return None;
        }
        if self.dribble.is_empty() {
            let now = Some(self.chunks);
            if self.fault.cut_after_chunks == now {
                return Some(self.break_off().await);
            }
            if self.fault.hang_after_chunks == now {
                return std::future::pending().await;
            }
            if self.fault.garbage_after_chunks == now && !self.garbage_sent {
                self.garbage_sent = true;
                return Some(Ok(Bytes::from_static(GARBAGE)));
            }
            match self.source.next().await {
                Some(chunk) => self.dribble = chunk,
                None => {
                    self.decide_at_end();
                    return None;
                }
            }
            self.chunks += 1;
        }
        let piece = match self.fault.byte_delay_millis {
            Some(delay) => {
                tokio::time::sleep(Duration::from_millis(delay)).await;
                self.dribble.split_to(1.min(self.dribble.len()))
            }
            None => std::mem::take(&mut self.dribble),
        };
        let piece = self.up_to_the_cut(piece);
        if self.broken && piece.is_empty() {
            return Some(self.break_off().await);
        }
        self.broken = false;
        self.bytes += piece.len() as u64;
        self.decide_at_end();
        Some(Ok(piece))
    }

    /// Shortens a piece over which the connection is to break, and marks it as broken.
    fn up_to_the_cut(&mut self, piece: Bytes) -> Bytes {
        let Some(cut) = self.fault.cut_after_bytes else { return piece };
        let left = cut.saturating_sub(self.bytes);
        if left >= piece.len() as u64 {
            return piece;
        }
        self.broken = true;
        // What is left fits, as it is less than the length of the piece.
        let kept = piece.slice(..usize::try_from(left).unwrap_or(0));
        self.dribble = piece.slice(kept.len()..);
        kept
    }

    /// Lets the connection send what it has, and then breaks it.
    async fn break_off(&mut self) -> io::Result<Bytes> {
        self.broken = true;
        drop(self.open.take());
        // The connection writes what it has got before it asks again.
        tokio::task::yield_now().await;
        Err(io::Error::new(io::ErrorKind::ConnectionReset, "cut on demand"))
    }

    /// Counts the request as answered as soon as the last byte is handed over, so that a client
    /// that has all of it finds it so in the ledger.
    fn decide_at_end(&mut self) {
        let more = [self.fault.cut_after_chunks, self.fault.hang_after_chunks];
        let more = more.contains(&Some(self.chunks)) || !self.dribble.is_empty();
        if !more
            && self.source.is_at_end()
            && let Some(mut open) = self.open.take()
        {
            open.becomes = Status::Answered;
        }
    }
}
