//! Locks of the kernel on files and directories.

use crate::error::Error;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat, syncfs};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::path::Path;

/// The lock of a store. Held for moments only: nothing is unpacked meanwhile.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for it.
    pub(super) fn wait(path: &Path) -> Result<Self, Error> {
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(false).open(path);
        let file = file.map_err(Error::io("opened", path))?;
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(Error::io("locked", path)(error.into())),
                Ok(()) => return Ok(Self { _file: file }),
            }
        }
    }
}

/// A directory that somebody uses.
#[derive(Debug)]
pub(super) struct Held(File);

impl Held {
    /// Holds a directory. `None` if it is not there.
    pub(super) fn shared(path: &Path) -> Result<Option<Self>, Error> {
        Self::by(path, FlockOperation::NonBlockingLockShared)
    }

    /// Holds a directory if nobody else does.
    pub(super) fn alone(path: &Path) -> Result<Option<Self>, Error> {
        Self::by(path, FlockOperation::NonBlockingLockExclusive)
    }

    fn by(path: &Path, operation: FlockOperation) -> Result<Option<Self>, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let failed = |error: Errno| Error::io("opened", path)(error.into());
        let dir = match openat(CWD, path, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            other => File::from(other.map_err(failed)?),
        };
        match flock(&dir, operation) {
            Ok(()) => Ok(Some(Self(dir))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(Error::io("locked", path)(error.into())),
        }
    }

    /// Makes everything below durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(syncfs(&self.0)?)
    }

    pub(super) fn into_file(self) -> File {
        self.0
    }
}
