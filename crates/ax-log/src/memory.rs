//! The model of the log: everything in memory, nothing clever.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use ax_core::id::{Epoch, Namespace, Seq, SessionId, SessionKey};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::tables::{Session, Tables};
use crate::types::{
    AcquireError, Append, AppendError, BranchError, CutError, DeleteError, Entry, Head, HeadWatch,
    Lease, ListQuery, LogFault, Page, ReadError, ReadLimit, Row, Snapshot,
};
use crate::watchers::Watchers;
use crate::{EventLog, limits};

/// A log in memory: the model that other backends are compared with, and a log for tests.
///
/// It is not durable: what it holds lives as long as the value and its [reopenings](Self::reopen).
#[derive(Debug)]
pub struct MemoryLog {
    store: Arc<Mutex<Store>>,
    open: Mutex<Open>,
}

/// What a real log would have on disk.
#[derive(Debug, Default)]
struct Store {
    generation: u64,
    tables: Tables,
}

/// What a real log would have in memory.
#[derive(Debug)]
struct Open {
    epoch_next: u64,
    leases: BTreeMap<SessionKey, Epoch>,
    watchers: Watchers,
    closed: bool,
    broken: bool,
    poisoned: Option<Arc<str>>,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryLog {
    /// Makes an empty log.
    pub fn new() -> Self {
        Self::over(Arc::default())
    }

    /// Opens what this log holds once more, as after a restart. This log is closed by it.
    #[must_use]
    pub fn reopen(&self) -> Self {
        let mut open = self.open();
        open.closed = true;
        open.watchers.end_all();
        Self::over(Arc::clone(&self.store))
    }

    /// Makes the next write fail, as a broken disk would.
    pub fn break_writes(&self) {
        self.open().broken = true;
    }

    fn over(store: Arc<Mutex<Store>>) -> Self {
        let generation = {
            let mut store = store.lock().expect("no holder of the lock panics");
            store.generation += 1;
            store.generation
        };
        let open = Open {
            epoch_next: limits::epoch_first(generation),
            leases: BTreeMap::new(),
            watchers: Watchers::default(),
            closed: false,
            broken: false,
            poisoned: None,
        };
        Self { store, open: Mutex::new(open) }
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().expect("no holder of the lock panics")
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().expect("no holder of the lock panics")
    }

    fn readable(&self) -> Result<MutexGuard<'_, Open>, LogFault> {
        let open = self.open();
        if open.closed { Err(LogFault::Closed) } else { Ok(open) }
    }

