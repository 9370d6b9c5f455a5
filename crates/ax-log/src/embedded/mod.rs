//! The durable log of one process in one data directory.
//!
//! ```text
//! append ─▶ commit loops ─▶ segment (one durable write a batch) ─▶ memtable ─▶ answer, watchers
//!                              │ full: rotate
//!                              ▼
//!                    frozen memtable ─▶ run (grouped by session) ─▶ merged into larger runs
//! ```
//!
//! Two loops commit, one block each at a time, in one order; two more write runs and merge them.
//! Readers take one [`version::Version`] and never wait for any of them. What is in memory is the
//! memtables, the sessions that someone may write, and one cache: all bounded by [`Limits`],
//! whatever the history. `docs/formats/log.md` describes the files byte by byte.

mod cache;
mod changes;
mod commit_loop;
mod committer;
pub mod disk;
pub mod fake;
mod format;
pub mod fsck;
mod listing;
mod log;
mod manifest;
mod memtable;
mod merge;
mod os_disk;
mod recover;
mod replay;
mod request;
mod rotate;
mod run;
mod run_loop;
mod segment;
mod sessions;
mod shared;
mod spawn;
mod version;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use disk::{Disk, DiskFile, Held, LockError, PAGE_BYTES, make_dir};
pub use log::EmbeddedLog;
pub use os_disk::OsDisk;
pub use spawn::{ShuffleSpawner, Spawner, TaskSpawner, ThreadSpawner};

/// The most memory that the index of a store takes, in bytes, however long its history is.
pub const INDEX_CACHE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The length of a store's first segment, in bytes.
pub const SEGMENT_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// How many times as long as the one before a segment is, until it has its full length.
pub const SEGMENT_GROWTH: u64 = 4;
/// The length that segments grow to, in bytes.
pub const SEGMENT_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// The most memory that the memtable of one segment takes, in bytes.
pub const MEMTABLE_BYTES_MAX: usize = 48 * 1024 * 1024;
/// How many memtables may wait to become runs before appends wait for them.
pub const FROZEN_COUNT_MAX: usize = 2;
/// How many blocks are being written at the same time at most. A block says which one before it
/// was durable when it was made; recovery counts on it that this is at most so many before it.
pub const BLOCKS_IN_FLIGHT_MAX: usize = 2;
/// How much is committed at once at most, in bytes, unless one append is larger.
pub const COMMIT_BYTES_MAX: usize = 1024 * 1024;
/// How many requests are taken up at once at most.
pub const COMMIT_COUNT_MAX: usize = 4096;
/// How long a block of a run is, in bytes, unless one record is longer.
pub const RUN_BLOCK_BYTES: usize = 16 * 1024;
/// How many runs of about the same size there may be before they are merged into one.
pub const RUNS_PER_TIER_MAX: usize = 64;

/// The sizes of a log. The defaults are for a real disk; tests take smaller ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// [`SEGMENT_BYTES_MIN`] unless set.
    pub segment_bytes_min: u64,
    /// [`SEGMENT_BYTES_MAX`] unless set.
    pub segment_bytes_max: u64,
    /// [`MEMTABLE_BYTES_MAX`] unless set.
    pub memtable_bytes_max: usize,
    /// [`COMMIT_BYTES_MAX`] unless set.
    pub commit_bytes_max: usize,
    /// [`RUN_BLOCK_BYTES`] unless set.
    pub run_block_bytes: usize,
    /// [`RUNS_PER_TIER_MAX`] unless set.
    pub runs_per_tier_max: usize,
    /// [`INDEX_CACHE_BYTES_MAX`] unless set.
    pub index_cache_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            segment_bytes_min: SEGMENT_BYTES_MIN,
            segment_bytes_max: SEGMENT_BYTES_MAX,
            memtable_bytes_max: MEMTABLE_BYTES_MAX,
            commit_bytes_max: COMMIT_BYTES_MAX,
            run_block_bytes: RUN_BLOCK_BYTES,
            runs_per_tier_max: RUNS_PER_TIER_MAX,
            index_cache_bytes_max: INDEX_CACHE_BYTES_MAX,
        }
    }
}

impl Limits {
    /// Returns sizes so small that a test of a few hundred entries rotates and merges many times.
    pub const fn tiny() -> Self {
        Self {
            segment_bytes_min: 16 * 1024,
            segment_bytes_max: 32 * 1024,
            memtable_bytes_max: 64 * 1024,
            commit_bytes_max: 8 * 1024,
            run_block_bytes: 512,
            runs_per_tier_max: 3,
            index_cache_bytes_max: 8 * 1024,
        }
    }
}

/// Where and how to open a log.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory; made if it does not exist.
    pub dir: PathBuf,
    /// The disk it is on.
    pub disk: Arc<dyn Disk>,
    /// Where the background loops run.
    pub spawner: Arc<dyn Spawner>,
    /// The sizes of the log.
    pub limits: Limits,
    /// The number that a new store is to have, which its checksums begin with; drawn if `None`. A
    /// simulator gives one, so that nothing is random.
    pub store: Option<u64>,
}

impl Options {
    /// Opens `dir` on the real disk with background threads.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            disk: Arc::new(OsDisk),
            spawner: Arc::new(ThreadSpawner),
            limits: Limits::default(),
            store: None,
        }
    }
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the data directory open.
    #[error("the data directory {} is in use by {holder}", dir.display())]
    Locked {
        /// The data directory.
        dir: PathBuf,
        /// The process id and the command line of the holder, as it wrote them into the lock.
        holder: String,
    },
    /// What is stored is not what was written.
    #[error("{path} is damaged at byte {offset}: {what}")]
    Damaged {
        /// The file.
        path: Arc<str>,
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        what: Arc<str>,
    },
    /// The store was written by a version of this program that has another format.
    #[error("{} has format version {found}, this program knows version {known}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version that it says.
        found: u16,
        /// The version that is known.
        known: u16,
    },
    /// The disk is full.
    #[error("no space is left for the log in {}", dir.display())]
    Full {
        /// The data directory.
        dir: PathBuf,
    },
    /// The file system failed.
    #[error("{action} {} failed", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl From<crate::LogFault> for OpenError {
    fn from(fault: crate::LogFault) -> Self {
        match fault {
            crate::LogFault::Damaged { path, offset, what } => Self::Damaged { path, offset, what },
            crate::LogFault::Full { path } => Self::Full { dir: PathBuf::from(&*path) },
            crate::LogFault::Read { path, source } => Self::Io {
                action: "reading",
                path: PathBuf::from(&*path),
                source: io::Error::new(source.kind(), source.to_string()),
            },
            other => Self::Io {
                action: "opening",
                path: PathBuf::new(),
                source: io::Error::other(other.to_string()),
            },
        }
    }
}

/// Whether an error says that there is no space left.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> OpenError {
    OpenError::Io { action, path: path.to_owned(), source }
}
