//! The tree that grows. Every path is walked from its root, without links.

use super::names::PATH_BYTES_MAX;
use crate::error::Error;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, XattrFlags, fchmod,
    fsetxattr, futimens, linkat, mkdirat, mknodat, openat, openat2, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// The attribute of a directory that hides what is below.
pub(crate) const OPAQUE: &str = "user.overlay.opaque";
/// No way out, over whatever an entry may have made.
const WALK: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
const DIR: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// The mode of a directory that has no entry of its own.
const DIR_MODE: Mode = Mode::from_raw_mode(0o755);

pub(super) struct Tree<'a> {
    root: BorrowedFd<'a>,
    /// The directory that was last walked to. Directories are never removed, so it stays the one.
    last: Option<(PathBuf, OwnedFd)>,
}

impl<'a> Tree<'a> {
    pub(super) const fn new(root: BorrowedFd<'a>) -> Self {
        Self { root, last: None }
    }

    /// Makes a directory, or gives one another mode. Its owner can always enter and change it.
    pub(super) fn dir(&mut self, path: &Path, mode: u32) -> Result<(), Error> {
        let name = name(path);
        let parent = self.parent(path)?;
        let dir = enter(parent, name, path)?;
        let mode = Mode::from_raw_mode(mode & 0o1777 | 0o700);
        fchmod(&dir, mode).map_err(failed("given a mode", path))
    }

    /// Makes a file.
    pub(super) fn file(
        &mut self,
        path: &Path,
        content: &mut dyn Read,
        size: u64,
        mode: u32,
        modified: i64,
    ) -> Result<(), Error> {
        let parent = self.parent(path)?;
        clear(parent, path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW;
        let made = openat(parent, name(path), flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
        let mut file = File::from(made.map_err(failed("made", path))?);
        let copied = copy(content, &mut file, path)?;
        if copied != size {
            return Err(Error::malformed("archive", "it ends within a file"));
        }
        fchmod(&file, Mode::from_raw_mode(mode & 0o777 | 0o400))
            .map_err(failed("given a mode", path))?;
        let time = Timespec { tv_sec: modified, tv_nsec: 0 };
        futimens(&file, &Timestamps { last_access: time, last_modification: time })
            .map_err(failed("given a time", path))
    }

    /// Makes a symbolic link. It may lead anywhere: nothing here follows it, and in a sandbox it
    /// leads to what is there.
    pub(super) fn symlink(&mut self, path: &Path, target: &[u8]) -> Result<(), Error> {
        if target.is_empty() || target.len() > PATH_BYTES_MAX || target.contains(&0) {
            return Err(refused(path, "is a link that leads to no possible name"));
        }
        let parent = self.parent(path)?;
        clear(parent, path)?;
        symlinkat(OsStr::from_bytes(target), parent, name(path)).map_err(failed("made", path))
    }

    /// Makes another name of a file that this layer has.
    pub(super) fn hard_link(&mut self, path: &Path, target: &Path) -> Result<(), Error> {
        if path == target {
            return Err(refused(path, "is a link to itself"));
        }
        let above = target.parent().unwrap_or_else(|| Path::new(""));
        let from = walk(self.root, above).map_err(|error| match error {
            Errno::LOOP | Errno::NOTDIR | Errno::NOENT | Errno::XDEV => {
                refused(path, "links to what this layer does not have")
            }
            error => failed("opened", above)(error),
        })?;
        match look(from.as_fd(), target)? {
            Some(found) if kind(&found) == FileType::RegularFile => {}
            _ => return Err(refused(path, "links to what is no file of this layer")),
        }
        let parent = self.parent(path)?;
        clear(parent, path)?;
        linkat(&from, name(target), parent, name(path), AtFlags::empty())
            .map_err(failed("made", path))
    }

    /// Hides what lower layers have under a name, unless this layer has something there.
    pub(super) fn whiteout(&mut self, parent: &Path, name: &OsStr) -> Result<(), Error> {
        let path = parent.join(name);
        let parent = self.parent(&path)?;
        match look(parent, &path)?.map(|found| kind(&found)) {
            Some(FileType::Directory) => hide(&enter(parent, name, &path)?, &path),
            Some(_) => Ok(()),
            None => mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)
                .map_err(failed("marked as removed", &path)),
        }
    }

    /// Hides what lower layers have in a directory.
    pub(super) fn opaque(&mut self, dir: &Path) -> Result<(), Error> {
        // The name of something in it, so that it is made if it is not there.
        let inside = self.parent(&dir.join("any"))?;
        let dir_file = openat(inside, ".", DIR, Mode::empty()).map_err(failed("opened", dir))?;
        hide(&dir_file, dir)
    }

    /// Returns the directory that something is in, and makes it where it does not exist.
    fn parent(&mut self, path: &Path) -> Result<BorrowedFd<'_>, Error> {
        let above = path.parent().unwrap_or_else(|| Path::new(""));
        if self.last.as_ref().is_none_or(|(last, _)| last != above) {
            let dir = match walk(self.root, above) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => self.make(above)?,
                other => other.map_err(failed("opened", above))?,
            };
            self.last = Some((above.to_path_buf(), dir));
        }
        let (_, dir) = self.last.as_ref().expect("it is set above");
        Ok(dir.as_fd())
    }

    fn make(&self, path: &Path) -> Result<OwnedFd, Error> {
        let mut at = openat(self.root, ".", DIR, Mode::empty()).map_err(failed("opened", path))?;
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            if let Some(found) = look(at.as_fd(), Path::new(name))? {
                let why = match kind(&found) {
                    FileType::Directory | FileType::CharacterDevice => None,
                    FileType::Symlink => Some("goes through a link"),
                    _ => Some("is in a file"),
                };
                if let Some(why) = why {
                    return Err(refused(path, why));
                }
            }
            at = enter(at.as_fd(), name, path)?;
        }
        Ok(at)
    }
}

