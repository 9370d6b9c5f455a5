//! Files by descriptor and single names, so that no path is ever resolved through a link.

use crate::tree::{Meta, Sig, Time};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

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
