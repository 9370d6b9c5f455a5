//! What the log asks of a disk, so that tests and the simulator can give it another one.

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

use memmap2::{Advice, MmapMut};

/// The unit of durable writes, in bytes: they begin and end at a multiple of it.
pub const PAGE_BYTES: usize = 4096;
/// A large page of memory, in bytes; on most machines it has this size.
const HUGE_PAGE_BYTES: usize = 2 * 1024 * 1024;

/// A file system with one data directory's worth of files.
///
/// The calls block. Only what is said to be durable survives the loss of power: a file's content
/// after [`DiskFile::sync`] or [`DiskFile::write_durable`], a name after [`Disk::sync_dir`].
pub trait Disk: Debug + Send + Sync + 'static {
    /// Makes a directory for its owner, in one that is there, unless it is there itself.
    ///
    /// # Errors
    ///
    /// Returns what the system said; `NotFound` if the one above it is not there.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the lock file of a data directory and writes into it who holds it.
    ///
    /// # Errors
    ///
    /// Returns [`LockError::Held`] with what the holder wrote, or what the system said.
    fn lock(&self, path: &Path, holder: &str) -> Result<Box<dyn Held>, LockError>;

    /// Returns the names of the files in a directory, sorted.
    ///
    /// # Errors
    ///
    /// Returns what the system said.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Opens a file to read it.
    ///
    /// # Errors
    ///
    /// Returns what the system said.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Makes an empty file, or empties the one that is there.
    ///
    /// # Errors
    ///
    /// Returns what the system said.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Makes an empty file, or empties the one that is there, to write whole pages into it from
    /// front to back. The data of its writes begins in memory at a multiple of [`PAGE_BYTES`].
    ///
    /// # Errors
    ///
    /// Returns what the system said.
    fn create_large(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.create(path)
    }

    /// Makes a file of `bytes` zeros that are durable, ready for durable writes. On an error there
    /// is no such file.
    ///
    /// # Errors
    ///
    /// Returns what the system said.
    fn preallocate(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a preallocated file for durable writes.
    ///
    /// # Errors
    ///
    /// Returns what the system said.
    fn open_durable(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name, replacing what had it. Atomic.
    ///
    /// # Errors
    ///
    /// Returns what the system said.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Whoever has it open goes on reading it.
    ///
    /// # Errors
    ///
    /// Returns what the system said.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    ///
    /// Returns what the system said.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// Makes a directory and those above it, unless they are there. Their names are durable on return.
///
/// Each name is durable before there is anything below it. So where another process has ended in
/// the middle of this, only the name of the lowest directory that is there may not be durable, and
/// that one is made durable also if it is there.
///
/// # Errors
///
/// Returns what the system said.
pub fn make_dir(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let Some(above) = dir.parent() else { return Ok(()) };
    let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_dir(disk, above)?;
            disk.create_dir(dir)?;
        }
        there => unless_forbidden(there.map(drop))?,
    }
    unless_forbidden(disk.sync_dir(above))
}

/// A service may be given a directory in one that it may not read; then others have made it.
fn unless_forbidden(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        done => done,
    }
}

/// An open file.
pub trait DiskFile: Debug + Send + Sync + 'static {
    /// Returns the length of the file, in bytes.
    ///
    /// # Errors
    ///
    /// Returns what the system said.
    fn bytes(&self) -> io::Result<u64>;

    /// Fills a buffer from a place in the file.
    ///
    /// # Errors
    ///
    /// Returns what the system said; `UnexpectedEof` if the file ends before the buffer is full.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Says that a part of the file will be read soon, so that it may be fetched meanwhile.
    fn prefetch(&self, _offset: u64, _bytes: u64) {}

    /// Writes, not durably.
    ///
    /// # Errors
    ///
    /// Returns what the system said.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;

    /// Writes whole pages into a preallocated file; they are durable on return. `data` begins in
    /// memory at a multiple of [`PAGE_BYTES`].
    ///
    /// # Errors
    ///
    /// Returns what the system said. What is in these pages is then unknown.
    fn write_durable(&self, data: &[u8], offset: u64) -> io::Result<()>;

    /// Makes everything written to the file durable.
    ///
    /// # Errors
    ///
    /// Returns what the system said. What is durable is then unknown.
    fn sync(&self) -> io::Result<()>;
}

/// A lock that is held until it is dropped.
pub trait Held: Debug + Send + Sync {}

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Someone else has it.
    #[error("it is held by {holder}")]
    Held {
        /// What the holder wrote into it.
        holder: String,
    },
    /// The lock file could not be used.
    #[error("the lock file could not be used")]
    Io(#[from] io::Error),
}

/// A buffer whose content begins in memory at a multiple of [`PAGE_BYTES`].
///
/// It lies in large pages where the system has them: of a write past the page cache every page of
/// memory is a piece of its own for the device, and 512 times fewer pieces are written faster.
pub(super) struct PageBuffer {
    bytes: MmapMut,
    start: usize,
    used: usize,
}

impl Debug for PageBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageBuffer").field("used", &self.used).finish_non_exhaustive()
    }
}

impl PageBuffer {
    /// Makes an empty buffer for up to `capacity` bytes. Memory is touched only as it is used.
    pub(super) fn new(capacity: usize) -> Self {
        let bytes = capacity.next_multiple_of(HUGE_PAGE_BYTES) + HUGE_PAGE_BYTES;
        let bytes = MmapMut::map_anon(bytes).expect("there is memory for a buffer");
        // Where there are none, the content is the same.
        drop(bytes.advise(Advice::HugePage));
        let start = bytes.as_ptr().align_offset(HUGE_PAGE_BYTES);
        assert!(start < HUGE_PAGE_BYTES, "an address in bytes can be aligned");
        Self { bytes, start, used: 0 }
    }

    pub(super) const fn used(&self) -> usize {
        self.used
    }

    /// Empties the buffer but for `bytes` at its beginning, which are to be filled in later.
    pub(super) fn reset(&mut self, bytes: usize) {
        self.used = bytes;
    }

    pub(super) fn put(&mut self, data: &[u8]) {
        let at = self.start + self.used;
        self.bytes[at..at + data.len()].copy_from_slice(data);
        self.used += data.len();
    }

    pub(super) fn content_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.used]
    }

    /// Returns the whole pages so far.
    pub(super) fn whole_pages(&self) -> &[u8] {
        let whole = self.used - self.used % PAGE_BYTES;
        &self.bytes[self.start..self.start + whole]
    }

    /// Forgets the whole pages; what is left of the last page moves to the front.
    pub(super) fn drop_whole_pages(&mut self) {
        let (from, rest) =
            (self.start + self.used - self.used % PAGE_BYTES, self.used % PAGE_BYTES);
        self.bytes.copy_within(from..from + rest, self.start);
        self.used = rest;
    }

    /// Fills up the last page with zeros and returns whole pages.
    pub(super) fn pages(&mut self) -> &[u8] {
        let padded = self.used.next_multiple_of(PAGE_BYTES);
        let (from, to) = (self.start + self.used, self.start + padded);
        self.bytes[from..to].fill(0);
        &self.bytes[self.start..to]
    }
}
