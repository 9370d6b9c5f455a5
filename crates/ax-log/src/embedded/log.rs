//! The log as its users see it.

use std::sync::{Arc, Weak};

use ax_core::id::{Epoch, Namespace, Seq, SessionId, SessionKey};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::commit_loop::Commit;
use super::committer::Committer;
use super::request::{Branch, Reply, Request};
use super::shared::{Running, Shared};
use super::{BLOCKS_IN_FLIGHT_MAX, OpenError, Options, listing, merge, recover, run_loop};
use crate::types::{
    AcquireError, Append, AppendError, BranchError, CutError, DeleteError, Entry, Head, HeadWatch,
    Lease, ListQuery, LogFault, Page, ReadError, ReadLimit, Row, Snapshot,
};
use crate::{EventLog, limits};

/// A durable log in a data directory of its own.
///
/// Reads look into memory first and then block on the disk, for one or a few small reads.
#[derive(Debug)]
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    /// Gone with its loops.
    commit: Weak<Commit>,
    requests: mpsc::UnboundedSender<Request>,
}

impl EmbeddedLog {
    /// Opens the log in a data directory; makes one where there is none.
    ///
    /// # Errors
    ///
    /// Returns an [`OpenError`] if the directory is in use, damaged, of an unknown version, or
    /// cannot be read and written.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let (shared, writer, jobs) = recover::open(options)?;
        let (requests, requests_taken) = mpsc::unbounded_channel();
        let (work, work_taken) = mpsc::unbounded_channel();
        let (added, added_taken) = mpsc::unbounded_channel();
        for job in jobs {
            drop(work.send(job));
        }
        let committer = Committer::new(Arc::clone(&shared), writer, work);
        let spawn = |name, task: BoxFuture<'static, ()>| {
            let running = Running::new(&shared);
            let counted = async move {
                task.await;
                drop(running);
            };
            options.spawner.spawn(name, counted.boxed());
        };
        let commit = Arc::new(Commit::new(committer, &options.spawner, requests_taken));
        for _ in 0..BLOCKS_IN_FLIGHT_MAX {
            spawn("ax-log-commit", Arc::clone(&commit).run().boxed());
        }
        let commit = Arc::downgrade(&commit);
        spawn("ax-log-run", run_loop::run(Arc::clone(&shared), work_taken, added).boxed());
        spawn("ax-log-merge", merge::run(Arc::clone(&shared), added_taken).boxed());
        Ok(Self { shared, commit, requests })
    }

    /// Returns how much of the disk's content is cached in memory, in bytes.
    pub fn cache_bytes(&self) -> usize {
        self.shared.cache.bytes()
    }

    /// Returns about how much memory those segments take that are no runs yet, in bytes.
    pub fn memtable_bytes(&self) -> usize {
        let version = self.shared.version();
        let frozen: usize = version.frozen.iter().map(|table| table.read().bytes).sum();
        frozen + version.active.read().bytes
    }

    /// Returns for how many sessions there is memory because someone may write them.
    pub fn writable_count(&self) -> usize {
        self.commit.upgrade().map_or(0, |commit| commit.writable_count())
    }

    /// Returns how many runs there are.
    pub fn run_count(&self) -> usize {
        self.shared.version().runs.len()
    }

    fn readable(&self) -> Result<(), LogFault> {
        if self.shared.is_closed() { Err(LogFault::Closed) } else { Ok(()) }
    }

    async fn ask<T, E: From<LogFault>>(
        &self,
        request: impl FnOnce(Reply<T, E>) -> Request,
    ) -> Result<T, E> {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(request(reply)).is_err() {
            return Err(self.gone().into());
        }
        answer.await.unwrap_or_else(|_| Err(self.gone().into()))
    }

    fn gone(&self) -> LogFault {
        self.shared.fault().unwrap_or(LogFault::Closed)
    }

    /// Reads the state of a session into the cache, so that the committer need not wait for it.
    fn warm(&self, key: &SessionKey) -> Result<(), LogFault> {
        self.readable()?;
        self.shared.state(key).map(drop)
    }

    fn read_now(
        &self,
        key: &SessionKey,
        after: Seq,
        limit: ReadLimit,
    ) -> Result<Vec<Entry>, ReadError> {
        self.readable()?;
        let of = self.shared.session_ref(key).ok_or(ReadError::NotFound)?;
        let version = self.shared.version();
        let state = version.state(of)?.filter(|state| !state.deleted);
        let state = state.ok_or(ReadError::NotFound)?;
        if after.0.saturating_add(1) < state.first {
            return Err(ReadError::Cut { first: Seq(state.first) });
        }
        if after.0 >= state.last {
            return Ok(Vec::new());
        }
        Ok(version.read(of, &state, after.0, limit)?)
    }

    fn head_now(&self, key: &SessionKey) -> Result<Option<Head>, LogFault> {
        self.readable()?;
        let state = self.shared.state(key)?;
        Ok(state.filter(|state| !state.deleted).map(|state| state.head()))
    }

    fn snapshot_now(&self, key: &SessionKey, at: Seq) -> Result<Option<Snapshot>, LogFault> {
        self.readable()?;
        let Some(of) = self.shared.session_ref(key) else { return Ok(None) };
        let version = self.shared.version();
        let state = version.state(of)?.filter(|state| !state.deleted);
        let Some(state) = state else { return Ok(None) };
        let found = version.snapshot(of, &state, at.0)?;
        Ok(found.map(|(at, data)| Snapshot { at: Seq(at), data }))
    }

    fn watch_now(&self, key: &SessionKey) -> Result<HeadWatch, LogFault> {
        self.readable()?;
        let watch = self.shared.watchers().watch(key, Seq::ZERO, false);
        // The head is looked up when the watch is known to the committer: a move in between is
        // told by it, one before is found here.
        let state = self.shared.state(key)?;
        let mut watchers = self.shared.watchers();
        match state {
            Some(state) if state.deleted => watchers.end(key),
            Some(state) => watchers.moved(key, Seq(state.last)),
            None => {}
        }
        if self.shared.is_closed() {
            watchers.end_all();
        }
        Ok(watch)
    }
}

