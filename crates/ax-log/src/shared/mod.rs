//! The log of a store that several processes share, such as a database.
//!
//! Sessions are spread over a fixed number of *shards*. A process may write the sessions of a shard
//! while it holds the shard's lease, which it takes by compare-and-set and renews; each taking
//! raises the shard's epoch, and every write names the epoch, so that the store itself refuses
//! whoever lost the lease without having noticed. A process lets go of a lease by its own clock
//! before the store does, so that nothing is *done* on a lease that may be somebody else's.
//! The design, with its reasons: `docs/adr` on leases.
//!
//! [`SharedLog`] is one process's handle. It speaks to the store in [`Statement`]s over a
//! [`Wire`]; [`SharedStore`] is such a store in memory, [`Direct`] a wire on which nothing goes
//! wrong. It needs a tokio runtime.

mod commit;
mod held;
mod lease;
mod wire;

mod store;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ax_core::id::{Epoch, Namespace, Seq, SessionId, SessionKey};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use crate::types::{
    AcquireError, Append, AppendError, BranchError, CutError, DeleteError, Entry, Fence, Granted,
    Grants, Head, HeadWatch, Lease, ListQuery, LogFault, Page, ReadError, ReadLimit, Row, Snapshot,
    Ticker,
};
use crate::watchers::Watchers;
use crate::{EventLog, limits};
use held::{Held, Job, unavailable};

pub use commit::shard_of;
pub use store::SharedStore;
pub use wire::{Answer, Broken, Claim, Notice, Owner, ShardRow, Statement, Table, Wire, Write};

/// How long a lease is, if nothing else is said.
const LEASE: Duration = Duration::from_secs(10);
/// How much earlier its holder lets go of it: what clocks may differ by in the meantime, and what
/// the last thing that rested on it may take.
const MARGIN: Duration = Duration::from_secs(2);

/// How a process shares a store.
#[derive(Clone)]
pub struct Options {
    /// Who it is.
    pub owner: Owner,
    /// How long leases are.
    pub lease: Duration,
    /// How much earlier than the store it lets go of one.
    pub margin: Duration,
    /// Its clock, which only goes on, also while the machine sleeps.
    pub now: Ticker,
}

impl Options {
    /// Makes the usual options for a process.
    pub fn new(owner: Owner) -> Self {
        let now = Arc::new(|| {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
            let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
            Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
        });
        Self { owner, lease: LEASE, margin: MARGIN, now }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Options");
        debug.field("owner", &self.owner).field("lease", &self.lease);
        debug.field("margin", &self.margin).finish_non_exhaustive()
    }
}

/// One process's handle to a shared store.
#[derive(Debug)]
pub struct SharedLog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    wire: Arc<dyn Wire>,
    options: Options,
    state: Mutex<State>,
    /// Held by whoever is taking shards: two at once would fence each other.
    taking: tokio::sync::Mutex<()>,
    granted: Arc<Granted>,
}

#[derive(Debug, Default)]
struct State {
    shards: BTreeMap<u32, Held>,
    /// Under which epoch each shard was asked for last, and when for the first time.
    asked: BTreeMap<u32, (u64, Duration)>,
    /// How many shards the store has, once that is known.
    count: Option<u32>,
    watchers: Watchers,
    closed: bool,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    /// Queues what a shard is to do after all that it is doing.
    fn queue(self: &Arc<Self>, state: &mut State, claim: Claim, job: Job) {
        let Some(held) = state.held(claim) else { return };
        held.queue.push_back(job);
        if !held.running {
            held.running = true;
            drop(tokio::spawn(commit::run(Arc::clone(self), claim)));
        }
    }

    /// Waits until all writes of a shard are settled that were queued before.
    async fn settled(self: &Arc<Self>, claim: Claim) -> Result<(), LogFault> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.state();
            self.queue(&mut state, claim, Job::Barrier(sender));
        }
        receiver.await.map_err(|_| unavailable("the lease was lost"))
    }

    async fn head(&self, key: &SessionKey) -> Result<(Option<Head>, bool), LogFault> {
        match self.ask(Statement::Head { key: key.clone() }).await? {
            Answer::Head(head, deleted) => Ok((head, deleted)),
            other => unreachable!("what is known of a session is answered by {other:?}"),
        }
    }

    /// Refuses what cannot be done any more.
    fn open(&self) -> Result<(), LogFault> {
        if self.state().closed { Err(LogFault::Closed) } else { Ok(()) }
    }
}

