//! One call of a model: written by whoever reads the provider, read by the harness' connection, and
//! independent of both.

use super::events::{self, Events};
use super::recorded::Head;
use super::wire::{Reading, Wire};
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

/// How far a call has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// Status and headers, once there is something to show.
    head: Option<Head>,
    /// What may be shown.
    chunks: Vec<Bytes>,
    /// How it ended.
    end: Option<End>,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The answer is whole and durable.
    Whole,
    /// The answer was cut, and what came of it was shown.
    Cut,
    /// It was refused, in words that were shown; not recorded, so that it can be asked again.
    Refused,
}

/// A call under way or done.
#[derive(Debug)]
pub(crate) struct Exchange {
    progress: watch::Sender<Progress>,
    /// Whether a connection of the harness reads it, or one has read it to its end. Then nothing
    /// is left of it but how it ended.
    taken: AtomicBool,
}

impl Exchange {
    pub(crate) fn new() -> Self {
        Self { progress: watch::Sender::default(), taken: AtomicBool::new(false) }
    }

    /// Makes one that is done.
    pub(crate) fn done(head: Head, chunks: Vec<Bytes>) -> Self {
        let progress = Progress { head: Some(head), chunks, end: Some(End::Whole) };
        Self { progress: watch::Sender::new(progress), taken: AtomicBool::new(false) }
    }

    /// Shows a piece, and the head before the first.
    pub(crate) fn show(&self, head: &Head, chunk: Option<Bytes>) {
        self.progress.send_modify(|progress| {
            if progress.head.is_none() {
                progress.head = Some(head.clone());
            }
            progress.chunks.extend(chunk);
        });
    }

    /// Nothing more comes.
    pub(crate) fn end(&self, end: End) {
        self.progress.send_modify(|progress| progress.end = Some(end));
    }

    /// Whether it came to nothing, so that it can be asked again.
    pub(crate) fn is_void(&self) -> bool {
        matches!(self.progress.borrow().end, Some(End::Cut | End::Refused))
    }

    /// Lets a connection read it, unless another one does or has.
    pub(crate) fn take(&self) -> bool {
        !self.taken.swap(true, Ordering::AcqRel)
    }

    /// A connection has all of it: nobody reads it any more, so it need not be kept.
    pub(crate) fn forget(&self) {
        self.progress.send_if_modified(|progress| {
            // Its values are parts of the buffer of a connection, which they keep alive.
            progress.head = None;
            progress.chunks = Vec::new();
            false
        });
    }

    /// The connection broke before it had all of it.
    pub(crate) fn give_back(&self) {
        self.taken.store(false, Ordering::Release);
    }

    /// What the answer says, if it is whole.
    pub(crate) fn reading(&self, wire: Wire) -> Option<Reading> {
        let progress = self.progress.borrow();
        if progress.end != Some(End::Whole) {
            return None;
        }
        let mut reading = Reading::new(wire);
        if progress.head.as_ref()?.is_stream() {
            let mut events = Events::default();
            for chunk in &progress.chunks {
                events.feed(chunk).ok()?;
                while let Some(event) = events.next() {
                    let _closes = reading.event(&events::data(&event));
                }
            }
        } else {
            reading.body(&progress.chunks.concat());
        }
        Some(reading)
    }

    /// Waits for the head.
    pub(crate) async fn head(&self) -> Option<Head> {
        let mut progress = self.progress.subscribe();
        let shown = |progress: &Progress| progress.head.is_some() || progress.end.is_some();
        let progress = progress.wait_for(shown).await.ok()?;
        progress.head.clone()
    }

    /// Waits for the end, and returns all pieces as one; nothing if the answer was cut.
    pub(crate) async fn body(&self) -> Option<Bytes> {
        let mut progress = self.progress.subscribe();
        let progress = progress.wait_for(|progress| progress.end.is_some()).await.ok()?;
        match (&progress.chunks[..], progress.end) {
            (_, Some(End::Cut) | None) => None,
            ([only], _) => Some(only.clone()),
            (chunks, _) => Some(chunks.concat().into()),
        }
    }

    /// Waits for the piece at a position; `Ok(None)` is the end, and an error one too soon.
    pub(crate) async fn chunk(&self, at: usize) -> Result<Option<Bytes>, End> {
        let mut progress = self.progress.subscribe();
        let there = |progress: &Progress| progress.chunks.len() > at || progress.end.is_some();
        let Ok(progress) = progress.wait_for(there).await else { return Err(End::Cut) };
        match (progress.chunks.get(at), progress.end) {
            (Some(chunk), _) => Ok(Some(chunk.clone())),
            (None, Some(End::Cut)) => Err(End::Cut),
            (None, _) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, StatusCode};

    #[test]
    fn what_was_heard_to_its_end_is_not_kept_and_not_heard_again() {
        let head = Head { status: StatusCode::OK, headers: HeaderMap::new() };
        let exchange = Exchange::done(head, vec![Bytes::from_static(b"{}")]);
        assert!(exchange.take());
        exchange.forget();
        let left = exchange.progress.borrow().clone();
        assert!(left.head.is_none() && left.chunks.is_empty());
        assert!(!exchange.is_void() && !exchange.take());
    }

    #[tokio::test]
    async fn a_body_is_there_once_the_answer_is_whole() {
        let exchange = Exchange::new();
        let head = Head { status: StatusCode::OK, headers: HeaderMap::new() };
        for piece in [&b"one "[..], b"two"] {
            exchange.show(&head, Some(Bytes::from_static(piece)));
        }
        exchange.end(End::Whole);
        assert_eq!(exchange.body().await.unwrap(), "one two");
        exchange.end(End::Cut);
        assert!(exchange.body().await.is_none());
    }
}
