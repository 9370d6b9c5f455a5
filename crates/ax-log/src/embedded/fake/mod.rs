//! A disk in memory that loses, tears and refuses what a real one may, under a seed.

mod tree;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::{Disk, DiskFile, Held, LockError};
use super::format::usize_of;
use tree::Tree;

/// What a crash keeps or loses as a whole, in bytes.
pub const SECTOR_BYTES: usize = 512;

/// A disk in memory. Clones are the same disk.
///
/// After [`FakeDisk::crash`] only what was durable is there, and of what was not a random part.
#[derive(Clone, Debug)]
pub struct FakeDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    random: u64,
    tree: Tree,
    held: BTreeSet<PathBuf>,
    faults: Faults,
    operations: u64,
    dead: bool,
}

#[derive(Clone, Debug, Default)]
struct Faults {
    crash_at: Option<u64>,
    fail_writes: bool,
    fail_syncs: bool,
    /// How many more syncs of directories are made; `None` if they do not fail.
    dir_syncs_left: Option<u64>,
    /// How many more writes and syncs of files are made, but durable writes; `None` if they do not
    /// fail.
    file_changes_left: Option<u64>,
    read_only: bool,
    capacity: Option<u64>,
}

type File = Arc<Mutex<Content>>;

/// The splitmix64 generator: any seed will do, and the same seed gives the same numbers.
pub(super) const fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// The sectors of `now` that are not durable.
    unsynced: BTreeSet<usize>,
}

impl State {
    fn random(&mut self, below: u64) -> u64 {
        splitmix(&mut self.random) % below
    }

    /// Counts an operation that changes something. Returns whether the power fails in it.
    fn change(&mut self) -> io::Result<bool> {
        self.alive()?;
        if self.faults.read_only {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
        self.operations += 1;
        self.dead = self.faults.crash_at.is_some_and(|at| self.operations >= at);
        Ok(self.dead)
    }

    fn alive(&self) -> io::Result<()> {
        if self.dead { Err(io::Error::other("the power failed")) } else { Ok(()) }
    }

    fn used(&self) -> u64 {
        self.tree.files().map(|file| content(file).now.len() as u64).sum()
    }

    /// Fails if `more` bytes do not fit on the disk.
    fn room(&self, more: u64) -> io::Result<()> {
        match self.faults.capacity {
            Some(capacity) if self.used() + more > capacity => {
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
            _ => Ok(()),
        }
    }
}

/// Takes one from how many are left. Returns whether there was none.
fn runs_out(left: &mut Option<u64>) -> bool {
    let out = *left == Some(0);
    *left = left.map(|count| count.saturating_sub(1));
    out
}

fn content(file: &File) -> MutexGuard<'_, Content> {
    file.lock().expect("no holder of the lock panics")
}

impl Content {
    fn sectors(offset: u64, bytes: usize) -> std::ops::Range<usize> {
        let from = usize_of(offset);
        from / SECTOR_BYTES..(from + bytes).div_ceil(SECTOR_BYTES)
    }

    fn write(&mut self, data: &[u8], offset: u64) {
        let from = usize_of(offset);
        if self.now.len() < from + data.len() {
            self.now.resize(from + data.len(), 0);
        }
        self.now[from..from + data.len()].copy_from_slice(data);
        self.unsynced.extend(Self::sectors(offset, data.len()));
    }

    /// Makes one sector durable.
    fn settle(&mut self, sector: usize) {
        let from = sector * SECTOR_BYTES;
        let to = (from + SECTOR_BYTES).min(self.now.len());
        if from < to {
            if self.durable.len() < to {
                self.durable.resize(to, 0);
            }
            self.durable[from..to].copy_from_slice(&self.now[from..to]);
        }
    }