impl EventLog for EmbeddedLog {
    fn acquire<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Lease, AcquireError>> {
        async move {
            self.warm(key)?;
            self.ask(|reply| Request::Acquire(key.clone(), reply)).await
        }
        .boxed()
    }

    fn release(&self, key: &SessionKey, epoch: Epoch) {
        // A log that is closed has no rights to give back.
        drop(self.requests.send(Request::Release(key.clone(), epoch)));
    }

    fn append(&self, append: Append) -> BoxFuture<'_, Result<Seq, AppendError>> {
        async move {
            limits::check(&append)?;
            let (reply, answer) = oneshot::channel();
            if self.requests.send(Request::Append(Box::new(append), reply)).is_err() {
                return Err(self.gone().into());
            }
            match answer.await {
                Ok((_append, result)) => result,
                Err(_) => Err(self.gone().into()),
            }
        }
        .boxed()
    }

    fn read<'a>(
        &'a self,
        key: &'a SessionKey,
        after: Seq,
        limit: ReadLimit,
    ) -> BoxFuture<'a, Result<Vec<Entry>, ReadError>> {
        async move { self.read_now(key, after, limit) }.boxed()
    }

    fn head<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Head>, LogFault>> {
        async move { self.head_now(key) }.boxed()
    }

    fn snapshot<'a>(
        &'a self,
        key: &'a SessionKey,
        at: Seq,
    ) -> BoxFuture<'a, Result<Option<Snapshot>, LogFault>> {
        async move { self.snapshot_now(key, at) }.boxed()
    }

    fn watch<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<HeadWatch, LogFault>> {
        async move { self.watch_now(key) }.boxed()
    }

    fn branch<'a>(
        &'a self,
        parent: &'a SessionKey,
        at: Seq,
        child: SessionId,
        row: Row,
    ) -> BoxFuture<'a, Result<(), BranchError>> {
        async move {
            self.warm(parent)?;
            self.warm(&SessionKey::new(parent.namespace.clone(), child))?;
            let branch = Box::new(Branch { parent: parent.clone(), at, child, row });
            self.ask(|reply| Request::Branch(branch, reply)).await
        }
        .boxed()
    }

    fn cut<'a>(&'a self, key: &'a SessionKey, below: Seq) -> BoxFuture<'a, Result<(), CutError>> {
        async move {
            self.warm(key)?;
            self.ask(|reply| Request::Cut(key.clone(), below, reply)).await
        }
        .boxed()
    }

    fn delete<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<(), DeleteError>> {
        async move {
            self.warm(key)?;
            self.ask(|reply| Request::Delete(key.clone(), reply)).await
        }
        .boxed()
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Page, LogFault>> {
        async move {
            self.readable()?;
            let Some(namespace) = self.shared.namespace(&query.namespace) else {
                return Ok(Page::default());
            };
            listing::list(&self.shared.version(), namespace, &query)
        }
        .boxed()
    }

    fn namespaces(&self) -> BoxFuture<'_, Result<Vec<Namespace>, LogFault>> {
        async move {
            self.readable()?;
            let known = self.shared.namespaces.read().expect("no holder of the lock panics");
            Ok(known.ids.keys().cloned().collect())
        }
        .boxed()
    }

    fn fault(&self) -> Option<LogFault> {
        self.shared.fault()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), LogFault>> {
        async move {
            self.ask(Request::Close).await?;
            let mut loops = self.shared.loops.subscribe();
            // The sender lives in what is shared, so the wait ends with the last loop.
            drop(loops.wait_for(|count| *count == 0).await);
            self.shared.unlock();
            Ok(())
        }
        .boxed()
    }
}
