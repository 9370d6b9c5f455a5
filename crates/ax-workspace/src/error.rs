//! What can go wrong, per operation.

use ax_store::{BlobId, GetError, StoreError};
use std::io;
use std::path::PathBuf;

/// Why no snapshot was taken. What was there before is untouched.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The workspace is more than may be kept.
    #[error("the workspace has more than {max} {what}: {at}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        max: u64,
        /// Where that was found, with bytes that are no text escaped.
        at: String,
    },
    /// The directory, or what is kept beside it, cannot be used.
    #[error("{} cannot be used", path.display())]
    Directory {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The snapshot before this one cannot be read.
    #[error("the snapshot before cannot be read")]
    Previous(#[source] ReadError),
    /// The blob store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The work was ended before it was done, because the process ends.
    #[error("the snapshot was broken off")]
    Stopped,
}

/// Why a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A blob of it is missing, damaged, or cannot be read.
    #[error("a blob of the snapshot cannot be read")]
    Blob(#[from] GetError),
    /// What a blob holds is no part of a snapshot, or not the part that was asked for.
    #[error("{id} is no good part of a snapshot: {reason}")]
    Malformed {
        /// The blob.
        id: BlobId,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// It holds more than may be read.
    #[error("the snapshot has more than {max} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        max: u64,
    },
    /// There is nothing at this path.
    #[error("there is no {path:?} in the snapshot")]
    NoPath {
        /// What was asked for, with bytes that are no text escaped.
        path: String,
    },
    /// What is at this path is of another kind.
    #[error("{path:?} is {found}, not {wanted}")]
    Kind {
        /// What was asked for.
        path: String,
        /// What it is.
        found: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
}

/// Why a directory was not made equal to a snapshot. It may be half done; the restore is then
/// remembered and has to be repeated: see [`crate::unfinished`].
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The snapshot cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The directory, or something in it, cannot be changed.
    #[error("{} cannot be restored", path.display())]
    Directory {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The work was ended before it was done, because the process ends.
    #[error("the restore was broken off")]
    Stopped,
}

/// Why a file of a workspace was not listed, read, written or removed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Nothing in a workspace can have this path.
    #[error("{path:?} is no path in a workspace: it {why}")]
    BadPath {
        /// What was asked for, with bytes that are no text escaped.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There is nothing at this path.
    #[error("there is no {path:?} in the workspace")]
    NoPath {
        /// What was asked for.
        path: String,
    },
    /// What is at this path, or on the way there, is of another kind.
    #[error("{path:?} is {found}, not {wanted}")]
    Kind {
        /// What was found.
        path: String,
        /// What it is.
        found: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// There is something already, and it is not to be overwritten.
    #[error("there is already a {path:?} in the workspace")]
    Exists {
        /// Where.
        path: String,
    },
    /// A directory has something in it, which is not to be removed with it.
    #[error("{path:?} is not empty")]
    NotEmpty {
        /// The directory.
        path: String,
    },
    /// It is more than may be.
    #[error("{path:?} has more than {max} {what}")]
    Limit {
        /// Where.
        path: String,
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        max: u64,
    },
    /// A file became shorter while it was read.
    #[error("{path:?} changed while it was read")]
    Changed {
        /// The file.
        path: String,
    },
    /// What was to be written broke off. The workspace is as it was.
    #[error("the content of {path:?} broke off")]
    Content {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The disk or the kernel failed.
    #[error("{} cannot be used", path.display())]
    Io {
        /// With what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The work was ended before it was done, because the process ends.
    #[error("the work was broken off")]
    Stopped,
}
