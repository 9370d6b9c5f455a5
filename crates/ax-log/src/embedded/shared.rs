//! What the loops and the readers of an open log have in common.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, RwLock};

use ax_core::id::{Namespace, SessionKey};
use tokio::sync::watch;

use super::Limits;
use super::cache::BlockCache;
use super::disk::{Disk, Held};
use super::format::{SessionRef, SessionState};
use super::manifest::Manifest;
use super::segment::{self, SegmentFile};
use super::version::Version;
use crate::types::LogFault;
use crate::watchers::Watchers;

/// What the loops and the readers of an open log have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    /// The data directory, for messages.
    pub(super) name: Arc<str>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) limits: Limits,
    pub(super) store: u64,
    pub(super) generation: u64,
    pub(super) cache: Arc<BlockCache>,
    pub(super) version: RwLock<Arc<Version>>,
    /// What is on disk as the manifest. Held while it is being replaced.
    pub(super) manifest: Mutex<Manifest>,
    /// The namespaces that have a durable record.
    pub(super) namespaces: RwLock<Namespaces>,
    pub(super) watchers: Mutex<Watchers>,
    /// Files for the next segments.
    pub(super) spares: Mutex<Vec<SegmentFile>>,
    pub(super) file_next: AtomicU64,
    /// How much was committed since the log was opened, in bytes.
    pub(super) committed_bytes: AtomicU64,
    /// How long the segment is that is being written, in bytes.
    pub(super) segment_bytes: AtomicU64,
    /// The newest segment that has a block.
    pub(super) segment_begun: AtomicU64,
    /// The committer waits for a memtable to become a run.
    pub(super) hurry: AtomicBool,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) loops: watch::Sender<usize>,
    pub(super) stopping: AtomicBool,
    closed: AtomicBool,
    poison: OnceLock<Arc<str>>,
    /// Held while the data directory is being synced.
    syncing: Mutex<()>,
    lock: Mutex<Option<Box<dyn Held>>>,
}

/// How far the run writer is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// How often something was tried.
    pub(super) rounds: u64,
    /// The last try found no space.
    pub(super) full: bool,
}

/// The namespaces and their numbers.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    pub(super) ids: BTreeMap<Namespace, u32>,
    pub(super) names: BTreeMap<u32, Namespace>,
}

impl Namespaces {
    pub(super) fn insert(&mut self, id: u32, name: Namespace) {
        self.ids.insert(name.clone(), id);
        self.names.insert(id, name);
    }
}

/// What recovery found, to make [`Shared`] of.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) cache: Arc<BlockCache>,
    pub(super) version: Version,
    pub(super) manifest: Manifest,
    pub(super) namespaces: Namespaces,
    pub(super) spares: Vec<SegmentFile>,
    pub(super) file_next: u64,
    pub(super) segment_bytes: u64,
    pub(super) lock: Box<dyn Held>,
}

impl Shared {
    pub(super) fn new(options: &super::Options, recovered: Recovered) -> Self {
        let manifest = recovered.manifest;
        let segment_begun = AtomicU64::new(manifest.segment_begun);
        Self {
            dir: options.dir.clone(),
            name: options.dir.display().to_string().into(),
            disk: Arc::clone(&options.disk),
            limits: options.limits,
            store: manifest.store,
            generation: manifest.generation,
            cache: recovered.cache,
            version: RwLock::new(Arc::new(recovered.version)),
            manifest: Mutex::new(manifest),
            namespaces: RwLock::new(recovered.namespaces),
            watchers: Mutex::default(),
            spares: Mutex::new(recovered.spares),
            file_next: AtomicU64::new(recovered.file_next),
            committed_bytes: AtomicU64::new(0),
            segment_bytes: AtomicU64::new(recovered.segment_bytes),
            segment_begun,
            hurry: AtomicBool::new(false),
            progress: watch::Sender::new(Progress::default()),
            loops: watch::Sender::new(0),
            stopping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            poison: OnceLock::new(),
            syncing: Mutex::default(),
            lock: Mutex::new(Some(recovered.lock)),
        }
    }

    pub(super) fn version(&self) -> Arc<Version> {
        Arc::clone(&self.version.read().expect("no holder of the lock panics"))
    }

    /// Replaces the version by one that is made from it.
    pub(super) fn change(&self, change: impl FnOnce(&mut Version)) {
        let mut version = self.version.write().expect("no holder of the lock panics");
        let mut next = Version::clone(&version);
        change(&mut next);
        *version = Arc::new(next);
    }

