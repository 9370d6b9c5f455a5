//! The model of the log: everything in memory, nothing clever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use ax_core::id::{Epoch, Namespace, Seq, SessionId, SessionKey};
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::types::{
    AcquireError, Append, AppendError, BranchError, CutError, DeleteError, Entry, Head, HeadWatch,
    Lease, ListQuery, LogFault, Page, ReadError, ReadLimit, Row, RowEntry, Snapshot,
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
    sessions: BTreeMap<SessionKey, Session>,
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

#[derive(Debug, Default)]
struct Session {
    row: Row,
    parent: Option<(SessionId, Seq)>,
    first: u64,
    entries: Vec<Bytes>,
    snapshots: BTreeMap<u64, Bytes>,
    deleted: bool,
}

impl Session {
    fn base(&self) -> u64 {
        self.parent.map_or(0, |(_, at)| at.0)
    }

    fn last(&self) -> u64 {
        self.base() + self.entries.len() as u64
    }

    fn head(&self) -> Head {
        Head {
            last: Seq(self.last()),
            first: Seq(self.first),
            row: self.row.clone(),
            parent: self.parent,
        }
    }
}

impl Store {
    fn live(&self, key: &SessionKey) -> Option<&Session> {
        self.sessions.get(key).filter(|session| !session.deleted)
    }

    /// Returns the session that owns a position: the session itself or an ancestor.
    fn owner(&self, key: &SessionKey, seq: u64) -> &Session {
        let mut session = &self.sessions[key];
        while let Some((parent, at)) = session.parent
            && seq <= at.0
        {
            session = &self.sessions[&SessionKey::new(key.namespace.clone(), parent)];
        }
        session
    }

    fn snapshot(&self, key: &SessionKey, at: u64) -> Option<Snapshot> {
        let first = self.live(key)?.first;
        let mut session = self.live(key)?;
        let mut at = at;
        loop {
            if let Some((seq, data)) = session.snapshots.range(..=at).next_back() {
                let found = Snapshot { at: Seq(*seq), data: data.clone() };
                return (found.at.0 + 1 >= first).then_some(found);
            }
            let (parent, base) = session.parent?;
            at = at.min(base.0);
            session = &self.sessions[&SessionKey::new(key.namespace.clone(), parent)];
        }
    }
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
        let session = store.sessions.get(key);
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
        let known = store.sessions.get(&append.key);
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
        let session = store
            .sessions
            .entry(append.key.clone())
            .or_insert_with(|| Session { first: 1, ..Session::default() });
        session.entries.extend(append.entries);
        let last = session.last();
        if let Some(row) = append.row {
            session.row = row;
        }
        if let Some(snapshot) = append.snapshot {
            session.snapshots.insert(last, snapshot);
        }
        open.watchers.moved(&append.key, Seq(last));
        Ok(Seq(last))
    }

    fn read_now(
        &self,
        key: &SessionKey,
        after: Seq,
        limit: ReadLimit,
    ) -> Result<Vec<Entry>, ReadError> {
        let _open = self.readable()?;
        let store = self.store();
        let session = store.live(key).ok_or(ReadError::NotFound)?;
        if after.0 + 1 < session.first {
            return Err(ReadError::Cut { first: Seq(session.first) });
        }
        let mut entries = Vec::new();
        let mut bytes = 0;
        for seq in after.0 + 1..=session.last() {
            let owner = store.owner(key, seq);
            let at = usize::try_from(seq - owner.base() - 1).expect("it is an index in memory");
            let payload = owner.entries[at].clone();
            bytes += payload.len();
            let full = entries.len() >= limit.entries || bytes > limit.bytes;
            if full && !entries.is_empty() {
                break;
            }
            entries.push(Entry { seq: Seq(seq), payload });
        }
        Ok(entries)
    }

    fn branch_now(
        &self,
        parent: &SessionKey,
        at: Seq,
        child: SessionId,
        row: Row,
    ) -> Result<(), BranchError> {
        limits::check_row(&row)?;
        let mut open = self.writable()?;
        let mut store = self.store();
        let from = store.live(parent).ok_or(BranchError::NotFound)?;
        let (first, last) = (Seq(from.first).prev(), Seq(from.last()));
        if at < first || at > last {
            return Err(BranchError::OutOfRange { at, first, last });
        }
        let key = SessionKey::new(parent.namespace.clone(), child);
        if store.sessions.contains_key(&key) {
            return Err(BranchError::Exists { child });
        }
        let first = from.first;
        open.write()?;
        let parent = Some((parent.session, at));
        store.sessions.insert(key.clone(), Session { row, parent, first, ..Session::default() });
        open.watchers.moved(&key, at);
        Ok(())
    }

    fn cut_now(&self, key: &SessionKey, below: Seq) -> Result<(), CutError> {
        let mut open = self.writable()?;
        let mut store = self.store();
        let session = store.live(key).ok_or(CutError::NotFound)?;
        if below.0 <= session.first {
            return Ok(());
        }
        let newest = store.snapshot(key, session.last());
        if newest.is_none_or(|snapshot| snapshot.at < below.prev()) {
            return Err(CutError::Uncovered { below });
        }
        open.write()?;
        store.sessions.get_mut(key).expect("it was found above").first = below.0;
        Ok(())
    }

    fn delete_now(&self, key: &SessionKey) -> Result<(), DeleteError> {
        let mut open = self.writable()?;
        let mut store = self.store();
        store.live(key).ok_or(DeleteError::NotFound)?;
        open.write()?;
        store.sessions.get_mut(key).expect("it was found above").deleted = true;
        open.leases.remove(key);
        open.watchers.end(key);
        Ok(())
    }

    fn list_now(&self, query: &ListQuery) -> Result<Page, LogFault> {
        let _open = self.readable()?;
        let store = self.store();
        let mut page = Page::default();
        let limit = query.limit.max(1);
        for (key, session) in &store.sessions {
            let past = key.namespace == query.namespace && Some(key.session) > query.after;
            if !past || session.deleted || !limits::passes(&query.filter, &session.row) {
                continue;
            }
            if page.rows.len() == limit {
                page.next = page.rows.last().map(|row| row.session);
                break;
            }
            page.rows.push(RowEntry { session: key.session, head: session.head() });
        }
        Ok(page)
    }

    fn watch_now(&self, key: &SessionKey) -> Result<HeadWatch, LogFault> {
        let mut open = self.readable()?;
        let store = self.store();
        let session = store.sessions.get(key);
        let ended = session.is_some_and(|session| session.deleted);
        let last = session.map_or(Seq::ZERO, |session| Seq(session.last()));
        Ok(open.watchers.watch(key, last, ended))
    }

    fn namespaces_now(&self) -> Result<Vec<Namespace>, LogFault> {
        let _open = self.readable()?;
        let store = self.store();
        let names: BTreeSet<_> = store.sessions.keys().map(|key| key.namespace.clone()).collect();
        Ok(names.into_iter().collect())
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
            Ok(self.store().live(key).map(Session::head))
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
            Ok(self.store().snapshot(key, at.0))
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
