//! Snapshots of workspaces: the files of a session as they were, kept in the blob store.
//!
//! A snapshot costs what has changed since the one before: files that look as they did when they
//! were read are not read, contents that are kept are not kept again, and many small files share
//! one blob. It is a tree of hashes whose root is one blob; the name of that blob is the name of
//! the snapshot, and everything that is read through it is verified.
//!
//! This is not a backup of a file system: owners, extended attributes, devices, pipes and sockets
//! are left out, and a hard link becomes a copy. Nor does it say which snapshots are still needed:
//! the log does, which holds the name of each and of the blobs that came with it.
//!
//! Start with [`snapshot`] and [`restore`]. The format is described in `docs/formats/workspace.md`.
//!
//! # Hostile workspaces
//!
//! Whatever works in a workspace may change it while it is read or restored. Every name is opened
//! from its directory's descriptor and never through a link, so nothing outside is read or changed.
//! A file that changes while it is read is kept as it was found and named in [`Stats::unsettled`].

mod browse;
mod error;
mod index;
pub mod live;
mod pack;
mod restore;
mod save;
mod scan;
mod store;
mod sys;
mod tree;
mod wire;

pub use browse::{Change, Changed, FileReader, Kind, Listed, diff, list, read};
pub use error::{FileError, ReadError, RestoreError, SnapshotError};
pub use pack::Totals;

use ax_core::id::Namespace;
use ax_store::{Blob, BlobId, Blobs};
use std::io;
use std::path::PathBuf;
use tokio::runtime::Handle;

/// Where a workspace is.
#[derive(Clone, Debug)]
pub struct Place {
    /// The workspace.
    pub dir: PathBuf,
    /// A directory of its own beside it, which nobody who works in the workspace can reach. It
    /// holds what makes the next snapshot cheap, and the mark of a restore that is under way. It is
    /// made when it is needed and may be removed, but not during a restore.
    pub beside: PathBuf,
}

/// How a workspace is read and written.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What is too much.
    pub limits: Limits,
    /// Paths that are the runtime's own: not in a snapshot, not touched by a restore. Relative,
    /// with `/` between names and none at either end.
    pub skip: Vec<Vec<u8>>,
    /// Somebody may be at work in the workspace. What is read now is read again the next time: a
    /// file that is mapped into memory can change without looking different.
    pub busy: bool,
}

/// What is too much for a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Files, links and directories.
    pub entries: u64,
    /// The sum of the lengths of the files, in bytes.
    pub bytes: u64,
    /// Levels of directories below the workspace.
    pub depth: u32,
}

impl Default for Limits {
    /// 250 000 files, 32 GiB, 128 levels.
    fn default() -> Self {
        Self { entries: 250_000, bytes: 32 << 30, depth: 128 }
    }
}

/// A snapshot that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The blob that everything else is read through. Its id is the name of the snapshot.
    pub root: Blob,
    /// The blobs that came with it, the root among them unless nothing has changed. All others it
    /// needs came with the snapshots before it.
    pub written: Vec<Blob>,
    /// What it holds.
    pub totals: Totals,
    /// What it cost.
    pub stats: Stats,
}

/// What a snapshot cost, and what it could not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Files that were read because they may have changed.
    pub files_read: u64,
    /// What was read of them, in bytes.
    pub bytes_read: u64,
    /// Blobs that were written.
    pub blobs_written: u64,
    /// Their lengths, in bytes.
    pub bytes_written: u64,
    /// Sockets, pipes and devices, which are left out.
    pub special: u64,
    /// Directories of other file systems, which are left out.
    pub mounts: u64,
    /// Files and directories that may not be read, which are left out.
    pub unreadable: u64,
    /// The first files that changed whenever they were read. They are kept as they were found.
    pub unsettled: Vec<String>,
}

/// What a restore did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Files that were written because they were missing or differed.
    pub files_written: u64,
    /// What was written into them, in bytes.
    pub bytes_written: u64,
    /// What was read of files that were there, to compare them, in bytes.
    pub bytes_compared: u64,
    /// Files, links and directories that were removed.
    pub removed: u64,
    /// Blobs that were read.
    pub blobs_read: u64,
    /// Their lengths, in bytes.
    pub blob_bytes_read: u64,
}

/// Takes a snapshot. When this returns it is durable.
///
/// `previous` is the last snapshot of the same workspace, whose blobs the log still refers to. If
/// nothing has changed since, it is returned again and nothing is written. A process that dies
/// meanwhile leaves at most blobs that nothing refers to.
///
/// # Errors
///
/// Returns [`SnapshotError`] if the workspace is too large, or it or the store cannot be used.
///
/// # Cancellation
///
/// If the future is dropped the work goes on without anybody to tell.
pub async fn snapshot(
    blobs: &Blobs,
    namespace: &Namespace,
    place: &Place,
    previous: Option<Blob>,
    options: &Options,
) -> Result<Snapshot, SnapshotError> {
    let job = save::Job {
        handle: Handle::current(),
        blobs: blobs.clone(),
        namespace: namespace.clone(),
        place: place.clone(),
        previous,
        options: options.clone(),
    };
    let done = tokio::task::spawn_blocking(move || job.run()).await;
    done.map_err(|_| SnapshotError::Stopped)?
}

/// Makes a directory equal to a snapshot: writes what is missing or differs, and removes the rest.
/// When this returns that is durable.
///
/// Nobody may be at work in it. A process that dies meanwhile leaves a mark beside the workspace:
/// until the restore was repeated the directory is not to be used, see [`unfinished`].
///
/// # Errors
///
/// Returns [`RestoreError`] if the snapshot is damaged, or the directory cannot be changed. Nothing
/// was changed if its directories could not be read.
pub async fn restore(
    blobs: &Blobs,
    namespace: &Namespace,
    place: &Place,
    snapshot: &BlobId,
    options: &Options,
) -> Result<Restored, RestoreError> {
    let job = restore::Job {
        handle: Handle::current(),
        blobs: blobs.clone(),
        namespace: namespace.clone(),
        place: place.clone(),
        snapshot: *snapshot,
        options: options.clone(),
    };
    let done = tokio::task::spawn_blocking(move || job.run()).await;
    done.map_err(|_| RestoreError::Stopped)?
}

/// Returns the snapshot whose restore was begun in this place and not ended. It has to be restored
/// again before anybody uses the workspace.
///
/// # Errors
///
/// Returns what the system said if that cannot be known.
pub fn unfinished(place: &Place) -> io::Result<Option<BlobId>> {
    restore::unfinished(&place.beside)
}
