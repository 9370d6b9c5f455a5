//! Walks a workspace and reads what has changed.
//!
//! Whoever works in it may change anything meanwhile: names are opened one by one, from the
//! directory they are in, and never through a link; what is gone or of another kind by then is
//! taken as it is found.

use crate::error::SnapshotError;
use crate::pack::Totals;
use crate::restore::is_draft;
use crate::store::Writer;
use crate::sys::{self, shown};
use crate::tree::{Dir, Entry, Node, Object, Packs, TARGET_BYTES_MAX, Time};
use crate::{Options, Stats};
use fastcdc::v2020::StreamCDC;
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

/// A file up to this length is one chunk; a longer one is cut where its content says, into chunks
/// of these lengths in bytes.
const CHUNK_BYTES_MIN: usize = 64 << 10;
const CHUNK_BYTES: usize = 256 << 10;
const CHUNK_BYTES_MAX: usize = 1 << 20;
/// How often a file is read that changes while it is read.
const READS_MAX: u32 = 3;
/// How many paths are named in [`Stats::unsettled`].
const UNSETTLED_MAX: usize = 16;

/// A walk under way.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    pub(crate) root: &'a Path,
    pub(crate) options: &'a Options,
    pub(crate) packs: Packs,
    /// Chunks that the store has.
    pub(crate) known: HashMap<[u8; 32], Object>,
    /// Packs that nothing new may refer to.
    pub(crate) retired: HashSet<u32>,
    pub(crate) writer: Writer,
    /// What was last changed before this looks different when it is changed again.
    pub(crate) trust_before: Time,
    pub(crate) device: u64,
    pub(crate) totals: Totals,
    pub(crate) stats: Stats,
}

