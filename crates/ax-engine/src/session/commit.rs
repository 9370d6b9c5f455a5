//! Makes durable what the session machine wants kept, then answers and acts.

use super::Task;
use crate::observe::Committed;
use crate::view::{self, RowKey};
use crate::{Error, codec};
use ax_core::id::Seq;
use ax_core::session::Input;
use ax_log::types::SNAPSHOT_BYTES_MAX;
use ax_log::{Append, Row};
use tokio::time::Instant;

/// A snapshot is stored after this many events, so that waking reads no more than that.
const SNAPSHOT_EVENTS: u64 = 1_024;

impl Task {
    /// Appends what is to be kept, answers who waited for it, and acts on it, until nothing is
    /// left to do at once.
    pub(super) async fn commit(&mut self) -> Result<(), Error> {
        loop {
            self.encode();
            let ready = self.session.take_ready();
            if ready.persist.is_empty() && ready.effects.is_empty() && self.waiting.is_empty() {
                if self.launch().await? {
                    continue;
                }
                return Ok(());
            }
            if !ready.persist.is_empty() {
                self.append(&ready.persist).await?;
            }
            for (asked, accepted) in self.waiting.drain(..) {
                asked.answer(Ok(accepted));
            }
            // What was durable before may be told at once; what is now, next time round.
            self.act(ready.effects).await?;
        }
    }

    /// Encodes what is to be appended, and returns how many bytes that is.
    pub(super) fn encode(&mut self) -> usize {
        let new = self.session.pending()[self.encoded.len()..].iter().map(codec::encode_event);
        for entry in new {
            self.encoded_bytes += entry.len();
            self.encoded.push(entry);
        }
        self.encoded_bytes
    }

    async fn append(&mut self, events: &[ax_core::session::Event]) -> Result<(), Error> {
        let last = self.session.state().last;
        let first = Seq(last.0 + 1 - events.len() as u64);
        let snapshot_due = last.0 - self.snapshot_at.0 >= SNAPSHOT_EVENTS;
        let snapshot = snapshot_due.then(|| codec::encode_state(self.session.state()));
        // An execution with very many keys is replayed from further back rather than stopped.
        let snapshot = snapshot.filter(|data| data.len() <= SNAPSHOT_BYTES_MAX);
        let row = self.new_row();
        let entries = std::mem::take(&mut self.encoded);
        let bytes = std::mem::take(&mut self.encoded_bytes);
        let (key, epoch, expected) = (self.key.clone(), self.epoch, first);
        let began = Instant::now();
        self.inner.log.append(Append { key, epoch, expected, entries, row, snapshot }).await?;
        let (key, state, took) = (&self.key, self.session.state(), began.elapsed());
        self.inner.observer.committed(&Committed { key, first, events, state, bytes, took });
        if snapshot_due {
            self.snapshot_at = last;
        }
        let now = self.floor;
        drop(self.feed(now, &Input::Persisted(last)));
        Ok(())
    }

    /// Returns the row if it has to be written anew.
    fn new_row(&mut self) -> Option<Row> {
        let now = self.now();
        let status = view::status(&self.session, now, true);
        let key = RowKey::of(&status, self.session.state());
        if self.row.as_ref() == Some(&key) {
            return None;
        }
        self.row = Some(key);
        self.row_at = now;
        let state = self.row_state(status.state);
        let due_millis = status.due_at.map(|due| due.millis);
        let id = self.key.session;
        let view = view::session_view(id, &self.session, self.parent, status, now)?;
        let data = codec::encode_row(&view);
        Some(Row { state, due_millis, updated_millis: now.millis, data })
    }
}