    fn sync(&mut self) {
        for sector in std::mem::take(&mut self.unsynced) {
            self.settle(sector);
        }
        self.durable.resize(self.now.len(), 0);
    }
}

/// Returns what a file holds after a loss of power.
fn revive(file: &File, draw: &mut dyn FnMut() -> bool) -> File {
    let mut old = content(file);
    for sector in std::mem::take(&mut old.unsynced) {
        if draw() {
            old.settle(sector);
        }
    }
    let (now, durable) = (old.durable.clone(), old.durable.clone());
    Arc::new(Mutex::new(Content { now, durable, unsynced: BTreeSet::new() }))
}

impl FakeDisk {
    /// Makes an empty disk.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: seed,
            tree: Tree::new(),
            held: BTreeSet::new(),
            faults: Faults::default(),
            operations: 0,
            dead: false,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder of the lock panics")
    }

    /// Cuts the power. Returns the disk as it is when the power comes back; this one is dead.
    #[must_use]
    pub fn crash(&self) -> Self {
        let mut state = self.state();
        state.dead = true;
        let mut random = state.random;
        let mut draw = || splitmix(&mut random).is_multiple_of(2);
        let survivors = state.tree.survivors(&mut draw, revive);
        state.random = random;
        let seed = state.random(u64::MAX);
        let after = Self::new(seed);
        let mut fresh = after.state();
        fresh.tree = survivors;
        fresh.faults.capacity = state.faults.capacity;
        drop(fresh);
        after
    }

    /// Cuts the power in the middle of the change that comes after `count` more of them.
    pub fn crash_after(&self, count: u64) {
        let mut state = self.state();
        state.faults.crash_at = Some(state.operations + count + 1);
    }

    /// Whether the power was cut.
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// Makes durable writes fail, having written some of their sectors, or no longer fail.
    pub fn fail_writes(&self, fail: bool) {
        self.state().faults.fail_writes = fail;
    }

    /// Makes syncs fail, having made some sectors durable, or no longer fail.
    pub fn fail_syncs(&self, fail: bool) {
        self.state().faults.fail_syncs = fail;
    }

    /// Makes syncs of directories fail after `count` more, or no longer fail. What was done to
    /// names shows, but is not durable.
    pub fn fail_dir_syncs_after(&self, count: Option<u64>) {
        self.state().faults.dir_syncs_left = count;
    }

    /// Makes writes and syncs of files fail after `count` more, or no longer fail; not those of
    /// segments, which are durable writes.
    pub fn fail_file_changes_after(&self, count: Option<u64>) {
        self.state().faults.file_changes_left = count;
    }

    /// Makes every change fail for want of permission, or no longer fail.
    pub fn set_read_only(&self, read_only: bool) {
        self.state().faults.read_only = read_only;
    }

