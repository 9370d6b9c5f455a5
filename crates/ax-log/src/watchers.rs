//! Who watches which session's head.

use std::collections::BTreeMap;

use ax_core::id::{Seq, SessionKey};
use tokio::sync::watch;

use crate::types::{HeadState, HeadWatch};

/// How many sessions may be watched before those that nobody watches any more are looked for.
const SWEEP_COUNT_MIN: usize = 64;

/// The watched heads. A session that nobody watches needs no memory here.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    heads: BTreeMap<SessionKey, watch::Sender<HeadState>>,
    sweep_at: usize,
}

impl Watchers {
    /// Watches a session whose head is known to be at `last` or beyond.
    pub(crate) fn watch(&mut self, key: &SessionKey, last: Seq, ended: bool) -> HeadWatch {
        if self.heads.len() >= self.sweep_at.max(SWEEP_COUNT_MIN) {
            self.heads.retain(|_, head| head.receiver_count() > 0);
            self.sweep_at = 2 * self.heads.len();
        }
        if ended {
            let (_, receiver) = watch::channel(HeadState { last, ended });
            return HeadWatch { receiver };
        }
        let head = self.heads.entry(key.clone());
        let head = head.or_insert_with(|| watch::Sender::new(HeadState { last, ended }));
        head.send_if_modified(|state| advance(state, last));
        HeadWatch { receiver: head.subscribe() }
    }

    /// Whether nobody watches anything, so that nothing need be told.
    pub(crate) fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Returns what is watched.
    pub(crate) fn keys(&self) -> Vec<SessionKey> {
        let watched = self.heads.iter().filter(|(_, head)| head.receiver_count() > 0);
        let mut keys: Vec<_> = watched.map(|(key, _)| key.clone()).collect();
        keys.sort_unstable();
        keys
    }

    /// Tells that everything up to `last` is durable and can be read.
    pub(crate) fn moved(&mut self, key: &SessionKey, last: Seq) {
        if let Some(head) = self.heads.get(key) {
            head.send_if_modified(|state| advance(state, last));
        }
    }

    /// Tells that nothing will follow in a session.
    pub(crate) fn end(&mut self, key: &SessionKey) {
        if let Some(head) = self.heads.remove(key) {
            head.send_modify(|state| state.ended = true);
        }
    }

    /// Tells that nothing will follow in any session.
    pub(crate) fn end_all(&mut self) {
        for head in std::mem::take(&mut self.heads).into_values() {
            head.send_modify(|state| state.ended = true);
        }
    }
}

fn advance(state: &mut HeadState, last: Seq) -> bool {
    let moves = last > state.last;
    if moves {
        state.last = last;
    }
    moves
}
