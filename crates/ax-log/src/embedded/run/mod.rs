//! Runs: immutable files in which the records of many segments stand grouped by session.
//!
//! A run has four sections, each sorted by key: the states of sessions, their snapshots, their
//! entries, and the names of namespaces. A section is blocks of records and over them an index as a
//! tree of pages, all on disk: in memory a run is its footer, whatever its length.

mod cursor;
mod walk;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::cache::BlockCache;
use super::disk::{Disk, DiskFile};
use super::format::{Key, Reader, Record, SessionRef, SessionState, VERSION, damaged};
use super::manifest::RunEntry;
use super::{OpenError, io_error};
use crate::types::LogFault;

pub(super) use cursor::{Cursor, Merged};
pub(super) use walk::WalkMerged;
pub(super) use writer::{Covers, PIECE_BYTES, RunWriter};

const FILE_MAGIC: [u8; 8] = *b"AXRN\x01\0\0\0";
const BLOCK_MAGIC: [u8; 4] = *b"AXRB";
const FOOTER_MAGIC: [u8; 4] = *b"AXRF";
const BLOCK_HEADER_BYTES: usize = 24;
const FOOTER_BYTES: usize = 192;
/// Where in the footer the store's number is.
const STORE_OFFSET: usize = 152;
const INDEX_ENTRY_BYTES: usize = 40;
const INDEX_PAGE_ENTRIES: u32 = 100;
const SECTION_COUNT: usize = 4;
/// The largest block: one record of the largest kind.
const BLOCK_BYTES_MAX: usize = crate::types::SNAPSHOT_BYTES_MAX + 4096;

/// A part of a run with one kind of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    /// The newest state of each session that the run knows.
    States = 0,
    /// Snapshots.
    Snapshots = 1,
    /// Entries.
    Entries = 2,
    /// The names of the namespaces of the sessions in the run.
    Namespaces = 3,
}

impl Section {
    pub(super) const ALL: [Self; SECTION_COUNT] =
        [Self::States, Self::Snapshots, Self::Entries, Self::Namespaces];
}

/// Where a section's index begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Root {
    offset: u64,
    bytes: u32,
    /// How many levels of index pages there are; 0 for an empty section.
    height: u32,
    records: u64,
}

/// One run, open to be read.
pub(super) struct Run {
    pub(super) entry: RunEntry,
    pub(super) path: PathBuf,
    pub(super) generation: u64,
    pub(super) block_next: u64,
    name: Arc<str>,
    store: u64,
    file: Arc<dyn DiskFile>,
    cache: Arc<BlockCache>,
    roots: [Root; SECTION_COUNT],
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("entry", &self.entry).finish_non_exhaustive()
    }
}

/// Returns the path of a run.
pub(super) fn path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("run-{id:016x}"))
}

/// Returns the id of the run that a file name is of.
pub(super) fn id_of(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix("run-")?, 16).ok()
}

impl Run {
    /// Opens the run in a file and checks its footer.
    pub(super) fn open(
        disk: &dyn Disk,
        path: PathBuf,
        store: u64,
        cache: &Arc<BlockCache>,
    ) -> Result<Self, OpenError> {
        let failed = |error| io_error("opening", &path, error);
        let file = disk.open(&path).map_err(failed)?;
        let bytes = file.bytes().map_err(failed)?;
        let name: Arc<str> = path.display().to_string().into();
        let wrong = |offset, what: &str| OpenError::Damaged {
            path: Arc::clone(&name),
            offset,
            what: what.into(),
        };
        let Some(at) = bytes.checked_sub(FOOTER_BYTES as u64) else {
            return Err(wrong(bytes, "the run is too short to have a footer"));
        };
        let mut footer = [0; FOOTER_BYTES];
        file.read_at(&mut footer, at).map_err(failed)?;
        let mut reader = Reader::new(&footer);
        if reader.array() != Some(FOOTER_MAGIC) {
            return Err(wrong(at, "the run has no footer"));
        }
        let crc = super::format::seeded_crc(store, &footer[..FOOTER_BYTES - 4]);
        if crc.to_le_bytes() != footer[FOOTER_BYTES - 4..] {
            return Err(wrong(at, "the checksum of the run's footer is wrong"));
        }
        let version = reader.u16().unwrap_or_default();
        if version != VERSION {
            return Err(OpenError::Version { path, found: version, known: VERSION });
        }
        let fields = footer_fields(&mut reader).ok_or_else(|| wrong(at, "it is malformed"))?;
        let (mut entry, generation, block_next, roots) = fields;
        entry.bytes = bytes;
        let cache = Arc::clone(cache);
        Ok(Self { entry, path, generation, block_next, name, store, file, cache, roots })
    }