/// A process that is gone takes nothing more. What it holds lapses.
impl Drop for SharedLog {
    fn drop(&mut self) {
        self.inner.state().closed = true;
    }
}

impl SharedLog {
    /// Opens a handle. Its leases are kept by a task until it is closed or dropped.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime, or if the margin is not shorter than the lease.
    pub fn open(wire: Arc<dyn Wire>, options: Options) -> Self {
        assert!(options.margin < options.lease, "a lease can be relied on for some time");
        let inner = Arc::new(Inner {
            wire,
            options,
            state: Mutex::default(),
            taking: tokio::sync::Mutex::new(()),
            granted: Arc::default(),
        });
        drop(tokio::spawn(lease::keep(Arc::downgrade(&inner))));
        drop(tokio::spawn(lease::listen(Arc::downgrade(&inner))));
        Self { inner }
    }

    async fn acquire_now(&self, key: &SessionKey) -> Result<Lease, AcquireError> {
        let inner = &self.inner;
        inner.open()?;
        let claim = inner.hold(key).await?;
        let lost = || unavailable("the lease was lost");
        let epoch = {
            let mut state = inner.state();
            state.held(claim).ok_or_else(lost)?.grant(key)
        };
        // What an earlier writer had sent is settled first: nothing of it appears later.
        inner.settled(claim).await?;
        let (head, deleted) = match inner.head(key).await {
            Ok(head) => head,
            Err(fault) => {
                if let Some(held) = inner.state().held(claim) {
                    held.forget(key, epoch);
                }
                return Err(fault.into());
            }
        };
        let mut state = inner.state();
        let held = state.held(claim).ok_or_else(lost)?;
        if deleted {
            held.forget(key, epoch);
            return Err(AcquireError::Deleted);
        }
        let next = head.as_ref().map_or(Seq::FIRST, |head| head.last.next());
        if let Some(writer) = held.writer(key, epoch) {
            writer.next = Some(next);
        }
        Ok(Lease { epoch, next, row: head.map(|head| head.row) })
    }

    async fn append_now(&self, append: Append) -> Result<Seq, AppendError> {
        limits::check(&append)?;
        let inner = &self.inner;
        inner.open()?;
        let (epoch, key) = (append.epoch, append.key.clone());
        let Some(queued) = self.enqueue(append)? else {
            // Nothing is written, so it is only about what to say.
            let deleted = matches!(inner.head(&key).await, Ok((_, true)));
            let refused = AppendError::Fenced { epoch };
            return Err(if deleted { AppendError::Deleted } else { refused });
        };
        match queued {
            Queued::Nothing(last) => Ok(last),
            Queued::Waits(waits) => {
                let lost = || Err(unavailable("the append was not finished").into());
                waits.await.unwrap_or_else(|_| lost())
            }
        }
    }

    /// Queues an append; `None` if its epoch may not write.
    fn enqueue(&self, append: Append) -> Result<Option<Queued>, AppendError> {
        let inner = &self.inner;
        inner.let_lapse();
        let mut state = inner.state();
        let Some(count) = state.count else { return Ok(None) };
        let shard = shard_of(&append.key, count);
        let Some(held) = state.shards.get_mut(&shard) else { return Ok(None) };
        let claim = held.claim;
        let Some(writer) = held.writer(&append.key, append.epoch) else { return Ok(None) };
        let Some(next) = writer.next else { return Ok(None) };
        if append.expected != next {
            return Err(AppendError::WrongSeq { expected: append.expected, next });
        }
        if limits::is_empty(&append) {
            return Ok(Some(Queued::Nothing(next.prev())));
        }
        writer.next = Some(Seq(next.0 + append.entries.len() as u64));
        let (sender, waits) = oneshot::channel();
        let Append { key, epoch, expected, entries, row, snapshot } = append;
        let write = Write { key, expected, entries, row, snapshot };
        inner.queue(&mut state, claim, Job::Write(epoch, write, sender));
        Ok(Some(Queued::Waits(waits)))
    }