/// Opens a directory, and makes it if it is not there, also in place of something else. If it was
/// marked as removed, it hides what lower layers have in it.
fn enter(parent: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<OwnedFd, Error> {
    let found = look(parent, Path::new(name))?.map(|found| kind(&found));
    if found != Some(FileType::Directory) {
        clear(parent, Path::new(name))?;
        mkdirat(parent, name, DIR_MODE).map_err(failed("made", path))?;
    }
    let dir = openat(parent, name, DIR, Mode::empty()).map_err(failed("opened", path))?;
    if found.is_none() || found == Some(FileType::CharacterDevice) {
        fchmod(&dir, DIR_MODE).map_err(failed("given a mode", path))?;
    }
    if found == Some(FileType::CharacterDevice) {
        hide(&dir, path)?;
    }
    Ok(dir)
}

fn hide(dir: &OwnedFd, path: &Path) -> Result<(), Error> {
    fsetxattr(dir, OPAQUE, b"y", XattrFlags::empty())
        .map_err(failed("marked as hiding what is below", path))
}

/// Removes what stands where something is to be made, unless that is a directory.
fn clear(parent: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
    match unlinkat(parent, name(path), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Err(refused(path, "would replace a directory of the same layer")),
        Err(error) => Err(failed("replaced", path)(error)),
    }
}

fn walk(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    openat2(root, path, DIR, Mode::empty(), WALK)
}

/// Looks at what a name stands for, without following it.
fn look(parent: BorrowedFd<'_>, path: &Path) -> Result<Option<Stat>, Error> {
    match statat(parent, name(path), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(failed("looked at", path)(error)),
    }
}

fn kind(found: &Stat) -> FileType {
    FileType::from_raw_mode(found.st_mode)
}

fn name(path: &Path) -> &OsStr {
    path.file_name().expect("names of entries are read before")
}

fn refused(path: &Path, why: &str) -> Error {
    super::names::refused(path.as_os_str().as_bytes(), why)
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(Errno) -> Error {
    let path = path.to_path_buf();
    move |error| Error::Io { doing, path, source: error.into() }
}

/// Copies a content, and tells errors of the archive from those of the disk.
fn copy(content: &mut dyn Read, file: &mut File, path: &Path) -> Result<u64, Error> {
    let mut buffer = vec![0; 64 * 1024];
    let mut copied = 0;
    loop {
        let got = match content.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other.map_err(Error::reading("archive"))?,
        };
        io::Write::write_all(file, &buffer[..got]).map_err(Error::io("written", path))?;
        copied += got as u64;
    }
}
