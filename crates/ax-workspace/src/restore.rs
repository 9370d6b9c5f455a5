//! Makes a directory equal to a snapshot, and touches only what differs.

use crate::error::RestoreError;
use crate::index::Index;
use crate::save::{now, used};
use crate::store::Reader;
use crate::sys::{self, shown};
use crate::tree::{Dir, Entry, Node, Object, Packs, Time};
use crate::{Options, Place, Restored};
use ax_core::id::Namespace;
use ax_store::{BlobId, Blobs};
use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Uid};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use tokio::runtime::Handle;

/// Says which snapshot is being restored; there from before the first change until after the last.
const MARKER: &str = "restoring";
/// What a file is called in its directory until it is complete; followed by a dot and more if
/// several can be made at once. It is never in a snapshot.
pub(crate) const DRAFT: &[u8] = b".ax-restoring";

/// What it takes to restore.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) handle: Handle,
    pub(crate) blobs: Blobs,
    pub(crate) namespace: Namespace,
    pub(crate) place: Place,
    pub(crate) snapshot: BlobId,
    pub(crate) options: Options,
}

/// Whether this is the name of a file that is not complete.
pub(crate) fn is_draft(name: &[u8]) -> bool {
    name.strip_prefix(DRAFT).is_some_and(|rest| matches!(rest.first(), None | Some(b'.')))
}