    fn writable(&self) -> Result<MutexGuard<'_, Open>, LogFault> {
        let open = self.readable()?;
        match &open.poisoned {
            Some(cause) => Err(LogFault::Poisoned { cause: Arc::clone(cause) }),
            None => Ok(open),
        }
    }

    fn acquire_now(&self, key: &SessionKey) -> Result<Lease, AcquireError> {
        let mut open = self.writable()?;
        let store = self.store();
        let session = store.tables.get(key);
        if session.is_some_and(|session| session.deleted) {
            return Err(AcquireError::Deleted);
        }
        let epoch = Epoch(open.epoch_next);
        open.epoch_next += 1;
        open.leases.insert(key.clone(), epoch);
        Ok(Lease {
            epoch,
            next: session.map_or(Seq::FIRST, |session| Seq(session.last() + 1)),
            row: session.map(|session| session.row.clone()),
        })
    }

    fn append_now(&self, append: Append) -> Result<Seq, AppendError> {
        limits::check(&append)?;
        let mut open = self.writable()?;
        let mut store = self.store();
        let known = store.tables.get(&append.key);
        if known.is_some_and(|session| session.deleted) {
            return Err(AppendError::Deleted);
        }
        if open.leases.get(&append.key) != Some(&append.epoch) {
            return Err(AppendError::Fenced { epoch: append.epoch });
        }
        let next = Seq(known.map_or(1, |session| session.last() + 1));
        if append.expected != next {
            return Err(AppendError::WrongSeq { expected: append.expected, next });
        }
        if limits::is_empty(&append) {
            return Ok(next.prev());
        }
        open.write()?;
        let Append { key, entries, row, snapshot, .. } = append;
        let last = store.tables.extend(&key, entries, row, snapshot);
        open.watchers.moved(&key, Seq(last));
        Ok(Seq(last))
    }

    fn read_now(
        &self,
        key: &SessionKey,
        after: Seq,
        limit: ReadLimit,
    ) -> Result<Vec<Entry>, ReadError> {
        let _open = self.readable()?;
        self.store().tables.read(key, after, limit)
    }

    fn branch_now(
        &self,
        parent: &SessionKey,
        at: Seq,
        child: SessionId,
        row: Row,
    ) -> Result<(), BranchError> {
        let mut open = self.writable()?;
        let mut store = self.store();
        let (key, session) = store.tables.branch(parent, at, child, row)?;
        open.write()?;
        store.tables.insert(key.clone(), session);
        open.watchers.moved(&key, at);
        Ok(())
    }

    fn cut_now(&self, key: &SessionKey, below: Seq) -> Result<(), CutError> {
        let mut open = self.writable()?;
        let mut store = self.store();
        if store.tables.check_cut(key, below)? {
            open.write()?;
            store.tables.cut(key, below);
        }
        Ok(())
    }

    fn delete_now(&self, key: &SessionKey) -> Result<(), DeleteError> {
        let mut open = self.writable()?;
        let mut store = self.store();
        store.tables.live(key).ok_or(DeleteError::NotFound)?;
        open.write()?;
        store.tables.delete(key);
        open.leases.remove(key);
        open.watchers.end(key);
        Ok(())
    }

    fn list_now(&self, query: &ListQuery) -> Result<Page, LogFault> {
        let _open = self.readable()?;
        Ok(self.store().tables.list(query))
    }

    fn watch_now(&self, key: &SessionKey) -> Result<HeadWatch, LogFault> {
        let mut open = self.readable()?;
        let store = self.store();
        let session = store.tables.get(key);
        let ended = session.is_some_and(|session| session.deleted);
        let last = session.map_or(Seq::ZERO, |session| Seq(session.last()));
        Ok(open.watchers.watch(key, last, ended))
    }

    fn namespaces_now(&self) -> Result<Vec<Namespace>, LogFault> {
        let _open = self.readable()?;
        Ok(self.store().tables.namespaces())
    }
}

impl Open {
    fn write(&mut self) -> Result<(), LogFault> {
        if self.broken {
            let cause: Arc<str> = "the write failed, as it was told to".into();
            self.poisoned = Some(Arc::clone(&cause));
            return Err(LogFault::Poisoned { cause });
        }
        Ok(())
    }
}

impl EventLog for MemoryLog {
    fn acquire<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Lease, AcquireError>> {
        async move { self.acquire_now(key) }.boxed()
    }

    fn release(&self, key: &SessionKey, epoch: Epoch) {
        let mut open = self.open();
        if open.leases.get(key) == Some(&epoch) {
            open.leases.remove(key);
        }
    }

    fn append(&self, append: Append) -> BoxFuture<'_, Result<Seq, AppendError>> {
        async move { self.append_now(append) }.boxed()
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
        async move {
            let _open = self.readable()?;
            Ok(self.store().tables.live(key).map(Session::head))
        }
        .boxed()
    }

    fn snapshot<'a>(
        &'a self,
        key: &'a SessionKey,
        at: Seq,
    ) -> BoxFuture<'a, Result<Option<Snapshot>, LogFault>> {
        async move {
            let _open = self.readable()?;
            Ok(self.store().tables.snapshot(key, at.0))
        }
        .boxed()
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
        async move { self.branch_now(parent, at, child, row) }.boxed()
    }

    fn cut<'a>(&'a self, key: &'a SessionKey, below: Seq) -> BoxFuture<'a, Result<(), CutError>> {
        async move { self.cut_now(key, below) }.boxed()
    }

    fn delete<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<(), DeleteError>> {
        async move { self.delete_now(key) }.boxed()
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Page, LogFault>> {
        async move { self.list_now(&query) }.boxed()
    }

    fn namespaces(&self) -> BoxFuture<'_, Result<Vec<Namespace>, LogFault>> {
        async move { self.namespaces_now() }.boxed()
    }

    fn fault(&self) -> Option<LogFault> {
        None
    }

    fn close(&self) -> BoxFuture<'_, Result<(), LogFault>> {
        async move {
            let mut open = self.readable()?;
            open.closed = true;
            open.watchers.end_all();
            Ok(())
        }
        .boxed()
    }
}
