//! What a local directory needs beyond the library: durable directories, and a broom.
//!
//! The library writes a file beside its place under a name that ends in `#` and a number, syncs
//! it, renames it and syncs the directory. It does not make sure that a directory made by someone
//! else is durable, so all directories of a namespace are made, and synced, before the first put.
//! And a process that dies in between leaves the `#` file, which the library then hides.

use crate::error::{OpenError, StoreError, failed};
use crate::id::BlobId;
use crate::layout::{STAGING, VERSION};
use ax_core::id::Namespace;
use ax_core::time::Timestamp;
use object_store::local::LocalFileSystem;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::UNIX_EPOCH;

/// A directory that holds blobs.
#[derive(Debug)]
pub(crate) struct Local {
    root: PathBuf,
    /// The namespaces whose directories are known to be durable.
    ready: Mutex<HashSet<Namespace>>,
}

/// A file that a dead process left behind.
#[derive(Debug)]
pub(crate) struct Leftover {
    pub(crate) path: PathBuf,
    pub(crate) of: LeftoverOf,
    pub(crate) modified_at: Timestamp,
}

/// What a leftover was to become.
#[derive(Debug)]
pub(crate) enum LeftoverOf {
    Blob(BlobId),
    Upload(String),
}

impl Local {
    pub(crate) fn open(dir: &Path) -> Result<(Self, LocalFileSystem), OpenError> {
        let open = || {
            let absolute = std::path::absolute(dir)?;
            make_durably(&absolute)?;
            absolute.canonicalize()
        };
        let root =
            open().map_err(|source| OpenError::Directory { path: dir.to_path_buf(), source })?;
        let store = LocalFileSystem::new_with_prefix(&root)
            .map_err(|source| OpenError::Store { location: root.display().to_string(), source })?;
        // Empty directories stay: a put that is about to use one must find it.
        let store = store.with_fsync(true).with_automatic_cleanup(false);
        Ok((Self { root, ready: Mutex::default() }, store))
    }

    /// Makes sure that the directories of a namespace are there, and durable.
    pub(crate) async fn prepare(&self, namespace: &Namespace) -> Result<(), StoreError> {
        if self.ready.lock().unwrap_or_else(PoisonError::into_inner).contains(namespace) {
            return Ok(());
        }
        let (root, space) = (self.root.clone(), self.space(namespace));
        let made = blocking(move || {
            fs::create_dir_all(&space)?;
            for byte in 0..=u8::MAX {
                fs::create_dir_all(space.join(format!("{byte:02x}")))?;
            }
            fs::create_dir_all(space.join(STAGING))?;
            sync_directory(&space)?;
            sync_directory(&root.join(VERSION))?;
            sync_directory(&root)
        });
        made.await.map_err(|error| io_failed("make the directories of a namespace", error))?;
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(namespace.clone());
        Ok(())
    }

    /// Finds the files of a namespace that are hidden by the library.
    pub(crate) async fn leftovers(
        &self,
        namespace: &Namespace,
    ) -> Result<Vec<Leftover>, StoreError> {
        let space = self.space(namespace);
        let found = blocking(move || match leftovers_of(&space) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        });
        found.await.map_err(|error| io_failed("look for leftovers", error))
    }

    /// Removes a leftover; returns whether it was still there.
    pub(crate) async fn remove(&self, leftover: &Leftover) -> Result<bool, StoreError> {
        let path = leftover.path.clone();
        let removed = blocking(move || match fs::remove_file(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        });
        removed.await.map_err(|error| io_failed("remove a leftover", error))
    }

    fn space(&self, namespace: &Namespace) -> PathBuf {
        self.root.join(VERSION).join(namespace.as_str())
    }
}

fn leftovers_of(space: &Path) -> io::Result<Vec<Leftover>> {
    let mut found = Vec::new();
    for directory in fs::read_dir(space)? {
        let directory = directory?.path();
        if !directory.is_dir() {
            continue;
        }
        let staging = directory.file_name().is_some_and(|name| name == STAGING);
        for file in fs::read_dir(directory)? {
            let file = file?;
            let Some(of) = leftover_of(&file.file_name().to_string_lossy(), staging) else {
                continue;
            };
            let Ok(metadata) = file.metadata() else { continue };
            let since = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            let modified_at = Timestamp::from_millis(millis);
            found.push(Leftover { path: file.path(), of, modified_at });
        }
    }
    Ok(found)
}

/// Understands the name that the library gives to a file that is being written.
fn leftover_of(name: &str, staging: bool) -> Option<LeftoverOf> {
    let (name, number) = name.split_once('#')?;
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if staging {
        return Some(LeftoverOf::Upload(name.to_owned()));
    }
    BlobId::from_hex(name).map(LeftoverOf::Blob)
}

/// Makes a directory and its parents, and syncs every directory that got a new entry.
fn make_durably(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        make_durably(parent)?;
        fs::create_dir_all(dir)?;
        sync_directory(parent)?;
    }
    Ok(())
}

fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn io_failed(doing: &str, source: io::Error) -> StoreError {
    let source = object_store::Error::Generic { store: "local", source: Box::new(source) };
    failed(doing)(source)
}