impl Scan<'_> {
    /// Reads a directory. `path` says where it is; `old` is what the snapshot before has there.
    pub(crate) fn dir(
        &mut self,
        fd: &OwnedFd,
        path: &mut Vec<u8>,
        depth: u32,
        old: Option<&Dir>,
    ) -> Result<Dir, SnapshotError> {
        if depth > self.options.limits.depth {
            return Err(self.limit("levels", u64::from(self.options.limits.depth), path));
        }
        let max = self.options.limits.entries;
        let room = max - self.totals.files - self.totals.dirs - self.totals.links;
        let names = match sys::names(fd.as_fd(), room) {
            // It was removed since it was opened.
            Err(Errno::NOENT) if depth > 0 => Some(Vec::new()),
            names => names.map_err(|errno| self.failed(path, errno))?,
        };
        let names = names.ok_or_else(|| self.limit("files", max, path))?;
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            let bytes = path.len();
            if bytes > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            if !is_draft(&name) && !self.options.skip.iter().any(|skip| skip == path) {
                let old = old.and_then(|old| old.get(&name));
                entries.extend(self.entry(fd.as_fd(), name, path, depth, old)?);
            }
            path.truncate(bytes);
        }
        let mut dir = Dir { entries, object: None };
        if let Some(old) = old
            && let Some(object) = old.object
            && !self.retired.contains(&object.pack)
            && dir.is_kept_as(old)
        {
            dir.object = Some(object);
        }
        Ok(dir)
    }

    /// Reads what has a name, unless it is gone or is nothing that is kept.
    fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        name: Box<[u8]>,
        path: &mut Vec<u8>,
        depth: u32,
        old: Option<&Entry>,
    ) -> Result<Option<Entry>, SnapshotError> {
        let stat = match sys::stat(dir, &name) {
            Err(errno) => return self.left_out(path, errno),
            Ok(stat) => stat,
        };
        let meta = sys::meta(&stat);
        let node = match sys::kind(&stat) {
            FileType::RegularFile => return self.file(dir, name, path, &stat, old),
            FileType::Directory if stat.st_dev != self.device => {
                self.stats.mounts += 1;
                return Ok(None);
            }
            FileType::Directory => match sys::open_dir(dir, &name) {
                Err(errno) => return self.left_out(path, errno),
                Ok(inner) => {
                    self.count(path, |totals| &mut totals.dirs)?;
                    let old = match old.map(|old| &old.node) {
                        Some(Node::Dir(dir)) => Some(dir),
                        _ => None,
                    };
                    Node::Dir(self.dir(&inner, path, depth + 1, old)?)
                }
            },
            FileType::Symlink => match sys::target(dir, &name) {
                Err(errno) => return self.left_out(path, errno),
                Ok(target) if target.as_bytes().len() > TARGET_BYTES_MAX => {
                    return self.left_out(path, Errno::ACCESS);
                }
                Ok(target) => {
                    self.count(path, |totals| &mut totals.links)?;
                    Node::Link { target: target.into_bytes().into() }
                }
            },
            _ => {
                self.stats.special += 1;
                return Ok(None);
            }
        };
        Ok(Some(Entry { name, meta, sig: None, node }))
    }

    fn file(
        &mut self,
        dir: BorrowedFd<'_>,
        name: Box<[u8]>,
        path: &[u8],
        stat: &Stat,
        old: Option<&Entry>,
    ) -> Result<Option<Entry>, SnapshotError> {
        if let Some(old) = old
            && old.sig == Some(sys::sig(stat))
            && let Node::File { bytes, chunks } = &old.node
            && chunks.iter().all(|chunk| !self.retired.contains(&chunk.pack))
        {
            self.count_file(path, *bytes)?;
            return Ok(Some(old.clone()));
        }
        for read in 1..=READS_MAX {
            let file = match sys::open_file(dir, &name) {
                Err(errno) => return self.left_out(path, errno),
                Ok(file) => File::from(file),
            };
            let before = rustix::fs::fstat(&file).map_err(|errno| self.failed(path, errno))?;
            if sys::kind(&before) != FileType::RegularFile {
                self.stats.special += 1;
                return Ok(None);
            }
            let wanted = sys::bytes(&before);
            if self.totals.bytes.saturating_add(wanted) > self.options.limits.bytes {
                return Err(self.limit("bytes", self.options.limits.bytes, path));
            }
            // What is appended meanwhile belongs to a later state.
            let chunks = self.read((&file).take(wanted), wanted);
            let chunks = chunks.map_err(|error| self.wrapped(path, error))??;
            let after = rustix::fs::fstat(&file).map_err(|errno| self.failed(path, errno))?;
            let bytes = chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
            let looks = sys::sig(&before);
            let is_settled = looks == sys::sig(&after) && bytes == wanted;
            if !is_settled && read < READS_MAX {
                continue;
            }
            if !is_settled {
                self.note_unsettled(path);
            }
            self.count_file(path, bytes)?;
            let is_trusted = is_settled && !self.options.busy && looks.ctime < self.trust_before;
            let (meta, sig) = (sys::meta(&before), is_trusted.then_some(looks));
            return Ok(Some(Entry { name, meta, sig, node: Node::File { bytes, chunks } }));
        }
        Ok(None)
    }

    /// Reads a file into chunks. The outer error is the file's, the inner one the store's.
    fn read(
        &mut self,
        mut file: io::Take<&File>,
        bytes: u64,
    ) -> io::Result<Result<Vec<Object>, SnapshotError>> {
        self.stats.files_read += 1;
        let mut chunks = Vec::new();
        if bytes <= CHUNK_BYTES_MIN as u64 {
            let mut content = Vec::new();
            file.read_to_end(&mut content)?;
            if !content.is_empty() {
                match self.chunk(&content) {
                    Ok(chunk) => chunks.push(chunk),
                    Err(error) => return Ok(Err(error)),
                }
            }
            return Ok(Ok(chunks));
        }
        for chunk in StreamCDC::new(file, CHUNK_BYTES_MIN, CHUNK_BYTES, CHUNK_BYTES_MAX) {
            match self.chunk(&chunk?.data) {
                Ok(chunk) => chunks.push(chunk),
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(chunks))
    }

    fn chunk(&mut self, content: &[u8]) -> Result<Object, SnapshotError> {
        self.stats.bytes_read += content.len() as u64;
        let hash = *blake3::hash(content).as_bytes();
        if let Some(known) = self.known.get(&hash) {
            return Ok(*known);
        }
        self.writer.close_full(&mut self.packs)?;
        let object = self.writer.add(content, hash);
        self.known.insert(hash, object);
        Ok(object)
    }

    fn count_file(&mut self, path: &[u8], bytes: u64) -> Result<(), SnapshotError> {
        self.totals.bytes = self.totals.bytes.saturating_add(bytes);
        if self.totals.bytes > self.options.limits.bytes {
            return Err(self.limit("bytes", self.options.limits.bytes, path));
        }
        self.count(path, |totals| &mut totals.files)
    }

    fn count(
        &mut self,
        path: &[u8],
        of: impl FnOnce(&mut Totals) -> &mut u64,
    ) -> Result<(), SnapshotError> {
        *of(&mut self.totals) += 1;
        let Totals { files, dirs, links, .. } = self.totals;
        if files + dirs + links > self.options.limits.entries {
            return Err(self.limit("files", self.options.limits.entries, path));
        }
        Ok(())
    }

    /// Goes on without what is gone, or may not be read.
    fn left_out(&mut self, path: &[u8], errno: Errno) -> Result<Option<Entry>, SnapshotError> {
        match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::INVAL | Errno::NXIO => Ok(None),
            Errno::ACCESS | Errno::PERM | Errno::AGAIN => {
                self.stats.unreadable += 1;
                Ok(None)
            }
            errno => Err(self.failed(path, errno)),
        }
    }

    fn note_unsettled(&mut self, path: &[u8]) {
        if self.stats.unsettled.len() < UNSETTLED_MAX {
            self.stats.unsettled.push(shown(path));
        }
    }

    fn limit(&self, what: &'static str, max: u64, path: &[u8]) -> SnapshotError {
        SnapshotError::Limit { what, max, at: shown(path) }
    }

    pub(crate) fn failed(&self, path: &[u8], errno: Errno) -> SnapshotError {
        self.wrapped(path, errno.into())
    }

    fn wrapped(&self, path: &[u8], source: io::Error) -> SnapshotError {
        SnapshotError::Directory { path: self.root.join(shown(path)), source }
    }
}