    /// Limits what the files may take together, in bytes.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().faults.capacity = bytes;
    }

    /// Returns how much the files take together, in bytes.
    pub fn used_bytes(&self) -> u64 {
        self.state().used()
    }

    /// Returns how many changes were made since the disk was made or came back.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Returns the content of a file.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        self.state().tree.file(path).map(|file| content(&file).now.clone())
    }

    /// Replaces the content of a file behind the log's back, durably. Makes it if there is none.
    pub fn set_content(&self, path: &Path, bytes: &[u8]) {
        let (now, durable) = (bytes.to_vec(), bytes.to_vec());
        let file = Arc::new(Mutex::new(Content { now, durable, unsynced: BTreeSet::new() }));
        let put = self.state().tree.put_durably(path, &file);
        put.expect("the path is that of a file in a directory");
    }

    fn opened(&self, file: &File) -> Arc<dyn DiskFile> {
        Arc::new(FakeFile { disk: self.clone(), file: Arc::clone(file) })
    }

    fn find(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state();
        state.alive()?;
        let found = state.tree.file(path);
        drop(state);
        found.map(|file| self.opened(&file)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for FakeDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.alive()?;
        if state.tree.is_dir(dir) {
            return Ok(());
        }
        let dies = state.change()?;
        state.tree.make_dir(dir)?;
        if dies { Err(io::Error::other("the power failed")) } else { Ok(()) }
    }

    fn lock(&self, path: &Path, holder: &str) -> Result<Box<dyn Held>, LockError> {
        let mut state = self.state();
        state.alive()?;
        if !state.held.insert(path.to_owned()) {
            return Err(LockError::Held { holder: holder.to_owned() });
        }
        Ok(Box::new(FakeLock { disk: self.clone(), path: path.to_owned() }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        state.alive()?;
        state.tree.list(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.find(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        if state.change()? {
            return Err(io::Error::other("the power failed"));
        }
        let file = File::default();
        state.tree.put(path, &file)?;
        drop(state);
        Ok(self.opened(&file))
    }

    fn preallocate(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        if state.change()? {
            return Err(io::Error::other("the power failed"));
        }
        state.room(bytes)?;
        if state.faults.fail_writes {
            return Err(io::Error::other("the write failed, as it was told to"));
        }
        let zeros = vec![0; usize_of(bytes)];
        let new = Content { now: zeros.clone(), durable: zeros, unsynced: BTreeSet::new() };
        let file = Arc::new(Mutex::new(new));
        state.tree.put(path, &file)?;
        drop(state);
        Ok(self.opened(&file))
    }

    fn open_durable(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.find(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let dies = state.change()?;
        state.tree.rename(from, to)?;
        if dies { Err(io::Error::other("the power failed")) } else { Ok(()) }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let dies = state.change()?;
        state.tree.remove(path)?;
        if dies { Err(io::Error::other("the power failed")) } else { Ok(()) }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.change()? {
            return Err(io::Error::other("the power failed"));
        }
        if state.faults.fail_syncs {
            return Err(io::Error::other("the sync failed, as it was told to"));
        }
        if runs_out(&mut state.faults.dir_syncs_left) {
            return Err(io::Error::other("the sync of a directory failed, as it was told to"));
        }
        state.tree.sync(dir)
    }
}

#[derive(Debug)]
struct FakeLock {
    disk: FakeDisk,
    path: PathBuf,
}

impl Held for FakeLock {}

impl Drop for FakeLock {
    fn drop(&mut self) {
        self.disk.state().held.remove(&self.path);
    }
}

#[derive(Debug)]
struct FakeFile {
    disk: FakeDisk,
    file: File,
}

impl FakeFile {
    /// Makes some of the sectors durable, as a write that is cut short does.
    fn tear(&self, state: &mut State, sectors: impl Iterator<Item = usize>) {
        let mut file = content(&self.file);
        for sector in sectors {
            if state.random(2) == 0 {
                file.settle(sector);
            }
        }
    }
}

impl DiskFile for FakeFile {
    fn bytes(&self) -> io::Result<u64> {
        self.disk.state().alive()?;
        Ok(content(&self.file).now.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.state().alive()?;
        let file = content(&self.file);
        let from = usize_of(offset);
        let found = file.now.get(from..from + buffer.len());
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let dies = state.change()?;
        let grows =
            (offset + data.len() as u64).saturating_sub(content(&self.file).now.len() as u64);
        state.room(grows)?;
        if runs_out(&mut state.faults.file_changes_left) {
            return Err(io::Error::other("the write failed, as it was told to"));
        }
        content(&self.file).write(data, offset);
        if dies { Err(io::Error::other("the power failed")) } else { Ok(()) }
    }

    fn write_durable(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let dies = state.change()?;
        let sectors = Content::sectors(offset, data.len());
        content(&self.file).write(data, offset);
        if dies || state.faults.fail_writes {
            self.tear(&mut state, sectors);
            return Err(io::Error::other("the write failed"));
        }
        let mut file = content(&self.file);
        for sector in sectors {
            file.unsynced.remove(&sector);
            file.settle(sector);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let dies = state.change()?;
        if dies || state.faults.fail_syncs || runs_out(&mut state.faults.file_changes_left) {
            let sectors = content(&self.file).unsynced.clone();
            self.tear(&mut state, sectors.into_iter());
            return Err(io::Error::other("the sync failed"));
        }
        content(&self.file).sync();
        Ok(())
    }
}
