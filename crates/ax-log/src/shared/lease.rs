//! Taking, renewing, sharing out and losing leases.

use std::sync::{Arc, Weak};
use std::time::Duration;

use ax_core::id::{Seq, SessionKey};
use tokio::time::{sleep, timeout};

use super::commit::{AGAIN_PAUSE, shard_of};
use super::held::{Held, unavailable};
use super::wire::{Answer, Broken, Claim, Statement, Table};
use super::{Inner, State};
use crate::types::LogFault;

/// How often leases are renewed while they last.
const BEATS: u32 = 3;

/// Renews leases, takes what is free and gives back what is too much, until the log is gone.
pub(super) async fn keep(inner: Weak<Inner>) {
    loop {
        let pause = {
            let Some(inner) = inner.upgrade() else { return };
            if inner.state().closed {
                return;
            }
            let every = inner.options.lease / BEATS;
            // What does not answer in time is tried again.
            drop(timeout(every, beat(&inner)).await);
            inner.let_lapse();
            every
        };
        sleep(pause).await;
    }
}

async fn beat(inner: &Inner) {
    let held: Vec<Claim> = inner.state().shards.values().map(|held| held.claim).collect();
    let sent_at = inner.now();
    let statement = Statement::Beat {
        owner: inner.options.owner.clone(),
        lease_millis: inner.lease_millis(),
        held: held.clone(),
    };
    let Ok(table) = inner.table(statement).await else { return };
    for claim in held {
        if owns(inner, &table, claim) {
            inner.renewed(claim, sent_at);
        } else {
            inner.lose(claim);
        }
    }
    share(inner, &table).await;
}

/// Whether the table says that a claim stands.
fn owns(inner: &Inner, table: &Table, claim: Claim) -> bool {
    table.shards.get(claim.shard as usize).is_some_and(|row| {
        row.epoch == claim.epoch && row.owner.as_ref() == Some(&inner.options.owner)
    })
}

/// Takes free shards up to a fair share, and gives sleeping ones back beyond it.
async fn share(inner: &Inner, table: &Table) {
    let fair = table.shards.len().div_ceil(table.owners.max(1));
    let held = {
        let mut state = inner.state();
        state.count = u32::try_from(table.shards.len()).ok();
        state.shards.len()
    };
    if held < fair {
        let seen = (0..).zip(&table.shards).filter(|(shard, row)| {
            let ours = row.owner.as_ref() == Some(&inner.options.owner);
            (row.owner.is_none() || ours) && !inner.state().shards.contains_key(shard)
        });
        let seen = seen.map(|(shard, row)| Claim { shard, epoch: row.epoch });
        // Not everybody begins with the same one.
        let mut seen: Vec<_> = seen.collect();
        if !seen.is_empty() {
            let first = usize::try_from(inner.options.owner.id % seen.len() as u128);
            seen.rotate_left(first.unwrap_or_default());
        }
        seen.truncate(fair - held);
        drop(inner.take(seen).await);
    } else if held > fair {
        let given = inner.give_up(held - fair);
        drop(inner.wire.send(Statement::Give { held: given }).await);
    }
}

/// Tells watchers what the store says has moved.
pub(super) async fn listen(inner: Weak<Inner>) {
    loop {
        let (mut notices, watched) = {
            let Some(inner) = inner.upgrade() else { return };
            let notices = inner.wire.listen();
            let watched = inner.state().watchers.keys();
            (notices, watched)
        };
        for key in watched {
            let Some(inner) = inner.upgrade() else { return };
            inner.catch_up(&key).await;
        }
        while let Some(notice) = notices.recv().await {
            let Some(inner) = inner.upgrade() else { return };
            let mut state = inner.state();
            if state.closed {
                return;
            }
            state.told(&notice.key, notice.last, notice.deleted);
        }
        sleep(AGAIN_PAUSE).await;
    }
}

impl State {
    /// Returns the lease, if it is still the same one.
    pub(super) fn held(&mut self, claim: Claim) -> Option<&mut Held> {
        self.shards.get_mut(&claim.shard).filter(|held| held.claim == claim)
    }

    pub(super) fn told(&mut self, key: &SessionKey, last: Seq, deleted: bool) {
        if deleted { self.watchers.end(key) } else { self.watchers.moved(key, last) }
    }
}

impl Inner {
    pub(super) fn now(&self) -> Duration {
        (self.options.now)()
    }

    pub(super) fn lease_millis(&self) -> u64 {
        u64::try_from(self.options.lease.as_millis()).unwrap_or(u64::MAX)
    }

    /// Until when a lease may be relied on that was asked for at a time: the store counted from
    /// later on, and clocks may run at different speeds.
    fn until(&self, sent_at: Duration) -> Duration {
        sent_at + self.options.lease - self.options.margin
    }

    fn renewed(&self, claim: Claim, sent_at: Duration) {
        let until = self.until(sent_at);
        if let Some(held) = self.state().held(claim) {
            held.until.extend(until);
        }
    }

    /// Nothing rests on a lease any more.
    pub(super) fn lose(&self, claim: Claim) {
        let mut state = self.state();
        if state.held(claim).is_some()
            && let Some(held) = state.shards.remove(&claim.shard)
        {
            held.end();
        }
    }

    /// Lets go of so many leases, if that many have no session that is awake.
    fn give_up(&self, count: usize) -> Vec<Claim> {
        let mut state = self.state();
        let idle = state.shards.values().filter(|held| held.is_idle()).map(|held| held.claim);
        let given: Vec<_> = idle.take(count).collect();
        for claim in &given {
            state.shards.remove(&claim.shard).into_iter().for_each(Held::end);
        }
        given
    }

