//! Answers over time: how much of one is there by now, and which can be asked for again.

use crate::answer::Answer;
use crate::ask::{Item, Role};
use crate::wire::{Frame, Stage};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The most answers that can be asked for again; the oldest are forgotten.
pub(crate) const STORED_MAX: usize = 10_000;

/// An answer that comes about as time goes on, whether anyone listens or not.
#[derive(Debug)]
pub(crate) struct Production {
    pub(crate) answer: Answer,
    frames: Vec<Frame>,
    begins_at: Instant,
    delay: Duration,
    /// How many events were there when the answer was canceled.
    canceled: watch::Sender<Option<usize>>,
}

impl Production {
    pub(crate) fn new(
        answer: Answer,
        frames: Vec<Frame>,
        latency: Duration,
        delay: Duration,
    ) -> Arc<Self> {
        let begins_at = Instant::now() + latency;
        let canceled = watch::Sender::new(None);
        Arc::new(Self { answer, frames, begins_at, delay, canceled })
    }

    fn due_at(&self, index: usize) -> Instant {
        self.begins_at + self.delay * u32::try_from(index).unwrap_or(u32::MAX)
    }

    fn done_at(&self) -> Instant {
        self.due_at(self.frames.len().saturating_sub(1))
    }

    /// Where the answer stands now.
    pub(crate) fn stage(&self) -> Stage {
        if self.canceled.borrow().is_some() {
            Stage::Canceled
        } else if Instant::now() >= self.done_at() {
            Stage::Done
        } else {
            Stage::InProgress
        }
    }

    /// Ends the answer, unless it is at its end.
    pub(crate) fn cancel(&self) {
        if self.stage() == Stage::InProgress {
            let now = Instant::now();
            let sent = (0..self.frames.len()).take_while(|index| self.due_at(*index) <= now);
            self.canceled.send_replace(Some(sent.count()));
        }
    }

    /// Waits until the answer is at its end or canceled.
    pub(crate) async fn done(&self) {
        let mut canceled = self.canceled.subscribe();
        tokio::select! {
            () = tokio::time::sleep_until(self.done_at()) => {}
            _ = canceled.wait_for(Option::is_some) => {}
        }
    }

    /// Waits for the event at this index; `None` if the stream ends before it.
    pub(crate) async fn frame(&self, index: usize) -> Option<Frame> {
        let mut canceled = self.canceled.subscribe();
        if index < self.frames.len() {
            tokio::select! {
                () = tokio::time::sleep_until(self.due_at(index)) => {}
                _ = canceled.wait_for(Option::is_some) => {}
            }
        }
        match *canceled.borrow() {
            Some(sent) if index == sent => {
                Some(self.answer.ask.format.canceled(&self.answer, sent))
            }
            Some(sent) if index > sent => None,
            _ => self.frames.get(index).cloned(),
        }
    }

    /// Whether there is no event at this index or later.
    pub(crate) fn ends_before(&self, index: usize) -> bool {
        let canceled = *self.canceled.borrow();
        index >= canceled.map_or(self.frames.len(), |sent| sent + 1)
    }

    /// The conversation up to and including this answer.
    pub(crate) fn conversation(&self) -> Vec<Item> {
        let mut items = self.answer.ask.items.clone();
        items.push(Item::new(Role::Assistant, self.answer.text()));
        items
    }
}

/// The answers that can be asked for again.
#[derive(Debug, Default)]
pub(crate) struct Store {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_id: HashMap<String, Arc<Production>>,
    order: VecDeque<String>,
}

impl Store {
    pub(crate) fn put(&self, id: String, production: Arc<Production>) {
        let mut inner = self.lock();
        inner.order.push_back(id.clone());
        inner.by_id.insert(id, production);
        while inner.order.len() > STORED_MAX {
            let oldest = inner.order.pop_front();
            oldest.and_then(|id| inner.by_id.remove(&id));
        }
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Production>> {
        self.lock().by_id.get(id).cloned()
    }

    /// Forgets an answer; returns whether it was there.
    pub(crate) fn remove(&self, id: &str) -> bool {
        let mut inner = self.lock();
        inner.order.retain(|other| other != id);
        inner.by_id.remove(id).is_some()
    }

    pub(crate) fn clear(&self) {
        *self.lock() = Inner::default();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
