//! The log, with a clock beside it.

use ax_core::id::{Epoch, Namespace, Seq, SessionId, SessionKey};
use ax_log::{
    AcquireError, Append, AppendError, BranchError, CutError, DeleteError, EmbeddedLog, Entry,
    EventLog, Head, HeadWatch, Lease, ListQuery, LogFault, Page, ReadError, ReadLimit, Row,
    Snapshot,
};
use futures::future::BoxFuture;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A log that knows how long its appends took, all of them and one after the other.
#[derive(Debug)]
pub(crate) struct Timed {
    log: EmbeddedLog,
    spent: Mutex<(usize, Duration)>,
}

impl Timed {
    pub(crate) fn new(log: EmbeddedLog) -> Self {
        Self { log, spent: Mutex::new((0, Duration::ZERO)) }
    }

    /// Returns how many appends there were since this was asked last, and how long they took.
    pub(crate) fn take_spent(&self) -> (usize, Duration) {
        std::mem::take(&mut *self.spent.lock().unwrap())
    }
}

impl EventLog for Timed {
    fn acquire<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Lease, AcquireError>> {
        self.log.acquire(key)
    }

    fn release(&self, key: &SessionKey, epoch: Epoch) {
        self.log.release(key, epoch);
    }

    fn append(&self, append: Append) -> BoxFuture<'_, Result<Seq, AppendError>> {
        Box::pin(async move {
            let began = Instant::now();
            let appended = self.log.append(append).await;
            let mut spent = self.spent.lock().unwrap();
            *spent = (spent.0 + 1, spent.1 + began.elapsed());
            appended
        })
    }

    fn read<'a>(
        &'a self,
        key: &'a SessionKey,
        after: Seq,
        limit: ReadLimit,
    ) -> BoxFuture<'a, Result<Vec<Entry>, ReadError>> {
        self.log.read(key, after, limit)
    }

    fn head<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Head>, LogFault>> {
        self.log.head(key)
    }

    fn snapshot<'a>(
        &'a self,
        key: &'a SessionKey,
        at: Seq,
    ) -> BoxFuture<'a, Result<Option<Snapshot>, LogFault>> {
        self.log.snapshot(key, at)
    }

    fn watch<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<HeadWatch, LogFault>> {
        self.log.watch(key)
    }

    fn branch<'a>(
        &'a self,
        parent: &'a SessionKey,
        at: Seq,
        child: SessionId,
        row: Row,
    ) -> BoxFuture<'a, Result<(), BranchError>> {
        self.log.branch(parent, at, child, row)
    }

    fn cut<'a>(&'a self, key: &'a SessionKey, below: Seq) -> BoxFuture<'a, Result<(), CutError>> {
        self.log.cut(key, below)
    }

    fn delete<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<(), DeleteError>> {
        self.log.delete(key)
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Page, LogFault>> {
        self.log.list(query)
    }

    fn namespaces(&self) -> BoxFuture<'_, Result<Vec<Namespace>, LogFault>> {
        self.log.namespaces()
    }

    fn fault(&self) -> Option<LogFault> {
        self.log.fault()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), LogFault>> {
        self.log.close()
    }
}