    /// Lets go of what was not renewed in time.
    pub(super) fn let_lapse(&self) {
        let now = self.now();
        let state = self.state();
        let lapsed = state.shards.values().filter(|held| !held.holds(now));
        let lapsed: Vec<_> = lapsed.map(|held| held.claim).collect();
        drop(state);
        for claim in lapsed {
            self.lose(claim);
        }
    }

    /// How long a lease may still be relied on; `None` if it is over.
    pub(super) fn left(&self, claim: Claim) -> Option<Duration> {
        let now = self.now();
        let until = self.state().held(claim)?.until.end()?;
        until.checked_sub(now).filter(|left| !left.is_zero())
    }

    /// Takes shards, each if its epoch is still the one that was seen.
    async fn take(&self, mut seen: Vec<Claim>) -> Result<(), LogFault> {
        let _taking = self.taking.lock().await;
        // What came to this process while it waited is not to be taken from it by itself.
        seen.retain(|claim| !self.state().shards.contains_key(&claim.shard));
        if seen.is_empty() {
            return Ok(());
        }
        if self.state().closed {
            return Err(LogFault::Closed);
        }
        let sent_at = self.first_sent(&seen);
        let statement = Statement::Take {
            owner: self.options.owner.clone(),
            lease_millis: self.lease_millis(),
            seen: seen.clone(),
        };
        let table = self.table(statement).await?;
        let mut granted = 0;
        for (claim, sent_at) in seen.into_iter().zip(sent_at) {
            let claim = Claim { shard: claim.shard, epoch: claim.epoch + 1 };
            // Somebody else in this process may have been faster.
            let is_new = self.state().held(claim).is_none();
            let until = self.until(sent_at);
            // What was granted too long ago is taken anew, under another epoch.
            if is_new && owns(self, &table, claim) && self.now() < until {
                let held = Held::new(claim, until);
                self.state().shards.insert(claim.shard, held);
                granted += 1;
            }
        }
        if granted > 0 {
            tracing::debug!(granted, "shards were taken");
            self.granted.grant();
        }
        Ok(())
    }

    /// Returns for each of these when it was asked for under this epoch first, which may be now. It
    /// is granted once, and perhaps by a statement that was sent then and whose answer never came:
    /// the lease is counted from there, and not from when that is learnt.
    fn first_sent(&self, seen: &[Claim]) -> Vec<Duration> {
        let (now, mut state) = (self.now(), self.state());
        let each = seen.iter().map(|claim| {
            let asked = state.asked.entry(claim.shard).or_insert((claim.epoch, now));
            if asked.0 != claim.epoch {
                *asked = (claim.epoch, now);
            }
            asked.1
        });
        each.collect()
    }

    async fn table(&self, statement: Statement) -> Result<Table, LogFault> {
        match self.ask(statement).await? {
            Answer::Table(table) => Ok(table),
            other => unreachable!("who has which shard is answered by {other:?}"),
        }
    }

    /// Sends a statement that may be sent again, until it is answered or for as long as a lease.
    pub(super) async fn ask(&self, statement: Statement) -> Result<Answer, LogFault> {
        self.ask_twice(statement).await.map(|(answer, _)| answer)
    }

    /// Like [`Self::ask`]; says also whether an earlier sending may have been carried out.
    pub(super) async fn ask_twice(&self, statement: Statement) -> Result<(Answer, bool), LogFault> {
        let asked = async {
            let mut again = false;
            loop {
                match self.wire.send(statement.clone()).await {
                    Ok(answer) => return Ok((answer, again)),
                    Err(Broken::Fault(fault)) => return Err(fault),
                    Err(Broken::Lost) => again = true,
                }
                sleep(AGAIN_PAUSE).await;
            }
        };
        let answered = timeout(self.options.lease, asked).await;
        answered.unwrap_or_else(|_| Err(unavailable("it does not answer")))
    }

    /// Returns the shard of a session.
    pub(super) async fn shard(&self, key: &SessionKey) -> Result<u32, LogFault> {
        let known = self.state().count;
        let count = match known {
            Some(count) => count,
            None => {
                let table = self.table(Statement::Look).await?;
                let count = u32::try_from(table.shards.len()).expect("shards have u32 numbers");
                *self.state().count.insert(count)
            }
        };
        Ok(shard_of(key, count))
    }

    /// Sees to it that this process holds the shard of a session.
    pub(super) async fn hold(&self, key: &SessionKey) -> Result<Claim, LogFault> {
        let shard = self.shard(key).await?;
        loop {
            if self.state().closed {
                return Err(LogFault::Closed);
            }
            self.let_lapse();
            if let Some(held) = self.state().shards.get(&shard) {
                return Ok(held.claim);
            }
            let table = self.table(Statement::Look).await?;
            let row = &table.shards[shard as usize];
            if let Some(owner) = &row.owner
                && *owner != self.options.owner
            {
                return Err(LogFault::Elsewhere { at: Arc::clone(&owner.address) });
            }
            // Whoever was faster is seen next time round.
            if !self.state().shards.contains_key(&shard) {
                self.take(vec![Claim { shard, epoch: row.epoch }]).await?;
            }
        }
    }

    /// Reads how far a watched session has come.
    pub(super) async fn catch_up(&self, key: &SessionKey) {
        let asked = self.ask(Statement::Head { key: key.clone() }).await;
        if let Ok(Answer::Head(head, deleted)) = asked {
            let last = head.map_or(Seq::ZERO, |head| head.last);
            self.state().told(key, last, deleted);
        }
    }
}
