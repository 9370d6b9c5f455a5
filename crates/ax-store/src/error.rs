//! What can go wrong, per operation.

use crate::id::BlobId;
use std::io;
use std::path::PathBuf;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be made or read.
    #[error("the blob directory {} cannot be opened", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The library refused the directory or the URL.
    #[error("the blob store {location} cannot be opened")]
    Store {
        /// What was to be opened; never with credentials in it.
        location: String,
        /// What the library said.
        #[source]
        source: object_store::Error,
    },
    /// The URL is none, or of a kind that this build does not know.
    #[error("{url:?} is not the URL of a blob store: {reason}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The store behind the blobs failed.
#[derive(Debug, thiserror::Error)]
#[error("the blob store failed to {doing}")]
pub struct StoreError {
    /// What was being done: a verb and its object.
    pub doing: String,
    /// What the library said.
    #[source]
    pub source: object_store::Error,
}

/// Why a content was not taken in. Nothing of it can be seen.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The content is longer than the caller allows.
    #[error("the content is longer than {bytes_max} bytes")]
    TooLarge {
        /// The caller's limit.
        bytes_max: u64,
    },
    /// The content could not be read to its end.
    #[error("the content could not be read to its end")]
    Content {
        /// What its source said.
        #[source]
        source: io::Error,
    },
    /// The store failed; whether it can take another content is unknown.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a blob was not given out.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// There is no such blob in this namespace.
    #[error("there is no {id}")]
    Missing {
        /// The blob.
        id: BlobId,
    },
    /// What is kept under the name is not the content it was made of.
    #[error("{id} is damaged: {bytes} bytes are kept, and they are the content of {found}")]
    Damaged {
        /// The blob.
        id: BlobId,
        /// The number of bytes found.
        bytes: u64,
        /// What these bytes would be called.
        found: BlobId,
    },
    /// The blob is longer than the caller allows.
    #[error("{id} has {bytes} bytes, more than {bytes_max}")]
    TooLarge {
        /// The blob.
        id: BlobId,
        /// Its length.
        bytes: u64,
        /// The caller's limit.
        bytes_max: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Names what was being done when the library failed.
pub(crate) fn failed(doing: impl Into<String>) -> impl FnOnce(object_store::Error) -> StoreError {
    let doing = doing.into();
    move |source| StoreError { doing, source }
}
