//! A log in which the reading of one session can be held up.

use ax_core::id::{Epoch, Namespace, Seq, SessionId, SessionKey};
use ax_log::{
    AcquireError, Append, AppendError, BranchError, CutError, DeleteError, Entry, EventLog, Head,
    HeadWatch, Lease, ListQuery, LogFault, MemoryLog, Page, ReadError, ReadLimit, Row, Snapshot,
};
use futures::future::{BoxFuture, FutureExt};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// Holds up who reads a session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate {
    shut: Arc<Mutex<Option<SessionId>>>,
    arrived: Arc<Notify>,
    opened: Arc<Notify>,
}

impl Gate {
    pub(crate) fn shut(&self, session: SessionId) {
        *self.shut.lock().unwrap() = Some(session);
    }

    /// Waits until somebody is held up.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    pub(crate) fn open(&self) {
        *self.shut.lock().unwrap() = None;
        self.opened.notify_one();
    }

    async fn pass(&self, session: SessionId) {
        let is_shut = *self.shut.lock().unwrap() == Some(session);
        if is_shut {
            self.arrived.notify_one();
            self.opened.notified().await;
        }
    }
}

/// The log.
#[derive(Debug, Default)]
pub(crate) struct GatedLog {
    pub(crate) log: MemoryLog,
    pub(crate) gate: Gate,
}

impl EventLog for GatedLog {
    fn acquire<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Lease, AcquireError>> {
        self.log.acquire(key)
    }

    fn release(&self, key: &SessionKey, epoch: Epoch) {
        self.log.release(key, epoch);
    }

    fn append(&self, append: Append) -> BoxFuture<'_, Result<Seq, AppendError>> {
        self.log.append(append)
    }

    fn read<'a>(
        &'a self,
        key: &'a SessionKey,
        after: Seq,
        limit: ReadLimit,
    ) -> BoxFuture<'a, Result<Vec<Entry>, ReadError>> {
        async move {
            self.gate.pass(key.session).await;
            self.log.read(key, after, limit).await
        }
        .boxed()
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
