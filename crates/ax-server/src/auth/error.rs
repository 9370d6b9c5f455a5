//! Why keys cannot be kept.

use std::io;
use std::path::PathBuf;

/// Why keys and tokens cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The system refuses.
    #[error("{} cannot be used", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What is stored was not written by us, or is damaged.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; nothing of its content.
        what: String,
    },
    /// There is no chance to be had.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
    /// The key that was named is not there.
    #[error("there is no key {name:?}")]
    NoKey {
        /// Its id or name.
        name: String,
    },
    /// There is a key with this name already.
    #[error("there is a key {name:?} already")]
    Taken {
        /// The name.
        name: String,
    },
    /// The key was revoked, and stays so.
    #[error("the key {name:?} was revoked")]
    Revoked {
        /// Its id or name.
        name: String,
    },
    /// The name does not do.
    #[error("a name has 1 to {} letters, digits, '.', '-' and '_'", super::keys::NAME_BYTES_MAX)]
    Name,
    /// There are too many keys.
    #[error("there are {} keys, which is the most", super::keys::KEY_COUNT_MAX)]
    TooMany,
}

impl KeepError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
