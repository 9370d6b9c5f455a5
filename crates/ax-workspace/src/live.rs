//! The files of a workspace as they are now, while anybody may be at work in it.
//!
//! Paths are relative, with `/` between names; the empty path is the workspace. Each name is opened
//! from the descriptor of its directory and never through a link, so that nothing outside is read,
//! written or removed, whatever is put in its place meanwhile. Only regular files are opened: a
//! pipe or device keeps nobody waiting.

use crate::browse::{Kind, Listed};
use crate::error::FileError;
use crate::restore::DRAFT;
use crate::sys::{self, shown};
use crate::tree::{NAME_BYTES_MAX, TARGET_BYTES_MAX};
use crate::{Limits, Place};
use bytes::Bytes;
use futures::stream::{Stream, StreamExt as _};
use rustix::fs::{AtFlags, FileType, Gid, Mode, RenameFlags, Stat, Uid};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;

/// How much of a file is returned at a time, in bytes.
const READ_BYTES: usize = 256 << 10;
/// How files are called beside the workspace until they are complete.
const BESIDE_DRAFT: &str = "draft.";
/// The permissions of a directory that is made because a file is to be in it.
const DIR_MODE: Mode = Mode::from_raw_mode(0o755);

/// A file of a workspace that is being read.
#[derive(Debug)]
pub struct FileReader {
    file: Arc<File>,
    path: String,
    about: Listed,
    at: u64,
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// Its nine bits of permission.
    pub mode: u16,
    /// Whether what is there already is replaced, unless it is a directory.
    pub overwrite: bool,
    /// The longest content, in bytes.
    pub bytes_max: u64,
}

/// Lists what is in a directory, in the order of the names' bytes, or the one thing that `path`
/// names if that is no directory.
///
/// # Errors
///
/// Returns [`FileError`] if there is no such path, it leads through a link, or a directory has more
/// entries than a snapshot may have.
pub async fn list(dir: &Path, path: &[u8]) -> Result<Vec<Listed>, FileError> {
    let (dir, path) = (dir.to_owned(), path.to_vec());
    blocking(move || At::new(&dir, &path)?.list()).await
}

/// Opens a regular file.
///
/// # Errors
///
/// As [`list`], and if the path is no regular file.
pub async fn read(dir: &Path, path: &[u8]) -> Result<FileReader, FileError> {
    let (dir, path) = (dir.to_owned(), path.to_vec());
    blocking(move || At::new(&dir, &path)?.read()).await
}

/// Writes a file. It is there whole or not at all, and durable when this returns; its length in
/// bytes is returned. Directories that are missing on the way are made.
///
/// What has its name is replaced if it may be, a link by the file and not what it leads to. A
/// process that dies meanwhile leaves at most something beside the workspace, which the next write
/// removes, or a file that is in no snapshot.
///
/// # Errors
///
/// Returns [`FileError`] if the path leads through a link or names a directory, there is something
/// that is not to be overwritten, the content breaks off or is too long, or the disk fails.
///
/// # Cancellation
///
/// If the future is dropped the work goes on to the end of the content.
pub async fn write(
    place: &Place,
    path: &[u8],
    content: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    how: Write,
) -> Result<u64, FileError> {
    let (place, path, handle) = (place.clone(), path.to_vec(), Handle::current());
    blocking(move || {
        let mut content = Box::pin(content);
        let next = || handle.block_on(content.next());
        At::new(&place.dir, &path)?.write(&place.beside, next, how)
    })
    .await
}

/// Removes a file, link or empty directory; with `recursive` a directory and everything in it. How
/// many of them were removed is returned. The workspace itself cannot be.
///
/// # Errors
///
/// Returns [`FileError`] if there is no such path, it leads through a link, a directory is not
/// empty, or the disk fails; something may be removed then.
pub async fn remove(dir: &Path, path: &[u8], recursive: bool) -> Result<u64, FileError> {
    let (dir, path) = (dir.to_owned(), path.to_vec());
    blocking(move || At::new(&dir, &path)?.remove(recursive)).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, FileError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| FileError::Stopped)?
}

/// Returns the names of a path, none of which leads up.
pub(crate) fn names_of(path: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    if path.len() > TARGET_BYTES_MAX {
        return Err("is too long");
    }
    if path.first() == Some(&b'/') {
        return Err("is not relative");
    }
    if path.contains(&0) {
        return Err("has a zero byte");
    }
    let parts = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    let parts: Vec<&[u8]> = parts.collect();
    if parts.contains(&b"..".as_slice()) {
        return Err("leads up");
    }
    if parts.iter().any(|part| part.len() > NAME_BYTES_MAX) {
        return Err("has a name that is too long");
    }
    Ok(parts)
}

