//! Directories in which an agent keeps its state, copied so that a turn can be begun again.
//!
//! All of this is done while nothing of the session runs; no link that an agent left is followed.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::symlink;
use std::path::Path;

/// The largest state that is copied, in bytes and in files.
const STATE_BYTES_MAX: u64 = 512 * 1024 * 1024;
const STATE_FILES_MAX: u64 = 50_000;

/// Keeps what is ours out of what an agent is told of its workspace, should that be a repository.
pub(crate) fn hide(dir: &Path) -> io::Result<()> {
    match File::create_new(dir.join(".gitignore")) {
        Ok(mut file) => file.write_all(b"*\n"),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Puts a copy of a directory in the place of another.
pub(crate) fn put(from: &Path, to: &Path) -> io::Result<()> {
    let beside = to.with_extension("new");
    remove(&beside)?;
    copy(from, &beside)?;
    remove(to)?;
    fs::rename(&beside, to)
}

/// Removes a directory, or what is in its place.
pub(crate) fn remove(dir: &Path) -> io::Result<()> {
    let is_dir = fs::symlink_metadata(dir).is_ok_and(|found| found.is_dir());
    match if is_dir { fs::remove_dir_all(dir) } else { fs::remove_file(dir) } {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Copies files, directories and links; what else there is, such as sockets, is of a process that
/// is dead.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &to)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, &to)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &to).map(drop)?;
        }
    }
    Ok(())
}

/// Removes the copies of earlier executions.
pub(crate) fn forget_turns(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("turn-") {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Whether a directory is small enough to be copied for every execution.
pub(crate) fn is_small(dir: &Path) -> io::Result<bool> {
    let (mut bytes, mut files, mut dirs) = (0, 0, vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let about = entry.metadata()?;
            if about.is_dir() {
                dirs.push(entry.path());
            }
            (bytes, files) = (bytes + about.len(), files + 1);
            if bytes > STATE_BYTES_MAX || files > STATE_FILES_MAX {
                let dir = entry.path();
                tracing::warn!(dir = %dir.display(), "an agent's state is too large to copy");
                return Ok(false);
            }
        }
    }
    Ok(true)
}
