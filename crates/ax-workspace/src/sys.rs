//! Files by descriptor and single names, so that no path is ever resolved through a link.

use crate::tree::{Meta, Sig, Time};
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

/// How many levels of directories are open at once while they are removed.
const OPEN_LEVELS_MAX: u32 = 32;
/// How many names are read at once of a directory that is emptied.
const BATCH: usize = 4096;
/// How often a directory is emptied in which somebody makes new files all the time.
const BATCHES_MAX: u32 = 1 << 20;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// A pipe or device that was put in the place of a file must not keep us.
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);
const NEW: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens the workspace itself.
pub(crate) fn open_root(dir: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(dir, DIRECTORY, Mode::empty())
}

pub(crate) fn open_dir(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, name, DIRECTORY, Mode::empty())
}

pub(crate) fn open_file(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, name, FILE, Mode::empty())
}

/// Makes a file that only its owner can open so far.
pub(crate) fn create_file(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, name, NEW, Mode::RUSR | Mode::WUSR)
}

pub(crate) fn stat(dir: impl AsFd, name: &[u8]) -> Result<Stat, Errno> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

pub(crate) fn target(dir: impl AsFd, name: &[u8]) -> Result<CString, Errno> {
    rustix::fs::readlinkat(dir, name, Vec::new())
}

/// Returns the names in a directory in the order of their bytes; `None` if there are more than
/// `max`.
pub(crate) fn names(dir: BorrowedFd<'_>, max: u64) -> Result<Option<Vec<Box<[u8]>>>, Errno> {
    let mut names: Vec<Box<[u8]>> = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        if names.len() as u64 >= max {
            return Ok(None);
        }
        names.push(name.into());
    }
    names.sort_unstable();
    Ok(Some(names))
}

pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

pub(crate) fn meta(stat: &Stat) -> Meta {
    let mode = u16::try_from(stat.st_mode & 0o777).unwrap_or(0o600);
    Meta { mode, mtime: mtime(stat) }
}

pub(crate) fn mtime(stat: &Stat) -> Time {
    Time { seconds: stat.st_mtime, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) }
}

pub(crate) fn ctime(stat: &Stat) -> Time {
    Time { seconds: stat.st_ctime, nanos: u32::try_from(stat.st_ctime_nsec).unwrap_or(0) }
}

pub(crate) fn bytes(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

pub(crate) fn sig(stat: &Stat) -> Sig {
    let (bytes, mtime, ctime) = (bytes(stat), mtime(stat), ctime(stat));
    Sig { inode: stat.st_ino, bytes, mtime, ctime }
}

pub(crate) fn times(meta: Meta) -> Timestamps {
    let tv_sec = meta.mtime.seconds;
    let time = Timespec { tv_sec, tv_nsec: i64::from(meta.mtime.nanos) };
    Timestamps { last_access: time, last_modification: time }
}

pub(crate) fn mode(meta: Meta) -> Mode {
    Mode::from_bits_truncate(u32::from(meta.mode))
}

/// Shows a path whose bytes may be no text.
pub(crate) fn shown(path: &[u8]) -> String {
    if path.is_empty() {
        return ".".to_owned();
    }
    path.escape_ascii().to_string()
}

/// Whom files are given to: to whom the workspace belongs, if that is somebody else.
pub(crate) fn owner(stat: &Stat) -> Option<(Uid, Gid)> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let us = rustix::process::geteuid();
    (us.is_root() && uid != us).then_some((uid, gid))
}

/// Removes what has a name, with everything in it. Returns how many files, links and directories
/// that were.
///
/// Whoever made it may have made it as deep as they liked: few directories are open at once, and
/// what is deeper is moved up first.
pub(crate) fn remove_all(dir: BorrowedFd<'_>, name: &[u8]) -> Result<u64, Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) => return Ok(1),
        Err(Errno::NOENT) => return Ok(0),
        Err(errno @ (Errno::ISDIR | Errno::PERM)) => {
            if kind(&stat(dir, name)?) != FileType::Directory {
                return Err(errno);
            }
        }
        Err(errno) => return Err(errno),
    }
    let top = open_ours(dir, name)?;
    let mut removal = Removal { top: &top, moved: 0, removed: 0, batches: 0 };
    removal.empty(&top, 0)?;
    let removed = removal.removed + 1;
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?;
    Ok(removed)
}

/// A directory that is being emptied.
struct Removal<'a> {
    top: &'a OwnedFd,
    /// How many directories were moved up.
    moved: u64,
    removed: u64,
    batches: u32,
}

impl Removal<'_> {
    fn empty(&mut self, dir: &OwnedFd, depth: u32) -> Result<(), Errno> {
        loop {
            let batch = some_names(dir.as_fd())?;
            if batch.is_empty() {
                return Ok(());
            }
            self.batches += 1;
            if self.batches > BATCHES_MAX {
                return Err(Errno::NOTEMPTY);
            }
            for name in batch {
                self.entry(dir, &name, depth)?;
            }
        }
    }

    fn entry(&mut self, dir: &OwnedFd, name: &[u8], depth: u32) -> Result<(), Errno> {
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) => {
                self.removed += 1;
                return Ok(());
            }
            Err(Errno::NOENT) => return Ok(()),
            Err(errno @ (Errno::ISDIR | Errno::PERM)) => {
                if kind(&stat(dir, name)?) != FileType::Directory {
                    return Err(errno);
                }
            }
            Err(errno) => return Err(errno),
        }
        let inner = open_ours(dir.as_fd(), name)?;
        if depth >= OPEN_LEVELS_MAX {
            return self.move_up(dir, name);
        }
        self.empty(&inner, depth + 1)?;
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOENT) => Ok(()),
            done => {
                self.removed += u64::from(done.is_ok());
                done
            }
        }
    }

    /// Moves a directory to where it is no longer deep.
    fn move_up(&mut self, dir: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        loop {
            self.moved += 1;
            let free = format!(".ax-removed.{}", self.moved);
            match rustix::fs::renameat(dir, name, self.top, &*free) {
                // Somebody has made a file or directory of this name.
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR)
                    if self.moved < u64::from(BATCHES_MAX) => {}
                done => return done,
            }
        }
    }
}

fn some_names(dir: BorrowedFd<'_>) -> Result<Vec<Box<[u8]>>, Errno> {
    let mut names: Vec<Box<[u8]>> = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.into());
        }
        if names.len() >= BATCH {
            break;
        }
    }
    Ok(names)
}

/// Opens a directory, also one that was closed against its own owner.
fn open_ours(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let opened = match open_dir(dir, name) {
        Err(Errno::ACCESS) => {
            make_ours(dir, name)?;
            open_dir(dir, name)?
        }
        opened => opened?,
    };
    let mode = rustix::fs::fstat(&opened)?.st_mode;
    if mode & 0o700 != 0o700 {
        rustix::fs::fchmod(&opened, Mode::RWXU)?;
    }
    Ok(opened)
}

/// Takes the right to look into a directory that was closed against its own owner.
pub(crate) fn make_ours(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    // The descriptor cannot be changed by itself; its name under /proc can, and is no other file.
    rustix::fs::chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), Mode::RWXU)
}
