//! The real disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FlockOperation, OFlags};

use super::disk::{Disk, DiskFile, Held, LockError};

/// How much is zeroed at once when a file is preallocated, in bytes.
const ZERO_BYTES: usize = 1024 * 1024;
/// How much of a lock file is read, in bytes.
const HOLDER_BYTES_MAX: u64 = 512;

/// The file system of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

impl Disk for OsDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(_) if dir.is_dir() => Ok(()),
            made => made,
        }
    }

    fn lock(&self, path: &Path, holder: &str) -> Result<Box<dyn Held>, LockError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                file.take(HOLDER_BYTES_MAX).read_to_string(&mut holder)?;
                return Err(LockError::Held { holder });
            }
            Err(errno) => return Err(LockError::Io(errno.into())),
        }
        file.set_len(0)?;
        file.write_all(holder.as_bytes())?;
        Ok(Box::new(OsLock { _file: file }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.extend(entry.file_name().into_string());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OsFile::buffered(File::open(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        Ok(Arc::new(OsFile::buffered(options.open(path)?)))
    }

    fn create_large(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let buffered = options.open(path)?;
        let direct = open_direct(path, OFlags::DIRECT)?;
        Ok(Arc::new(LargeFile(OsFile { buffered, direct, refused: AtomicBool::new(false) })))
    }

    fn preallocate(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        // Real zeros, written once: extents that are only reserved, or a growing file, cost a
        // journal commit of the file system with every durable write.
        let file = self.create(path)?;
        let zeros = vec![0; ZERO_BYTES];
        let fill = || {
            let mut offset = 0;
            while offset < bytes {
                let rest = usize::try_from(bytes - offset).unwrap_or(usize::MAX);
                let piece = &zeros[..rest.min(ZERO_BYTES)];
                file.write_at(piece, offset)?;
                offset += piece.len() as u64;
            }
            file.sync()?;
            self.open_durable(path)
        };
        let filled = fill();
        if filled.is_err() {
            fs::remove_file(path)?;
        }
        filled
    }

    fn open_durable(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let buffered = OpenOptions::new().read(true).write(true).open(path)?;
        let direct = open_direct(path, OFlags::DIRECT | OFlags::DSYNC)?;
        Ok(Arc::new(OsFile { buffered, direct, refused: AtomicBool::new(false) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

/// Opens a file to write past the page cache; `None` where the file system refuses that.
fn open_direct(path: &Path, flags: OFlags) -> io::Result<Option<File>> {
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    match OpenOptions::new().write(true).custom_flags(flags).open(path) {
        Ok(direct) => Ok(Some(direct)),
        Err(error) if refuses_direct(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

#[derive(Debug)]
struct OsLock {
    _file: File,
}

impl Held for OsLock {}

#[derive(Debug)]
struct OsFile {
    buffered: File,
    /// The same file, opened to write past the page cache, durably; `None` where that is refused.
    direct: Option<File>,
    /// The file system took the flags when the file was opened but refuses such writes.
    refused: AtomicBool,
}

impl OsFile {
    const fn buffered(buffered: File) -> Self {
        Self { buffered, direct: None, refused: AtomicBool::new(false) }
    }

    /// Writes past the page cache. Returns whether the file system took it.
    fn write_direct(&self, data: &[u8], offset: u64) -> io::Result<bool> {
        let Some(direct) = self.direct.as_ref().filter(|_| !self.refused.load(Ordering::Relaxed))
        else {
            return Ok(false);
        };
        match direct.write_all_at(data, offset) {
            Err(error) if refuses_direct(&error) => {
                self.refused.store(true, Ordering::Relaxed);
                Ok(false)
            }
            written => written.map(|()| true),
        }
    }
}

/// A file whose content is too large, and too soon too old, to fill the page cache with.
#[derive(Debug)]
struct LargeFile(OsFile);

impl DiskFile for LargeFile {
    fn bytes(&self) -> io::Result<u64> {
        self.0.bytes()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        if self.0.write_direct(data, offset)? { Ok(()) } else { self.0.write_at(data, offset) }
    }

    fn write_durable(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.write_at(data, offset)?;
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

impl DiskFile for OsFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.buffered.metadata()?.len())
    }

    fn prefetch(&self, offset: u64, bytes: u64) {
        // Where it is refused, the reads are slower.
        let bytes = std::num::NonZeroU64::new(bytes);
        let advice = rustix::fs::Advice::WillNeed;
        let _refused = rustix::fs::fadvise(&self.buffered, offset, bytes, advice);
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.buffered.read_exact_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.buffered.write_all_at(data, offset)
    }

    fn write_durable(&self, data: &[u8], offset: u64) -> io::Result<()> {
        if self.write_direct(data, offset)? {
            return Ok(());
        }
        self.buffered.write_all_at(data, offset)?;
        self.buffered.sync_data()
    }

    fn sync(&self) -> io::Result<()> {
        self.buffered.sync_data()
    }
}

/// Whether an error says that the file system has no direct writes; the write did not begin.
fn refuses_direct(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput || error.kind() == io::ErrorKind::Unsupported
}
