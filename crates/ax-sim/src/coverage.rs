//! What the runs reached: how often the real code did each thing that has to be tried.
//!
//! The simulation proves nothing about what it never reaches. So its disk and its log are looked at
//! from outside, all that was recorded is counted by kind, and [`missing`] names what a number of
//! runs ought to have reached and did not.

use ax_core::id::{Epoch, Namespace, Seq, SessionId, SessionKey};
use ax_log::embedded::{Disk, DiskFile, Held, LockError};
use ax_log::{
    AcquireError, Append, AppendError, BranchError, CutError, DeleteError, Entry, EventLog, Head,
    HeadWatch, Lease, ListQuery, LogFault, Page, ReadError, ReadLimit, Row, Snapshot,
};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// What every larger number of runs reaches.
const EXPECTED: &[&str] = &[
    "disk: a write was refused for want of space",
    "disk: a write failed",
    "disk: a sync failed",
    "disk: the power failed",
    "log: a segment was preallocated",
    "log: a run was written",
    "log: a run was removed",
    "log: a manifest was replaced",
    "log: a snapshot was appended",
    "log: a snapshot was read",
    "log: a lease was acquired",
    "log: an append was refused, for the log is poisoned",
    "log: an append was refused, for the disk is full",
    "log: a branch was made",
    "log: a session was deleted",
    "event: session.created",
    "event: session.branched",
    "event: session.renamed",
    "event: input.received",
    "event: input.canceled",
    "event: execution.started",
    "event: execution.completed",
    "event: execution.failed",
    "event: execution.canceled",
    "event: execution.timed_out",
    "event: attempt.started",
    "event: attempt.lost",
    "event: output.delta",
    "event: output.message",
    "event: step.started",
    "event: step.completed",
    "event: step.failed",
    "event: step.unknown",
    "event: ask.raised",
    "event: ask.answered",
    "event: ask.expired",
    "event: timer.set",
    "event: timer.fired",
    "event: timer.canceled",
    "event: signal.received",
    "event: signal.awaited",
    "event: signal.delivered",
    "event: checkpoint.created",
    "event: actor.suspended",
    "event: budget.exceeded",
    "event: note",
    "event: with content in a blob",
];

/// Returns what ought to have been reached and was not.
pub fn missing(reached: &BTreeMap<String, u64>) -> Vec<&'static str> {
    EXPECTED.iter().copied().filter(|name| !reached.contains_key(*name)).collect()
}

/// Counts by name. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage(Arc<Mutex<BTreeMap<String, u64>>>);

impl Coverage {
    pub(crate) fn count(&self, name: &str) {
        let mut counts = self.0.lock().expect("no holder of the lock panics");
        match counts.get_mut(name) {
            Some(count) => *count += 1,
            None => drop(counts.insert(name.to_owned(), 1)),
        }
    }

    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        self.0.lock().expect("no holder of the lock panics").clone()
    }

    fn seen<T>(&self, done: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &done {
            self.count(match (error.kind(), error.to_string().as_str()) {
                (io::ErrorKind::StorageFull, _) => "disk: a write was refused for want of space",
                (_, "the power failed") => "disk: the power failed",
                (_, text) if text.contains("sync") => "disk: a sync failed",
                (_, text) if text.contains("write") => "disk: a write failed",
                _ => "disk: something else failed",
            });
        }
        done
    }
}

/// A disk whose use is counted.
#[derive(Debug)]
pub(crate) struct CountedDisk<D> {
    pub(crate) disk: D,
    pub(crate) coverage: Coverage,
}

impl<D: Disk> CountedDisk<D> {
    fn opened(&self, file: io::Result<Arc<dyn DiskFile>>) -> io::Result<Arc<dyn DiskFile>> {
        let coverage = self.coverage.clone();
        let file = self.coverage.seen(file)?;
        Ok(Arc::new(CountedFile { file, coverage }))
    }
}

fn is_run(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().starts_with("run-")
}

impl<D: Disk> Disk for CountedDisk<D> {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.coverage.seen(self.disk.create_dir(dir))
    }

    fn lock(&self, path: &Path, holder: &str) -> Result<Box<dyn Held>, LockError> {
        self.disk.lock(path, holder)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.opened(self.disk.open(path))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.opened(self.disk.create(path))
    }

    fn create_large(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.opened(self.disk.create_large(path))?;
        if is_run(path) {
            self.coverage.count("log: a run was written");
        }
        Ok(file)
    }

    fn preallocate(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.opened(self.disk.preallocate(path, bytes))?;
        self.coverage.count("log: a segment was preallocated");
        Ok(file)
    }

    fn open_durable(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.opened(self.disk.open_durable(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.coverage.seen(self.disk.rename(from, to))?;
        self.coverage.count("log: a manifest was replaced");
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.coverage.seen(self.disk.remove(path))?;
        if is_run(path) {
            self.coverage.count("log: a run was removed");
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.coverage.seen(self.disk.sync_dir(dir))
    }
}

#[derive(Debug)]
struct CountedFile {
    file: Arc<dyn DiskFile>,
    coverage: Coverage,
}

impl DiskFile for CountedFile {
    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.coverage.seen(self.file.write_at(data, offset))
    }

    fn write_durable(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.coverage.seen(self.file.write_durable(data, offset))
    }

    fn sync(&self) -> io::Result<()> {
        self.coverage.seen(self.file.sync())
    }
}

/// A log whose use is counted.
#[derive(Debug)]
pub(crate) struct CountedLog<L> {
    pub(crate) log: L,
    pub(crate) coverage: Coverage,
}

impl<L> CountedLog<L> {
    fn done<T, E>(&self, name: &str, done: Result<T, E>) -> Result<T, E> {
        if done.is_ok() {
            self.coverage.count(name);
        }
        done
    }
}

impl<L: EventLog> EventLog for CountedLog<L> {
    fn acquire<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Lease, AcquireError>> {
        let acquired = self.log.acquire(key);
        async { self.done("log: a lease was acquired", acquired.await) }.boxed()
    }

    fn release(&self, key: &SessionKey, epoch: Epoch) {
        self.log.release(key, epoch);
    }

    fn append(&self, append: Append) -> BoxFuture<'_, Result<Seq, AppendError>> {
        let with_snapshot = append.snapshot.is_some();
        let appended = self.log.append(append);
        async move {
            let appended = appended.await;
            match &appended {
                Ok(_) if with_snapshot => self.coverage.count("log: a snapshot was appended"),
                Err(AppendError::Fenced { .. }) => self.coverage.count("log: an append was fenced"),
                Err(AppendError::Fault(LogFault::Poisoned { .. })) => {
                    self.coverage.count("log: an append was refused, for the log is poisoned");
                }
                Err(AppendError::Fault(LogFault::Full { .. })) => {
                    self.coverage.count("log: an append was refused, for the disk is full");
                }
                _ => {}
            }
            appended
        }
        .boxed()
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
        let read = self.log.snapshot(key, at);
        async {
            let snapshot = read.await?;
            if snapshot.is_some() {
                self.coverage.count("log: a snapshot was read");
            }
            Ok(snapshot)
        }
        .boxed()
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
        let branched = self.log.branch(parent, at, child, row);
        async { self.done("log: a branch was made", branched.await) }.boxed()
    }

    fn cut<'a>(&'a self, key: &'a SessionKey, below: Seq) -> BoxFuture<'a, Result<(), CutError>> {
        self.log.cut(key, below)
    }

    fn delete<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<(), DeleteError>> {
        let deleted = self.log.delete(key);
        async { self.done("log: a session was deleted", deleted.await) }.boxed()
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
