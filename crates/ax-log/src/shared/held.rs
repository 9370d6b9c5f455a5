//! The leases that a process holds, as it knows them by its own clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ax_core::id::{Epoch, Seq, SessionKey};
use tokio::sync::oneshot;

use super::wire::{Claim, Write};
use crate::limits;
use crate::types::{AppendError, LogFault, Until};

/// The most writes of a batch.
const BATCH_WRITES_MAX: usize = 256;

/// What waits for its turn in a shard.
#[derive(Debug)]
pub(super) enum Job {
    /// A write, and who waits for it.
    Write(Epoch, Write, Waiting),
    /// Told when everything before it is settled.
    Barrier(oneshot::Sender<()>),
}

/// Who waits for a write.
pub(super) type Waiting = oneshot::Sender<Result<Seq, AppendError>>;
/// A write on its way.
pub(super) type Pending = (Epoch, Write, Waiting);

/// The right to write a session, within this process.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) epoch: Epoch,
    /// Where the next entry goes; `None` until it is known.
    pub(super) next: Option<Seq>,
}

/// A lease.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) claim: Claim,
    /// Until when it may be relied on, by the clock of this process; `None` once it is lost.
    pub(super) until: Arc<Until>,
    epoch_next: u64,
    number: u64,
    pub(super) writers: BTreeMap<SessionKey, Writer>,
    pub(super) queue: VecDeque<Job>,
    /// Whether a task works on the queue.
    pub(super) running: bool,
}

impl Held {
    pub(super) fn new(claim: Claim, until: Duration) -> Self {
        Self {
            claim,
            until: Arc::new(Until::new(until)),
            epoch_next: limits::epoch_first(claim.epoch),
            number: 0,
            writers: BTreeMap::new(),
            queue: VecDeque::new(),
            running: false,
        }
    }

    /// Whether it may be relied on at a time.
    pub(super) fn holds(&self, now: Duration) -> bool {
        self.until.holds(now)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.writers.is_empty() && self.queue.is_empty() && !self.running
    }

    /// Gives the next epoch to a session, which fences whoever had it before.
    pub(super) fn grant(&mut self, key: &SessionKey) -> Epoch {
        let epoch = Epoch(self.epoch_next);
        self.epoch_next += 1;
        self.writers.insert(key.clone(), Writer { epoch, next: None });
        epoch
    }

    /// Returns the writer of a session, if this is its epoch.
    pub(super) fn writer(&mut self, key: &SessionKey, epoch: Epoch) -> Option<&mut Writer> {
        self.writers.get_mut(key).filter(|writer| writer.epoch == epoch)
    }

    /// What a writer did not get done, it does not go on with: it must look again.
    pub(super) fn forget(&mut self, key: &SessionKey, epoch: Epoch) {
        if self.writer(key, epoch).is_some() {
            self.writers.remove(key);
        }
    }

    /// Takes the next batch off the queue, with its number; `None` if there is nothing to do.
    pub(super) fn batch(&mut self) -> Option<Vec<Pending>> {
        let mut batch = Vec::new();
        while let Some(job) = self.queue.pop_front() {
            match job {
                Job::Write(epoch, write, waiting) => batch.push((epoch, write, waiting)),
                Job::Barrier(waiting) if batch.is_empty() => drop(waiting.send(())),
                barrier @ Job::Barrier(_) => {
                    self.queue.push_front(barrier);
                    break;
                }
            }
            if batch.len() == BATCH_WRITES_MAX {
                break;
            }
        }
        self.running = !batch.is_empty();
        self.running.then_some(batch)
    }

    pub(super) const fn number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Lets go of the lease: nothing may rest on it any more.
    pub(super) fn end(self) {
        self.until.finish();
        for job in self.queue {
            if let Job::Write(epoch, _, waiting) = job {
                drop(waiting.send(Err(AppendError::Fenced { epoch })));
            }
        }
    }
}

/// The fault of a store that did not answer in time.
pub(super) fn unavailable(what: &str) -> LogFault {
    LogFault::Unavailable { cause: what.into() }
}
