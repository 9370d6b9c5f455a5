//! All layers of an image in one tree, for kernels that do not lay them over each other.
//!
//! Files are hard links to those of the layers, which nothing ever writes to.

use crate::error::Error;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, fchmod, fgetxattr, fstat, linkat, mkdirat, openat,
    readlinkat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use std::ffi::CStr;
use std::path::Path;

const DIR: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Puts a layer over what the layers below it have left in a directory.
pub(crate) fn put(layer: &Path, over: &Path) -> Result<(), Error> {
    let open = |path: &Path| {
        let opened = openat(rustix::fs::CWD, path, DIR, Mode::empty());
        opened.map_err(|error| Error::io("opened", path)(error.into()))
    };
    merge(&open(layer)?, &open(over)?)
        .map_err(|error| Error::io("put together", over)(error.into()))
}

fn merge(from: &OwnedFd, to: &OwnedFd) -> rustix::io::Result<()> {
    fchmod(to, Mode::from_raw_mode(fstat(from)?.st_mode))?;
    if is_opaque(from) {
        empty(to)?;
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        one(from.as_fd(), to.as_fd(), name)?;
    }
    Ok(())
}

fn one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    let kind = kind(from, name)?.ok_or(Errno::NOENT)?;
    let below = self::kind(to, name)?;
    if below.is_some_and(|below| below != FileType::Directory || kind != FileType::Directory) {
        remove(to, name)?;
    }
    match kind {
        FileType::Directory => {
            if below != Some(FileType::Directory) {
                mkdirat(to, name, Mode::RWXU)?;
            }
            let inner = openat(from, name, DIR, Mode::empty())?;
            merge(&inner, &openat(to, name, DIR, Mode::empty())?)
        }
        FileType::CharacterDevice => Ok(()),
        FileType::Symlink => symlinkat(readlinkat(from, name, Vec::new())?, to, name),
        _ => linkat(from, name, to, name, AtFlags::empty()),
    }
}

fn kind(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Option<FileType>> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(FileType::from_raw_mode(found.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_opaque(dir: &OwnedFd) -> bool {
    let mut value = [0_u8; 1];
    fgetxattr(dir, crate::unpack::OPAQUE, &mut value[..]).is_ok_and(|length| length == 1)
        && value == *b"y"
}

fn empty(dir: &OwnedFd) -> rustix::io::Result<()> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            remove(dir.as_fd(), name)?;
        }
    }
    Ok(())
}

fn remove(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {
            empty(&openat(parent, name, DIR, Mode::empty())?)?;
            unlinkat(parent, name, AtFlags::REMOVEDIR)
        }
        other => other,
    }
}