    async fn branch_now(
        &self,
        parent: &SessionKey,
        at: Seq,
        child: SessionId,
        row: Row,
    ) -> Result<(), BranchError> {
        let inner = &self.inner;
        inner.open()?;
        let key = SessionKey::new(parent.namespace.clone(), child);
        let statement = Statement::Branch { parent: parent.clone(), at, child, row };
        let made = match inner.ask_twice(statement).await? {
            (Answer::Branched(Err(BranchError::Exists { .. })), true) => {
                // It may have been made the first time.
                let (head, _) = inner.head(&key).await?;
                let made = head.is_some_and(|head| {
                    head.last == at && head.parent == Some((parent.session, at))
                });
                if made { Ok(()) } else { Err(BranchError::Exists { child }) }
            }
            (Answer::Branched(made), _) => made,
            (other, _) => unreachable!("a branch is answered by {other:?}"),
        };
        if made.is_ok() {
            inner.state().watchers.moved(&key, at);
        }
        made
    }

    async fn cut_now(&self, key: &SessionKey, below: Seq) -> Result<(), CutError> {
        let inner = &self.inner;
        inner.open()?;
        loop {
            let claim = inner.hold(key).await?;
            match inner.ask(Statement::Cut { claim, key: key.clone(), below }).await? {
                Answer::Cut(cut) => return cut,
                Answer::Fenced => inner.lose(claim),
                other => unreachable!("a cut is answered by {other:?}"),
            }
        }
    }

    async fn delete_now(&self, key: &SessionKey) -> Result<(), DeleteError> {
        let inner = &self.inner;
        inner.open()?;
        // Looked at first, so that what is gone after a lost answer is known to be gone by it.
        if inner.head(key).await?.0.is_none() {
            return Err(DeleteError::NotFound);
        }
        loop {
            let claim = inner.hold(key).await?;
            let statement = Statement::Delete { claim, key: key.clone() };
            let (deleted, again) = match inner.ask_twice(statement).await? {
                (Answer::Deleted(deleted), again) => (deleted, again),
                (Answer::Fenced, _) => {
                    inner.lose(claim);
                    continue;
                }
                (other, _) => unreachable!("a deletion is answered by {other:?}"),
            };
            let deleted = match deleted {
                Err(DeleteError::NotFound) if again && inner.head(key).await?.1 => Ok(()),
                deleted => deleted,
            };
            if deleted.is_ok() {
                let mut state = inner.state();
                if let Some(held) = state.held(claim) {
                    held.writers.remove(key);
                }
                state.watchers.end(key);
            }
            return deleted;
        }
    }

    async fn watch_now(&self, key: &SessionKey) -> Result<HeadWatch, LogFault> {
        let inner = &self.inner;
        inner.open()?;
        // Watched before it is looked at, so that nothing is missed in between.
        let _early = inner.state().watchers.watch(key, Seq::ZERO, false);
        let (head, deleted) = inner.head(key).await?;
        let last = head.map_or(Seq::ZERO, |head| head.last);
        inner.open()?;
        Ok(inner.state().watchers.watch(key, last, deleted))
    }

    async fn close_now(&self) -> Result<(), LogFault> {
        let inner = &self.inner;
        inner.open()?;
        let held: Vec<Claim> = inner.state().shards.values().map(|held| held.claim).collect();
        for claim in &held {
            // What cannot be finished is not lost: it was not acknowledged.
            drop(inner.settled(*claim).await);
        }
        inner.state().closed = true;
        for claim in &held {
            inner.lose(*claim);
        }
        let given = timeout_of(inner, Statement::Give { held }).await;
        inner.state().watchers.end_all();
        given
    }
}

/// Gives leases back; if the store does not answer they lapse.
async fn timeout_of(inner: &Inner, statement: Statement) -> Result<(), LogFault> {
    let given = tokio::time::timeout(inner.options.margin, inner.wire.send(statement)).await;
    if !matches!(given, Ok(Ok(_))) {
        tracing::warn!("the leases were not given back: they lapse");
    }
    Ok(())
}

enum Queued {
    Nothing(Seq),
    Waits(oneshot::Receiver<Result<Seq, AppendError>>),
}

impl EventLog for SharedLog {
    fn acquire<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Lease, AcquireError>> {
        self.acquire_now(key).boxed()
    }

    fn release(&self, key: &SessionKey, epoch: Epoch) {
        let mut state = self.inner.state();
        let Some(count) = state.count else { return };
        if let Some(held) = state.shards.get_mut(&shard_of(key, count)) {
            held.forget(key, epoch);
        }
    }