/// A path in a workspace.
struct At<'a> {
    dir: &'a Path,
    names: Vec<&'a [u8]>,
    path: String,
}

impl<'a> At<'a> {
    fn new(dir: &'a Path, path: &'a [u8]) -> Result<Self, FileError> {
        let names = names_of(path)
            .map_err(|why| FileError::BadPath { path: shown(&path[..path.len().min(255)]), why })?;
        Ok(Self { dir, path: shown(path), names })
    }

    fn list(&self) -> Result<Vec<Listed>, FileError> {
        let root = self.root()?;
        let Some((name, parent)) = self.above(&root)? else { return self.inside(&root) };
        let stat = self.stat(parent.as_fd(), name)?;
        if sys::kind(&stat) == FileType::Directory {
            let dir = sys::open_dir(&parent, name).map_err(|errno| self.failed(errno))?;
            return self.inside(&dir);
        }
        Ok(vec![self.listed(parent.as_fd(), name.into(), &stat)])
    }

    fn inside(&self, dir: &OwnedFd) -> Result<Vec<Listed>, FileError> {
        let max = Limits::default().entries;
        let names = sys::names(dir.as_fd(), max).map_err(|errno| self.failed(errno))?;
        let names = names.ok_or_else(|| self.limit("entries", max))?;
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            match sys::stat(dir, &name) {
                Ok(stat) => found.push(self.listed(dir.as_fd(), name, &stat)),
                // It was removed since.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(self.failed(errno)),
            }
        }
        Ok(found)
    }

    fn listed(&self, dir: BorrowedFd<'_>, name: Box<[u8]>, stat: &Stat) -> Listed {
        let (kind, bytes, target) = match sys::kind(stat) {
            FileType::RegularFile => (Kind::File, sys::bytes(stat), Vec::new()),
            FileType::Directory => (Kind::Dir, 0, Vec::new()),
            FileType::Symlink => {
                // If it is something else by now its target is not known.
                let target = sys::target(dir, &name).map(|target| target.into_bytes());
                (Kind::Link, 0, target.unwrap_or_default())
            }
            _ => (Kind::Special, 0, Vec::new()),
        };
        let meta = sys::meta(stat);
        let modified_seconds = meta.mtime.seconds;
        Listed { name: name.into(), kind, mode: meta.mode, modified_seconds, bytes, target }
    }

    fn read(&self) -> Result<FileReader, FileError> {
        let root = self.root()?;
        let wanted = "a file";
        let Some((name, parent)) = self.above(&root)? else {
            return Err(self.kind("a directory", wanted));
        };
        let check = |stat: &Stat| match sys::kind(stat) {
            FileType::RegularFile => Ok(()),
            found => Err(self.kind(described(found), wanted)),
        };
        // Looked at before, too: opening a device may already do something.
        check(&self.stat(parent.as_fd(), name)?)?;
        let file = sys::open_file(&parent, name).map_err(|errno| self.failed(errno))?;
        let stat = rustix::fs::fstat(&file).map_err(|errno| self.failed(errno))?;
        check(&stat)?;
        let about = self.listed(parent.as_fd(), name.into(), &stat);
        let (file, path) = (Arc::new(File::from(file)), self.path.clone());
        Ok(FileReader { file, path, about, at: 0 })
    }

    fn write(
        &self,
        beside: &Path,
        mut next: impl FnMut() -> Option<io::Result<Bytes>>,
        how: Write,
    ) -> Result<u64, FileError> {
        let root = self.root()?;
        let Some((name, above)) = self.names.split_last() else {
            return Err(self.kind("a directory", "a file"));
        };
        let about = rustix::fs::fstat(&root).map_err(|errno| self.failed(errno))?;
        let owner = sys::owner(&about);
        let parent = self.make(root, above, owner)?;
        // Said before the content is read, and decided when it is put there.
        match sys::stat(&parent, name) {
            Ok(stat) => self.check_replaced(&stat, how.overwrite)?,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(self.failed(errno)),
        }
        let mut draft = Draft::new(beside, &parent)
            .map_err(|(path, errno)| FileError::Io { path, source: errno.into() })?;
        let mut bytes: u64 = 0;
        while let Some(piece) = next() {
            let broken = |source| FileError::Content { path: self.path.clone(), source };
            let piece = piece.map_err(broken)?;
            bytes = bytes.saturating_add(piece.len() as u64);
            if bytes > how.bytes_max {
                return Err(self.limit("bytes", how.bytes_max));
            }
            draft.file.write_all(&piece).map_err(|source| self.io(source))?;
        }
        let dressed = dress(&draft.file, how.mode, owner);
        dressed.map_err(|errno| self.failed(errno))?;
        draft.file.sync_all().map_err(|source| self.io(source))?;
        let flags = if how.overwrite { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        let to = &parent;
        match rustix::fs::renameat_with(&draft.dir, &*draft.name, to, *name, flags) {
            Ok(()) => draft.is_placed = true,
            Err(Errno::EXIST) => return Err(FileError::Exists { path: self.path.clone() }),
            Err(Errno::ISDIR) => return Err(self.kind("a directory", "a file")),
            Err(errno) => return Err(self.failed(errno)),
        }
        rustix::fs::fsync(&parent).map_err(|errno| self.failed(errno))?;
        Ok(bytes)
    }

    fn check_replaced(&self, stat: &Stat, overwrite: bool) -> Result<(), FileError> {
        match sys::kind(stat) {
            FileType::Directory => Err(self.kind("a directory", "a file")),
            _ if overwrite => Ok(()),
            _ => Err(FileError::Exists { path: self.path.clone() }),
        }
    }

    /// Opens directories one in the other, and makes those that are missing.
    fn make(
        &self,
        root: OwnedFd,
        names: &[&[u8]],
        owner: Option<(Uid, Gid)>,
    ) -> Result<OwnedFd, FileError> {
        let mut at = root;
        for name in names {
            let made = match rustix::fs::mkdirat(&at, *name, Mode::RWXU) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(errno) => return Err(self.failed(errno)),
            };
            let inner = self.enter(&at, name)?;
            if made {
                let dressed = rustix::fs::fchmod(&inner, DIR_MODE).and_then(|()| match owner {
                    Some((uid, gid)) => rustix::fs::fchown(&inner, Some(uid), Some(gid)),
                    None => Ok(()),
                });
                let durable = dressed.and_then(|()| rustix::fs::fsync(&at));
                durable.map_err(|errno| self.failed(errno))?;
            }
            at = inner;
        }
        Ok(at)
    }

    fn remove(&self, recursive: bool) -> Result<u64, FileError> {
        let root = self.root()?;
        let Some((name, parent)) = self.above(&root)? else {
            let why = "is the workspace itself";
            return Err(FileError::BadPath { path: self.path.clone(), why });
        };
        let stat = self.stat(parent.as_fd(), name)?;
        let removed = match (sys::kind(&stat), recursive) {
            (FileType::Directory, true) => sys::remove_all(parent.as_fd(), name),
            (FileType::Directory, false) => {
                rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR).map(|()| 1)
            }
            _ => rustix::fs::unlinkat(&parent, name, AtFlags::empty()).map(|()| 1),
        };
        let removed = removed.map_err(|errno| match errno {
            Errno::NOTEMPTY | Errno::EXIST => FileError::NotEmpty { path: self.path.clone() },
            errno => self.failed(errno),
        })?;
        rustix::fs::fsync(&parent).map_err(|errno| self.failed(errno))?;
        Ok(removed)
    }

    fn root(&self) -> Result<OwnedFd, FileError> {
        sys::open_root(self.dir)
            .map_err(|errno| FileError::Io { path: self.dir.to_owned(), source: errno.into() })
    }

    /// Returns the last name, and the directory that it is in; none for the workspace itself.
    fn above(&self, root: &OwnedFd) -> Result<Option<(&'a [u8], OwnedFd)>, FileError> {
        let Some((name, above)) = self.names.split_last() else { return Ok(None) };
        let mut at = root.try_clone().map_err(|source| self.io(source))?;
        for name in above {
            at = self.enter(&at, name)?;
        }
        Ok(Some((name, at)))
    }

    fn enter(&self, dir: &OwnedFd, name: &[u8]) -> Result<OwnedFd, FileError> {
        match sys::open_dir(dir, name) {
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let found = sys::stat(dir, name)
                    .map_or("something else", |stat| described(sys::kind(&stat)));
                let (path, wanted) = (shown(name), "a directory");
                Err(FileError::Kind { path, found, wanted })
            }
            opened => opened.map_err(|errno| self.failed(errno)),
        }
    }

    fn stat(&self, dir: BorrowedFd<'_>, name: &[u8]) -> Result<Stat, FileError> {
        sys::stat(dir, name).map_err(|errno| self.failed(errno))
    }

    /// Says what it means that something failed with this path.
    fn failed(&self, errno: Errno) -> FileError {
        match errno {
            Errno::NOENT => FileError::NoPath { path: self.path.clone() },
            Errno::LOOP | Errno::NOTDIR => self.kind("something else", "what it was before"),
            errno => self.io(errno.into()),
        }
    }

    fn io(&self, source: io::Error) -> FileError {
        FileError::Io { path: self.dir.join(&self.path), source }
    }

    fn kind(&self, found: &'static str, wanted: &'static str) -> FileError {
        FileError::Kind { path: self.path.clone(), found, wanted }
    }

    fn limit(&self, what: &'static str, max: u64) -> FileError {
        FileError::Limit { path: self.path.clone(), what, max }
    }
}