/// Returns the snapshot whose restore was begun and not ended.
pub(crate) fn unfinished(beside: &Path) -> io::Result<Option<BlobId>> {
    match fs::read_to_string(beside.join(MARKER)) {
        Ok(text) => text.trim().parse().map(Some).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Job {
    /// Restores, from a thread that may wait.
    pub(crate) fn run(self) -> Result<Restored, RestoreError> {
        let Place { dir, beside } = &self.place;
        let unusable = |path: &Path, source: io::Error| {
            let path = path.to_owned();
            RestoreError::Directory { path, source }
        };
        let mut packs = Packs::default();
        let mut reader = Reader::new(&self.blobs, &self.namespace);
        let limits = &self.options.limits;
        let mut tree = reader.tree(&self.handle, &mut packs, self.snapshot, limits)?;
        fs::create_dir_all(beside).map_err(|error| unusable(beside, error))?;
        // From here on the directory is neither what it was nor what it shall be.
        mark(beside, &self.snapshot).map_err(|error| unusable(beside, error))?;
        fs::create_dir_all(dir).map_err(|error| unusable(dir, error))?;
        let old = Index::load(beside);
        let root = sys::open_root(dir).map_err(|errno| unusable(dir, errno.into()))?;
        let stat = rustix::fs::fstat(&root).map_err(|errno| unusable(dir, errno.into()))?;
        let mut work = Restore {
            root: dir,
            handle: &self.handle,
            options: &self.options,
            reader,
            packs,
            owner: sys::owner(&stat),
            done: Restored::default(),
        };
        let old = old.as_ref().map(|index| &index.tree);
        work.dir(&root, &mut tree, old, &mut Vec::new())?;
        let Restore { packs, mut done, reader, .. } = work;
        (done.blobs_read, done.blob_bytes_read) = reader.stats;
        // What was written is as durable as the snapshot before anybody relies on it.
        rustix::fs::syncfs(&root).map_err(|errno| unusable(dir, errno.into()))?;
        let trust_before = now(beside, stat.st_dev).map_err(|error| unusable(beside, error))?;
        distrust(&mut tree, trust_before);
        let index = Index { snapshot: self.snapshot, packs: used(&packs, &mut tree), tree };
        if let Err(error) = index.save(beside) {
            tracing::warn!(path = %beside.display(), %error, "the next snapshot reads everything");
        }
        unmark(beside).map_err(|error| unusable(beside, error))?;
        Ok(done)
    }
}

fn mark(beside: &Path, snapshot: &BlobId) -> io::Result<()> {
    let new = beside.join("restoring.new");
    let mut file = File::create(&new)?;
    file.write_all(snapshot.to_string().as_bytes())?;
    file.sync_all()?;
    fs::rename(new, beside.join(MARKER))?;
    File::open(beside)?.sync_all()
}

fn unmark(beside: &Path) -> io::Result<()> {
    fs::remove_file(beside.join(MARKER))?;
    File::open(beside)?.sync_all()
}

/// Forgets how files look that could be changed without looking different.
fn distrust(dir: &mut Dir, trust_before: Time) {
    for entry in &mut dir.entries {
        entry.sig = entry.sig.filter(|sig| sig.ctime < trust_before);
        if let Node::Dir(dir) = &mut entry.node {
            distrust(dir, trust_before);
        }
    }
}

/// A restore under way.
#[derive(Debug)]
struct Restore<'a> {
    root: &'a Path,
    handle: &'a Handle,
    options: &'a Options,
    reader: Reader,
    packs: Packs,
    owner: Option<(Uid, Gid)>,
    done: Restored,
}

impl Restore<'_> {
    /// Makes a directory equal. `old` is what the last snapshot of this workspace knew of it.
    fn dir(
        &mut self,
        fd: &OwnedFd,
        wanted: &mut Dir,
        old: Option<&Dir>,
        path: &mut Vec<u8>,
    ) -> Result<(), RestoreError> {
        let names = sys::names(fd.as_fd(), u64::MAX).map_err(|errno| self.failed(path, errno))?;
        let there: BTreeSet<Box<[u8]>> = names.unwrap_or_default().into_iter().collect();
        for name in &there {
            let bytes = push(path, name);
            if wanted.get(name).is_none() && !self.is_skipped(path) {
                self.remove(fd.as_fd(), name, path)?;
            }
            path.truncate(bytes);
        }
        for entry in &mut wanted.entries {
            let bytes = push(path, &entry.name);
            if !self.is_skipped(path) {
                let old = old.and_then(|old| old.get(&entry.name));
                let is_there = there.contains(&entry.name);
                self.entry(fd.as_fd(), entry, old, is_there, path)?;
            }
            path.truncate(bytes);
        }
        Ok(())
    }

    /// Whether a path belongs to the runtime and not to the snapshot.
    fn is_skipped(&self, path: &[u8]) -> bool {
        self.options.skip.iter().any(|skip| skip == path)
    }

    fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        wanted: &mut Entry,
        old: Option<&Entry>,
        is_there: bool,
        path: &mut Vec<u8>,
    ) -> Result<(), RestoreError> {
        let mut there = None;
        if is_there {
            let stat = sys::stat(dir, &wanted.name).map_err(|errno| self.failed(path, errno))?;
            let kind = match &wanted.node {
                Node::File { .. } => FileType::RegularFile,
                Node::Link { .. } => FileType::Symlink,
                Node::Dir(_) => FileType::Directory,
            };
            if sys::kind(&stat) == kind {
                there = Some(stat);
            } else {
                self.remove(dir, &wanted.name, path)?;
            }
        }
        if matches!(wanted.node, Node::Dir(_)) {
            return self.inner(dir, wanted, old, there, path);
        }
        let done = match &wanted.node {
            Node::Link { target } => self.link(dir, wanted, target, there),
            _ => return self.file(dir, wanted, old, there, path),
        };
        done.map_err(|errno| self.failed(path, errno))
    }

    fn inner(
        &mut self,
        dir: BorrowedFd<'_>,
        wanted: &mut Entry,
        old: Option<&Entry>,
        there: Option<Stat>,
        path: &mut Vec<u8>,
    ) -> Result<(), RestoreError> {
        let Entry { name, meta, node, .. } = wanted;
        let Node::Dir(tree) = node else { return Ok(()) };
        let old = match old.map(|old| &old.node) {
            Some(Node::Dir(old)) => Some(old),
            _ => None,
        };
        let open = || -> Result<OwnedFd, Errno> {
            if there.is_none() {
                rustix::fs::mkdirat(dir, &**name, Mode::RWXU)?;
            }
            match sys::open_dir(dir, name) {
                Err(Errno::ACCESS) => sys::make_ours(dir, name)?,
                opened => return opened,
            }
            sys::open_dir(dir, name)
        };
        let fd = open().map_err(|errno| self.failed(path, errno))?;
        if there.is_none_or(|stat| stat.st_mode & 0o700 != 0o700) {
            rustix::fs::fchmod(&fd, Mode::RWXU).map_err(|errno| self.failed(path, errno))?;
        }
        self.dir(&fd, tree, old, path)?;
        let finish = || -> Result<(), Errno> {
            let now = rustix::fs::fstat(&fd)?;
            if let Some((uid, gid)) = self.owner {
                rustix::fs::fchown(&fd, Some(uid), Some(gid))?;
            }
            if sys::meta(&now) != *meta || now.st_mode & 0o7000 != 0 {
                rustix::fs::fchmod(&fd, sys::mode(*meta))?;
                rustix::fs::futimens(&fd, &sys::times(*meta))?;
            }
            Ok(())
        };
        finish().map_err(|errno| self.failed(path, errno))
    }

    fn link(
        &self,
        dir: BorrowedFd<'_>,
        wanted: &Entry,
        target: &[u8],
        there: Option<Stat>,
    ) -> Result<(), Errno> {
        let name = &*wanted.name;
        let is_right = match there {
            Some(_) => sys::target(dir, name)?.as_bytes() == target,
            None => false,
        };
        if !is_right {
            if there.is_some() {
                rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
            }
            rustix::fs::symlinkat(target, dir, name)?;
            if let Some((uid, gid)) = self.owner {
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::chownat(dir, name, Some(uid), Some(gid), flags)?;
            }
        }
        let times = sys::times(wanted.meta);
        rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn file(
        &mut self,
        dir: BorrowedFd<'_>,
        wanted: &mut Entry,
        old: Option<&Entry>,
        there: Option<Stat>,
        path: &[u8],
    ) -> Result<(), RestoreError> {
        let failed = |errno| Self::wrapped(self.root, path, errno);
        let Node::File { bytes, chunks } = &wanted.node else { return Ok(()) };
        let content = chunks.clone();
        // A name that another file shares is not written through: it may lie elsewhere.
        let stat = there.filter(|stat| sys::bytes(stat) == *bytes && stat.st_nlink == 1);
        if let Some(stat) = stat {
            let is_known = old.is_some_and(|old| {
                old.sig == Some(sys::sig(&stat)) && is_same(&old.node, &content)
            });
            if is_known || self.has(dir, &wanted.name, &content).map_err(failed)? {
                let is_right = sys::meta(&stat) == wanted.meta && stat.st_mode & 0o7000 == 0;
                if is_right {
                    wanted.sig = Some(sys::sig(&stat));
                    return Ok(());
                }
                if let Ok(file) = sys::open_file(dir, &wanted.name) {
                    self.dress(&file, wanted).map_err(failed)?;
                    let stat = rustix::fs::fstat(&file).map_err(failed)?;
                    wanted.sig = Some(sys::sig(&stat));
                    return Ok(());
                }
            }
        }
        self.write(dir, wanted, &content, path)?;
        // Being renamed is a change too.
        wanted.sig = Some(sys::sig(&sys::stat(dir, &wanted.name).map_err(failed)?));
        Ok(())
    }

    /// Writes a file beside its place and puts it there when it is complete.
    fn write(
        &mut self,
        dir: BorrowedFd<'_>,
        wanted: &Entry,
        content: &[Object],
        path: &[u8],
    ) -> Result<(), RestoreError> {
        let failed = |errno| Self::wrapped(self.root, path, errno);
        match rustix::fs::unlinkat(dir, DRAFT, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let mut file = File::from(sys::create_file(dir, DRAFT).map_err(failed)?);
        for chunk in content {
            let bytes = self.handle.block_on(self.reader.object(&self.packs, chunk))?;
            file.write_all(&bytes).map_err(|source| {
                let path = self.root.join(shown(path));
                RestoreError::Directory { path, source }
            })?;
            self.done.bytes_written += bytes.len() as u64;
        }
        self.dress(&OwnedFd::from(file), wanted).map_err(failed)?;
        rustix::fs::renameat(dir, DRAFT, dir, &*wanted.name).map_err(failed)?;
        self.done.files_written += 1;
        Ok(())
    }

    /// Gives a file its owner, permissions and time.
    fn dress(&self, file: &OwnedFd, wanted: &Entry) -> Result<(), Errno> {
        if let Some((uid, gid)) = self.owner {
            rustix::fs::fchown(file, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(file, sys::mode(wanted.meta))?;
        rustix::fs::futimens(file, &sys::times(wanted.meta))
    }

    /// Whether a file has this content, by reading it.
    fn has(&mut self, dir: BorrowedFd<'_>, name: &[u8], content: &[Object]) -> Result<bool, Errno> {
        let mut file = match sys::open_file(dir, name) {
            Err(Errno::ACCESS | Errno::PERM) => return Ok(false),
            opened => File::from(opened?),
        };
        let mut buffer = Vec::new();
        for chunk in content {
            buffer.clear();
            let read = (&mut file).take(u64::from(chunk.bytes)).read_to_end(&mut buffer);
            read.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            self.done.bytes_compared += buffer.len() as u64;
            if *blake3::hash(&buffer).as_bytes() != chunk.hash {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes what has a name, with everything in it.
    fn remove(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
    ) -> Result<(), RestoreError> {
        let removed = sys::remove_all(dir, name).map_err(|errno| self.failed(path, errno))?;
        self.done.removed += removed;
        Ok(())
    }

    fn failed(&self, path: &[u8], errno: Errno) -> RestoreError {
        Self::wrapped(self.root, path, errno)
    }

    fn wrapped(root: &Path, path: &[u8], errno: Errno) -> RestoreError {
        RestoreError::Directory { path: root.join(shown(path)), source: errno.into() }
    }
}

fn is_same(node: &Node, content: &[Object]) -> bool {
    let Node::File { chunks, .. } = node else { return false };
    chunks.iter().map(|chunk| chunk.hash).eq(content.iter().map(|chunk| chunk.hash))
}

fn push(path: &mut Vec<u8>, name: &[u8]) -> usize {
    let bytes = path.len();
    if bytes > 0 {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    bytes
}