    fn append(&self, append: Append) -> BoxFuture<'_, Result<Seq, AppendError>> {
        self.append_now(append).boxed()
    }

    fn read<'a>(
        &'a self,
        key: &'a SessionKey,
        after: Seq,
        limit: ReadLimit,
    ) -> BoxFuture<'a, Result<Vec<Entry>, ReadError>> {
        async move {
            self.inner.open()?;
            let statement = Statement::Read { key: key.clone(), after, limit };
            match self.inner.ask(statement).await? {
                Answer::Entries(entries) => entries,
                other => unreachable!("a read is answered by {other:?}"),
            }
        }
        .boxed()
    }

    fn head<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Head>, LogFault>> {
        async move {
            self.inner.open()?;
            Ok(self.inner.head(key).await?.0)
        }
        .boxed()
    }

    fn snapshot<'a>(
        &'a self,
        key: &'a SessionKey,
        at: Seq,
    ) -> BoxFuture<'a, Result<Option<Snapshot>, LogFault>> {
        async move {
            self.inner.open()?;
            match self.inner.ask(Statement::Snapshot { key: key.clone(), at }).await? {
                Answer::Snapshot(snapshot) => Ok(snapshot),
                other => unreachable!("a snapshot is answered by {other:?}"),
            }
        }
        .boxed()
    }

    fn watch<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<HeadWatch, LogFault>> {
        self.watch_now(key).boxed()
    }

    fn branch<'a>(
        &'a self,
        parent: &'a SessionKey,
        at: Seq,
        child: SessionId,
        row: Row,
    ) -> BoxFuture<'a, Result<(), BranchError>> {
        self.branch_now(parent, at, child, row).boxed()
    }

    fn cut<'a>(&'a self, key: &'a SessionKey, below: Seq) -> BoxFuture<'a, Result<(), CutError>> {
        self.cut_now(key, below).boxed()
    }

    fn delete<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<(), DeleteError>> {
        self.delete_now(key).boxed()
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Page, LogFault>> {
        async move {
            self.inner.open()?;
            match self.inner.ask(Statement::List(query)).await? {
                Answer::Page(page) => Ok(page),
                other => unreachable!("a list is answered by {other:?}"),
            }
        }
        .boxed()
    }

    fn namespaces(&self) -> BoxFuture<'_, Result<Vec<Namespace>, LogFault>> {
        async move {
            self.inner.open()?;
            match self.inner.ask(Statement::Namespaces).await? {
                Answer::Namespaces(names) => Ok(names),
                other => unreachable!("namespaces are answered by {other:?}"),
            }
        }
        .boxed()
    }

    fn fence(&self, key: &SessionKey, epoch: Epoch) -> Fence {
        let mut state = self.inner.state();
        let Some(count) = state.count else { return Fence::fallen() };
        let held = state.shards.get_mut(&shard_of(key, count));
        let held = held.filter(|held| held.writers.get(key).is_some_and(|of| of.epoch == epoch));
        held.map_or_else(Fence::fallen, |held| {
            Fence::new(Arc::clone(&held.until), Arc::clone(&self.inner.options.now))
        })
    }

    fn owns(&self, key: &SessionKey) -> bool {
        let now = self.inner.now();
        let state = self.inner.state();
        let held = state.count.and_then(|count| state.shards.get(&shard_of(key, count)));
        held.is_some_and(|held| held.holds(now))
    }

    fn grants(&self) -> Grants {
        Grants::new(Arc::clone(&self.inner.granted))
    }

    fn fault(&self) -> Option<LogFault> {
        None
    }

    fn close(&self) -> BoxFuture<'_, Result<(), LogFault>> {
        self.close_now().boxed()
    }
}

/// A wire on which nothing is late and nothing is lost.
#[derive(Clone)]
pub struct Direct {
    store: SharedStore,
    clock: Ticker,
}

impl Direct {
    /// Connects to a store; `clock` is the store's.
    pub fn new(store: SharedStore, clock: Ticker) -> Self {
        Self { store, clock }
    }
}

impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Direct")
    }
}

impl Wire for Direct {
    fn send(&self, statement: Statement) -> BoxFuture<'_, Result<Answer, Broken>> {
        let now_millis = u64::try_from((self.clock)().as_millis()).unwrap_or(u64::MAX);
        async move { Ok(self.store.execute(now_millis, statement)) }.boxed()
    }

    fn listen(&self) -> mpsc::UnboundedReceiver<Notice> {
        self.store.listen()
    }
}