/// What it is, for a message.
pub(crate) fn described(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a link",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        _ => "a device",
    }
}

/// Gives a file its owner and permissions.
fn dress(file: &File, mode: u16, owner: Option<(Uid, Gid)>) -> Result<(), Errno> {
    if let Some((uid, gid)) = owner {
        rustix::fs::fchown(file, Some(uid), Some(gid))?;
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(u32::from(mode & 0o777)))
}

/// A file that is not complete. It is removed unless it was put in its place.
struct Draft {
    dir: OwnedFd,
    name: String,
    file: File,
    is_placed: bool,
}

impl Draft {
    /// Makes it beside the workspace, or where it will be if that is another file system.
    fn new(beside: &Path, parent: &OwnedFd) -> Result<Self, (PathBuf, Errno)> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        /// Another one for each process, also where all have the same id.
        static LIFE: LazyLock<u128> = LazyLock::new(|| {
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
        });
        let failed = |errno: Errno| (beside.to_owned(), errno);
        fs::create_dir_all(beside)
            .map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        let dir = sys::open_root(beside).map_err(failed)?;
        let device = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| stat.st_dev).map_err(failed);
        let own = format!("{:x}.{}", *LIFE, NEXT.fetch_add(1, Ordering::Relaxed));
        let (dir, name) = if device(&dir)? == device(parent)? {
            remove_old(&dir, &format!("{BESIDE_DRAFT}{:x}.", *LIFE)).map_err(failed)?;
            (dir, format!("{BESIDE_DRAFT}{own}"))
        } else {
            let dir = parent.try_clone();
            let dir = dir.map_err(|_| failed(Errno::MFILE))?;
            (dir, format!("{}.{own}", String::from_utf8_lossy(DRAFT)))
        };
        let file = File::from(sys::create_file(&dir, name.as_bytes()).map_err(failed)?);
        Ok(Self { dir, name, file, is_placed: false })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_placed {
            // If it cannot be removed now, a later write does.
            let _ = rustix::fs::unlinkat(&self.dir, &*self.name, AtFlags::empty());
        }
    }
}