    /// Returns the state of a session.
    pub(super) fn state(
        self: &Arc<Self>,
        of: SessionRef,
    ) -> Result<Option<SessionState>, LogFault> {
        let mut cursor = Cursor::seek(self, Section::States, Key { of, seq: 0 })?;
        match cursor.next()? {
            Some(record) if record.key.of == of => self.decode_state(&record).map(Some),
            _ => Ok(None),
        }
    }

    pub(super) fn decode_state(&self, record: &Record) -> Result<SessionState, LogFault> {
        SessionState::decode(&record.payload)
            .ok_or_else(|| damaged(&self.name, 0, "the state of a session is malformed"))
    }

    /// Returns the newest snapshot of a session at or before a position.
    pub(super) fn snapshot(self: &Arc<Self>, key: Key) -> Result<Option<Record>, LogFault> {
        let found = Cursor::floor(self, Section::Snapshots, key)?;
        Ok(found.filter(|record| record.key.of == key.of))
    }

    /// Returns the first position of a session that the run has an entry of.
    pub(super) fn entry_first(self: &Arc<Self>, of: SessionRef) -> Result<Option<u64>, LogFault> {
        let mut cursor = Cursor::seek(self, Section::Entries, Key { of, seq: 0 })?;
        let first = cursor.next()?.filter(|record| record.key.of == of);
        Ok(first.map(|record| record.key.seq))
    }

    /// Opens a run whose footer cannot be read, to walk through what is there.
    pub(super) fn without_footer(
        disk: &dyn Disk,
        path: PathBuf,
        entry: RunEntry,
        store: u64,
        cache: &Arc<BlockCache>,
    ) -> Result<Self, OpenError> {
        let failed = |error| io_error("opening", &path, error);
        let file = disk.open(&path).map_err(failed)?;
        let bytes = file.bytes().map_err(failed)?;
        let entry = RunEntry { bytes, ..entry };
        let name: Arc<str> = path.display().to_string().into();
        let (cache, roots) = (Arc::clone(cache), Default::default());
        Ok(Self { entry, path, generation: 0, block_next: 0, name, store, file, cache, roots })
    }

    /// Reads all of a section through its index. Returns how many records there are.
    pub(super) fn check_index(self: &Arc<Self>, section: Section) -> Result<(), LogFault> {
        let start = Key { of: SessionRef { namespace: 0, session: 0 }, seq: 0 };
        let mut cursor = Cursor::seek(self, section, start)?;
        let (mut count, mut last) = (0, None);
        while let Some(record) = cursor.next()? {
            if last.is_some_and(|last| last >= record.key) {
                return Err(damaged(&self.name, 0, "records are not in the order of their keys"));
            }
            last = Some(record.key);
            count += 1;
        }
        if count != self.roots[section as usize].records {
            return Err(damaged(&self.name, 0, "the index does not lead to every record"));
        }
        Ok(())
    }

    /// Reads a block and checks that it is what was written there.
    fn block(&self, at: Child, section: Section, level: u8) -> Result<Bytes, LogFault> {
        let cached = level > 0 || section == Section::States;
        let place = (self.entry.id, at.offset);
        if cached && let Some(block) = self.cache.get(place) {
            return Ok(block);
        }
        let block = self.read_block(at, section, level)?;
        if cached {
            self.cache.put(place, block.clone());
        }
        Ok(block)
    }

