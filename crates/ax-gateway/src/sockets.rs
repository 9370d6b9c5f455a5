//! Sockets of gateways: where they are, and that none is left.
//!
//! All sockets of a life of the runtime are below one directory with a short path and for its user
//! only, each in a directory of its own, which a sandbox can be shown. A link in the run directory
//! says where they are, so that a later life finds them:
//!
//! ```text
//! RUN/doors-7f3a90c1  ──link──▶  /run/user/1000/doors-7f3a90c1/0/door
//!                                                              /1/door
//! ```
//!
//! The link is made first and removed last. The directory goes with the last socket below it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the names of directories and links begin with.
const PREFIX: &str = "doors-";
/// The longest path of a socket, in bytes: `sun_path` has 108, and the last is zero.
const PATH_BYTES_MAX: usize = 107;
/// How much of that the name of a directory and of a socket take, in bytes.
const NAMES_BYTES_MAX: usize = 52;
/// What a socket is called in its directory.
const DOOR: &str = "door";

/// The sockets of one life of the runtime. Clones are the same.
#[derive(Clone, Debug)]
pub struct Sockets(Arc<Place>);

#[derive(Debug)]
struct Place {
    /// Where the link is.
    run_dir: PathBuf,
    /// What link and directory are called; no other life's are.
    name: String,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    /// The directory, while there is a socket in it.
    dir: Option<PathBuf>,
    numbers: BTreeSet<u64>,
    next: u64,
}

/// A socket that listens. Dropping it removes its file.
#[derive(Debug)]
pub struct Socket {
    pub(crate) listener: UnixListener,
    pub(crate) file: File,
}

/// The file of a socket, which goes with this.
#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    number: u64,
    place: Arc<Place>,
}

impl File {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Sockets {
    /// Uses this directory for the link. Nothing is made until a socket is.
    pub fn new(run_dir: PathBuf) -> Self {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).expect("the system has random numbers");
        let name = format!("{PREFIX}{:016x}", u64::from_be_bytes(bytes));
        Self(Arc::new(Place { run_dir, name, open: Mutex::default() }))
    }

    /// Returns the directories in which sockets are made, of this life and of others.
    pub fn places() -> Vec<PathBuf> {
        bases().filter_map(|base| fs::canonicalize(base).ok()).collect()
    }

    /// Whether somebody who sees this, a path without links, sees sockets, or all of a directory in
    /// which they are made.
    pub fn are_in(path: &Path) -> bool {
        Self::places().iter().any(|place| {
            let below = path.strip_prefix(place).ok().and_then(|below| below.iter().next());
            let named =
                below.is_some_and(|name| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()));
            path == place || named
        })
    }

    /// Makes a socket that listens.
    ///
    /// # Errors
    ///
    /// Fails if there is no place for it.
    pub fn open(&self) -> io::Result<Socket> {
        let mut open = self.0.lock();
        let dir = match &open.dir {
            Some(dir) => dir.clone(),
            None => self.0.make_dir()?,
        };
        open.dir = Some(dir.clone());
        let number = open.next;
        open.next += 1;
        let own = dir.join(number.to_string());
        match listen(&own) {
            Ok(listener) => {
                open.numbers.insert(number);
                drop(open);
                let file = File { path: own.join(DOOR), number, place: Arc::clone(&self.0) };
                Ok(Socket { listener, file })
            }
            Err(error) => {
                remove_one(&own);
                self.0.tidy(&mut open);
                Err(error)
            }
        }
    }

    /// Removes what earlier lives left that could not do it themselves.
    pub fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.0.run_dir) else { return };
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name();
            let is_ours = name.to_str().is_some_and(|name| name.starts_with(PREFIX));
            if !is_ours || name == *self.0.name {
                continue;
            }
            if let Ok(dir) = fs::read_link(entry.path()) {
                remove(&dir);
                let _next_life_tries_again = fs::remove_file(entry.path());
            }
        }
    }
}

/// Returns the directories below which sockets may be, the best first.
fn bases() -> impl Iterator<Item = PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let bases = runtime.into_iter().chain([std::env::temp_dir(), PathBuf::from("/tmp")]);
    bases.filter(|base| base.is_absolute())
}