    /// Replaces the manifest on disk, and here when that is done. Not if the log is poisoned: what
    /// it would name may not be there.
    pub(super) fn change_manifest(&self, change: impl FnOnce(&mut Manifest)) -> io::Result<()> {
        self.poisoned()?;
        let mut manifest = self.manifest.lock().expect("no holder of the lock panics");
        let mut next = manifest.clone();
        change(&mut next);
        next.segment_begun = self.segment_begun.load(Ordering::Acquire);
        let namespaces = self.namespaces.read().expect("no holder of the lock panics");
        next.namespaces = namespaces.names.clone();
        drop(namespaces);
        next.replace(&*self.disk, &self.dir)?;
        self.sync_dir()?;
        *manifest = next;
        Ok(())
    }

    /// Returns a number that no run has.
    pub(super) fn run_next(&self) -> u64 {
        let mut manifest = self.manifest.lock().expect("no holder of the lock panics");
        manifest.run_next += 1;
        manifest.run_next - 1
    }

    pub(super) fn namespace(&self, name: &Namespace) -> Option<u32> {
        let namespaces = self.namespaces.read().expect("no holder of the lock panics");
        namespaces.ids.get(name).copied()
    }

    pub(super) fn session_ref(&self, key: &SessionKey) -> Option<SessionRef> {
        let namespace = self.namespace(&key.namespace)?;
        Some(SessionRef { namespace, session: key.session.0 })
    }

    /// Returns the durable state of a session; also that of one that was deleted.
    pub(super) fn state(&self, key: &SessionKey) -> Result<Option<SessionState>, LogFault> {
        let Some(of) = self.session_ref(key) else { return Ok(None) };
        self.version().state(of)
    }

    pub(super) fn watchers(&self) -> MutexGuard<'_, Watchers> {
        self.watchers.lock().expect("no holder of the lock panics")
    }

    /// Makes a file for a segment: durable zeros under a durable name.
    pub(super) fn preallocate(&self, bytes: u64) -> io::Result<SegmentFile> {
        let number = self.file_next.fetch_add(1, Ordering::Relaxed);
        let path = segment::path(&self.dir, number);
        let file = self.disk.preallocate(&path, bytes)?;
        self.sync_dir()?;
        Ok(SegmentFile { path, file, bytes })
    }

    /// Makes the names in the data directory durable. If that fails the log is poisoned before
    /// anybody else may try: the system says only once that it has lost a name, whoever made it,
    /// and a later sync would say that all is well.
    pub(super) fn sync_dir(&self) -> io::Result<()> {
        let _alone = self.syncing.lock().expect("no holder of the lock panics");
        self.poisoned()?;
        self.disk.sync_dir(&self.dir).map_err(|error| {
            let _fault = self.poison("syncing the data directory failed", &error);
            io::Error::other(error)
        })
    }

    fn poisoned(&self) -> io::Result<()> {
        self.poison.get().map_or(Ok(()), |cause| Err(io::Error::other(cause.to_string())))
    }

    /// Takes a spare file that is long enough.
    pub(super) fn spare(&self, bytes: u64) -> Option<SegmentFile> {
        let mut spares = self.spares.lock().expect("no holder of the lock panics");
        let at = spares.iter().position(|spare| spare.bytes >= bytes)?;
        Some(spares.remove(at))
    }

    /// Ends the log's life: nothing is written any more, whatever the disk does later.
    pub(super) fn poison(&self, what: &str, error: &io::Error) -> LogFault {
        let cause: Arc<str> = format!("{what}: {error}").into();
        let cause = Arc::clone(self.poison.get_or_init(|| cause));
        tracing::error!(dir = %self.name, %cause, "the log takes nothing more");
        LogFault::Poisoned { cause }
    }

    pub(super) fn full(&self) -> LogFault {
        LogFault::Full { path: Arc::clone(&self.name) }
    }

    /// Returns why nothing may be written, if so.
    pub(super) fn fault(&self) -> Option<LogFault> {
        if self.is_closed() {
            return Some(LogFault::Closed);
        }
        self.poison.get().map(|cause| LogFault::Poisoned { cause: Arc::clone(cause) })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Ends every call from here on and every watch.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.watchers().end_all();
    }

    /// Lets another process open the data directory.
    pub(super) fn unlock(&self) {
        drop(self.lock.lock().expect("no holder of the lock panics").take());
    }
}

/// Counts a loop as running until it is dropped.
#[derive(Debug)]
pub(super) struct Running(Arc<Shared>);

impl Running {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        shared.loops.send_modify(|count| *count += 1);
        Self(Arc::clone(shared))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.loops.send_modify(|count| *count -= 1);
    }
}