    /// Reads a block from the disk.
    fn read_block(&self, at: Child, section: Section, level: u8) -> Result<Bytes, LogFault> {
        let wrong = |what: &str| damaged(&self.name, at.offset, what);
        let bytes = at.bytes as usize;
        if !(BLOCK_HEADER_BYTES..=BLOCK_BYTES_MAX).contains(&bytes)
            || at.offset + u64::from(at.bytes) > self.entry.bytes
        {
            return Err(wrong("the index points to no block"));
        }
        let mut content = vec![0; bytes];
        self.file.read_at(&mut content, at.offset).map_err(|source| LogFault::Read {
            path: Arc::clone(&self.name),
            source: Arc::new(source),
        })?;
        let crc = block_crc(self.store, self.entry.id, at.offset, &content[8..]);
        if !content.starts_with(&BLOCK_MAGIC) || content[4..8] != crc.to_le_bytes() {
            return Err(wrong("the checksum of a block is wrong"));
        }
        if content[8] != section as u8 || content[9] != level {
            return Err(wrong("a block is not of the kind that the index says"));
        }
        Ok(Bytes::from(content).slice(BLOCK_HEADER_BYTES..))
    }
}

/// Where a block is.
#[derive(Clone, Copy, Debug)]
struct Child {
    offset: u64,
    bytes: u32,
}

fn block_crc(store: u64, run: u64, offset: u64, sealed: &[u8]) -> u32 {
    let place = [store.to_le_bytes(), run.to_le_bytes(), offset.to_le_bytes()];
    crc32c::crc32c_append(crc32c::crc32c(place.as_flattened()), sealed)
}

/// Returns entry `index` of an index page: the first key of a child, and where the child is.
fn index_entry(page: &Bytes, index: usize) -> Option<(Key, Child)> {
    let mut reader = Reader::new(page.get(index * INDEX_ENTRY_BYTES..)?);
    let namespace = reader.u32()?;
    let session = u128::from_le_bytes(reader.array()?);
    let key = Key { of: SessionRef { namespace, session }, seq: reader.u64()? };
    Some((key, Child { offset: reader.u64()?, bytes: reader.u32()? }))
}

/// Returns the entry of an index page whose child has `key`, if any has.
fn index_find(page: &Bytes, key: Key) -> usize {
    let (mut low, mut high) = (0, page.len() / INDEX_ENTRY_BYTES);
    while low < high {
        let middle = usize::midpoint(low, high);
        match index_entry(page, middle) {
            Some((first, _)) if first <= key => low = middle + 1,
            _ => high = middle,
        }
    }
    low.saturating_sub(1)
}

type Footer = (RunEntry, u64, u64, [Root; SECTION_COUNT]);

fn footer_fields(reader: &mut Reader<'_>) -> Option<Footer> {
    let _reserved = reader.u16()?;
    let id = reader.u64()?;
    let (segment_first, segment_last) = (reader.u64()?, reader.u64()?);
    let (generation, block_next) = (reader.u64()?, reader.u64()?);
    let mut roots = [Root::default(); SECTION_COUNT];
    for root in &mut roots {
        *root = Root {
            offset: reader.u64()?,
            bytes: reader.u32()?,
            height: reader.u32()?,
            records: reader.u64()?,
        };
    }
    let entry = RunEntry { id, bytes: 0, segment_first, segment_last };
    Some((entry, generation, block_next, roots))
}

/// Returns the store that a run says it belongs to, which is needed where the manifest is lost.
pub(super) fn store_of(disk: &dyn Disk, path: &Path) -> Option<u64> {
    let file = disk.open(path).ok()?;
    let at = file.bytes().ok()?.checked_sub(FOOTER_BYTES as u64)?;
    let mut footer = [0; FOOTER_BYTES];
    file.read_at(&mut footer, at).ok()?;
    let store = u64::from_le_bytes(footer[STORE_OFFSET..STORE_OFFSET + 8].try_into().ok()?);
    let crc = super::format::seeded_crc(store, &footer[..FOOTER_BYTES - 4]);
    (crc.to_le_bytes() == footer[FOOTER_BYTES - 4..]).then_some(store)
}

const _: () = assert!(
    4 + 2 + 2 + 5 * 8 + SECTION_COUNT * 24 <= STORE_OFFSET && STORE_OFFSET + 8 + 4 <= FOOTER_BYTES,
    "the fields fit into the footer"
);