/// Removes what earlier lives of this process have left.
fn remove_old(beside: &OwnedFd, own: &str) -> Result<(), Errno> {
    for name in sys::names(beside.as_fd(), u64::MAX)?.unwrap_or_default() {
        if name.starts_with(BESIDE_DRAFT.as_bytes()) && !name.starts_with(own.as_bytes()) {
            match rustix::fs::unlinkat(beside, &*name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

impl FileReader {
    /// Returns the length of the file when it was opened, in bytes. What is appended later is not
    /// read.
    pub const fn bytes(&self) -> u64 {
        self.about.bytes
    }

    /// Returns what the file was when it was opened.
    pub const fn about(&self) -> &Listed {
        &self.about
    }

    /// Returns the next piece, at most 256 KiB; `None` at the end.
    ///
    /// # Errors
    ///
    /// Returns [`FileError`] if the file has become shorter, or the disk fails.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FileError> {
        let left = self.about.bytes - self.at;
        if left == 0 {
            return Ok(None);
        }
        let (file, at, path) = (Arc::clone(&self.file), self.at, self.path.clone());
        let wanted = usize::try_from(left).map_or(READ_BYTES, |left| left.min(READ_BYTES));
        let piece = blocking(move || {
            let mut piece = vec![0; wanted];
            match file.read_exact_at(&mut piece, at) {
                Ok(()) => Ok(piece),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    Err(FileError::Changed { path })
                }
                Err(source) => Err(FileError::Io { path: path.into(), source }),
            }
        });
        let piece = Bytes::from(piece.await?);
        self.at += piece.len() as u64;
        Ok(Some(piece))
    }
}
