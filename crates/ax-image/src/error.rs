//! What can go wrong with images.

use crate::digest::Digest;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

/// Why something was not done. Nothing of it counts.
#[derive(Debug, thiserror::Error)]
#[expect(clippy::error_impl_error, reason = "`ax_image::Error` reads as what it is")]
pub enum Error {
    /// The disk or the kernel failed.
    #[error("{} cannot be {doing}", path.display())]
    Io {
        /// What was being done, such as `read`.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// How it failed.
        #[source]
        source: io::Error,
    },
    /// Something that was read is not what it should be.
    #[error("the {what} is malformed: {why}")]
    Malformed {
        /// What was read.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A content does not have the hash by which it is named.
    #[error("the {what} has another content than its name says: {found} instead of {expected}")]
    Mismatch {
        /// What was read.
        what: String,
        /// The digest it is named by.
        expected: Digest,
        /// The digest it has.
        found: Digest,
    },
    /// An entry of an archive that is not unpacked.
    #[error("the archive is refused at {path:?}: it {why}")]
    Entry {
        /// The name of the entry.
        path: String,
        /// What it would do.
        why: String,
    },
    /// Something is larger than allowed.
    #[error("{what} is more than {limit}")]
    Limit {
        /// What grows.
        what: &'static str,
        /// How far it may.
        limit: u64,
    },
    /// There is nothing for this machine.
    #[error("the image is for {found}, and this machine is {wanted}")]
    Platform {
        /// What there is.
        found: String,
        /// What is needed.
        wanted: String,
    },
    /// There are several images, and it is not said which one is meant.
    #[error("there are several images: {}", names.join(", "))]
    Ambiguous {
        /// What they are called.
        names: Vec<String>,
    },
    /// There is no such image in the store, or in what is imported.
    #[error("there is no image {name}")]
    NotFound {
        /// What was asked for.
        name: String,
    },
    /// A registry does not answer, or refuses.
    #[error("the registry cannot be used: {why}")]
    Registry {
        /// What it did.
        why: String,
    },
    /// A name that no image can have.
    #[error("{name:?} is no name of an image: {why}")]
    Name {
        /// What was given.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// The store was written by a later version.
    #[error("the image store has format {found}, and this version knows {known}")]
    Version {
        /// The format of the store.
        found: u64,
        /// The latest format that is known.
        known: u64,
    },
}

impl Error {
    pub(crate) fn malformed(what: impl Into<String>, why: impl Display) -> Self {
        Self::Malformed { what: what.into(), why: why.to_string() }
    }

    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { doing, path, source }
    }

    pub(crate) const fn registry(why: String) -> Self {
        Self::Registry { why }
    }

    /// Hides itself in an error of a reader that is handed to others; see [`Error::reading`].
    pub(crate) fn hidden(self) -> io::Error {
        io::Error::other(self)
    }

    /// Makes an error of what a reader said, which may be one of ours.
    pub(crate) fn reading(what: &str) -> impl FnOnce(io::Error) -> Self {
        move |error| match error.downcast::<Self>() {
            Ok(ours) => ours,
            Err(error) => Self::malformed(what, error),
        }
    }

    /// Returns what may help; may be empty.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Mismatch { .. } => {
                "it was damaged or changed: get it again from where it is from"
            }
            Self::Entry { .. } => "docs/images.md says what is not unpacked, and why",
            Self::Limit { .. } => "docs/images.md lists the limits",
            Self::Platform { .. } => "get the image for this machine's architecture",
            Self::Ambiguous { .. } => "say which one with --tag",
            Self::NotFound { .. } => "`ax image list` shows the images there are",
            Self::Name { .. } => "letters, digits and . _ - / : @, such as debian:12",
            Self::Version { .. } => "the store was written by another version of ax",
            Self::Registry { .. } => {
                "check the reference, the network, and the credentials if it wants some"
            }
            Self::Io { .. } | Self::Malformed { .. } => "",
        }
    }
}
