//! Writes: one batch of a shard at a time, until it is known what became of it.

use std::sync::Arc;
use std::time::Duration;

use ax_core::id::{Seq, SessionKey};
use tokio::time::{sleep, timeout};

use super::Inner;
use super::held::{Pending, unavailable};
use super::wire::{Answer, Broken, Claim, Statement, Write};
use crate::types::{AppendError, LogFault};

/// How long to wait before a statement whose answer was lost is sent again.
pub(super) const AGAIN_PAUSE: Duration = Duration::from_millis(20);

/// Works on the queue of a shard until there is nothing in it, or the lease is over.
pub(super) async fn run(inner: Arc<Inner>, claim: Claim) {
    loop {
        let batch = match inner.state().held(claim) {
            Some(held) => held.batch(),
            None => return,
        };
        let Some(batch) = batch else { return };
        if !settle(&inner, claim, batch).await {
            return;
        }
    }
}

/// Sends a batch until it is known what became of it. Says whether the lease is still there.
async fn settle(inner: &Inner, claim: Claim, mut batch: Vec<Pending>) -> bool {
    while !batch.is_empty() {
        let Some(number) = inner.state().held(claim).map(super::held::Held::number) else {
            fence(batch);
            return false;
        };
        let writes: Vec<Write> = batch.iter().map(|(_, write, _)| write.clone()).collect();
        let statement = Statement::Append { claim, number, writes };
        match decide(inner, claim, statement).await {
            Ok(Answer::Appended) => {
                done(inner, batch);
                return true;
            }
            Ok(Answer::Refused { index, next }) => {
                let (epoch, write, waiting) = batch.remove(index);
                let refused = match next {
                    Some(next) => AppendError::WrongSeq { expected: write.expected, next },
                    None => AppendError::Deleted,
                };
                drop(waiting.send(Err(refused)));
                if let Some(held) = inner.state().held(claim) {
                    held.forget(&write.key, epoch);
                }
                // What the same writer wanted after it cannot be either.
                let rest = batch.into_iter();
                let (theirs, others) = rest.partition(|(_, other, _)| other.key == write.key);
                fence(theirs);
                batch = others;
            }
            Ok(_) => {
                inner.lose(claim);
                fence(batch);
                return false;
            }
            Err(None) => {
                inner.lose(claim);
                fail(batch, &unavailable("it did not say in time whether it took an append"));
                return false;
            }
            Err(Some(fault)) => {
                forget(inner, claim, &batch);
                fail(batch, &fault);
                return true;
            }
        }
    }
    true
}

/// Sends a statement again and again, until there is an answer, a definite fault, or no lease.
async fn decide(
    inner: &Inner,
    claim: Claim,
    statement: Statement,
) -> Result<Answer, Option<LogFault>> {
    loop {
        let Some(left) = inner.left(claim) else { return Err(None) };
        match timeout(left, inner.wire.send(statement.clone())).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(Broken::Fault(fault))) => return Err(Some(fault)),
            Ok(Err(Broken::Lost)) => sleep(AGAIN_PAUSE).await,
            // The lease may have been renewed meanwhile.
            Err(_) => {}
        }
    }
}

/// Tells readers first, then whoever waits.
fn done(inner: &Inner, batch: Vec<Pending>) {
    for (_, write, waiting) in batch {
        let last = Seq(write.expected.0 + write.entries.len() as u64).prev();
        inner.state().watchers.moved(&write.key, last);
        drop(waiting.send(Ok(last)));
    }
}

fn fence(batch: Vec<Pending>) {
    for (epoch, _, waiting) in batch {
        drop(waiting.send(Err(AppendError::Fenced { epoch })));
    }
}

fn fail(batch: Vec<Pending>, fault: &LogFault) {
    for (_, _, waiting) in batch {
        drop(waiting.send(Err(AppendError::Fault(fault.clone()))));
    }
}

fn forget(inner: &Inner, claim: Claim, batch: &[Pending]) {
    let mut state = inner.state();
    let Some(held) = state.held(claim) else { return };
    for (epoch, write, _) in batch {
        held.forget(&write.key, *epoch);
    }
}

/// Returns the shard of a session in a store that has so many. Fixed for ever: it is where the
/// session's lease is.
pub fn shard_of(key: &SessionKey, count: u32) -> u32 {
    let crc = crc32c::crc32c(key.namespace.as_str().as_bytes());
    crc32c::crc32c_append(crc, &key.session.0.to_be_bytes()) % count
}