/// Makes a directory with a socket in it.
fn listen(dir: &Path) -> io::Result<UnixListener> {
    fs::DirBuilder::new().mode(0o700).create(dir)?;
    let listener = UnixListener::bind(dir.join(DOOR))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Socket {
    /// Where it is: in a directory in which there is nothing else.
    pub fn path(&self) -> &Path {
        self.file.path()
    }
}

impl Place {
    /// Makes the directory in the first place that has a short path and lets us.
    fn make_dir(&self) -> io::Result<PathBuf> {
        fs::create_dir_all(&self.run_dir)?;
        let link = self.run_dir.join(&self.name);
        let is_short = |base: &PathBuf| base.as_os_str().len() + NAMES_BYTES_MAX <= PATH_BYTES_MAX;
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for base in bases().filter(is_short) {
            let dir = base.join(&self.name);
            // Whoever finds the directory finds the link.
            symlink(&dir, &link)?;
            match fs::DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => return Ok(dir),
                Err(error) => last = error,
            }
            fs::remove_file(&link)?;
        }
        Err(last)
    }

    /// Removes the directory if no socket is in it.
    fn tidy(&self, open: &mut Open) {
        if let Some(dir) = open.dir.take_if(|_| open.numbers.is_empty()) {
            let removed = match fs::remove_dir(dir) {
                // Somebody tidied it away.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            };
            let _swept_by_the_next_life =
                removed.and_then(|()| fs::remove_file(self.run_dir.join(&self.name)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let mut open = self.place.lock();
        remove_one(self.path.parent().unwrap_or(&self.path));
        open.numbers.remove(&self.number);
        self.place.tidy(&mut open);
    }
}

/// Removes a socket and its directory. What stays is swept by the next life.
fn remove_one(dir: &Path) {
    let door = dir.join(DOOR);
    if fs::symlink_metadata(&door).is_ok_and(|found| found.file_type().is_socket()) {
        let _stays = fs::remove_file(&door);
    }
    let _stays_if_there_is_more = fs::remove_dir(dir);
}

/// Removes a directory of sockets, if that is what it is and it is ours.
fn remove(dir: &Path) {
    let own = rustix::process::geteuid().as_raw();
    let is_ours = |found: &fs::Metadata| found.uid() == own;
    let found = fs::symlink_metadata(dir).ok();
    if !found.is_some_and(|found| found.is_dir() && is_ours(&found)) {
        return;
    }
    for entry in fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_one(&entry.path());
        }
    }
    let _stays_if_there_is_more = fs::remove_dir(dir);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(run_dir: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(run_dir).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn sockets_are_for_their_user_and_nothing_is_left_of_them() {
        let dir = tempfile::tempdir().unwrap();
        // The longer the path of the data directory, the more it matters.
        let run_dir = dir.path().join("x".repeat(150)).join("run");
        let sockets = Sockets::new(run_dir.clone());
        let (one, other) = (sockets.open().unwrap(), sockets.open().unwrap());
        assert!(one.path() != other.path() && one.path().as_os_str().len() <= PATH_BYTES_MAX);
        let own = one.path().parent().unwrap();
        assert_eq!(fs::read_dir(own).unwrap().count(), 1, "no other socket is beside it");
        let place = own.parent().unwrap().to_owned();
        for dir in [own, &place] {
            assert_eq!(fs::metadata(dir).unwrap().mode() & 0o777, 0o700);
        }
        assert_eq!(fs::read_link(&links(&run_dir)[0]).unwrap(), place);
        drop(one);
        assert!(place.exists() && other.path().exists());
        drop(other);
        assert!(!place.exists() && links(&run_dir).is_empty());
        assert!(sockets.open().unwrap().path().exists(), "there can be one again");
    }

    #[test]
    fn what_a_killed_life_left_is_gone_after_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let sockets = Sockets::new(dir.path().into());
        let left = sockets.open().unwrap();
        let path = left.path().to_owned();
        // As if it were killed: nothing is dropped.
        std::mem::forget(left);
        let next = Sockets::new(dir.path().into());
        let own = next.open().unwrap();
        next.sweep();
        assert!(!path.parent().unwrap().parent().unwrap().exists() && own.path().exists());
        assert_eq!(links(dir.path()).len(), 1);
    }

    #[test]
    fn a_link_to_something_else_removes_nothing_but_itself() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(other.path().join("kept"), "").unwrap();
        symlink(other.path(), dir.path().join("doors-1")).unwrap();
        symlink("/nowhere/at/all", dir.path().join("doors-2")).unwrap();
        fs::write(dir.path().join("1-2-3"), "").unwrap();
        Sockets::new(dir.path().into()).sweep();
        assert!(other.path().join("kept").exists());
        assert_eq!(links(dir.path()), [dir.path().join("1-2-3")]);
    }
}
