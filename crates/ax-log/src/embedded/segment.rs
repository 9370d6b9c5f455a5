//! Segments: preallocated files that blocks are committed to, and how they are read back.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::disk::{DiskFile, PAGE_BYTES, PageBuffer};
use super::format::{
    BLOCK_HEADER_BYTES, BlockHeader, Found, Key, Kind, RECORD_HEADER_BYTES, record_header, u32_of,
    u64_of, usize_of,
};
use crate::types::{APPEND_BYTES_MAX, LogFault};

/// The room in a block for what is not payload: headers, a state, and the states of ancestors.
const BLOCK_EXTRA_BYTES: usize = 1024 * 1024;
/// The largest body of a block, in bytes.
const BODY_BYTES_MAX: usize = APPEND_BYTES_MAX + BLOCK_EXTRA_BYTES;
/// How much of a file is looked through for what follows a first block that is damaged, in bytes.
/// The longest block is shorter.
pub(super) const BEGINNING_BYTES: u64 = 8 * 1024 * 1024;
const _: () = assert!(BEGINNING_BYTES > (BLOCK_HEADER_BYTES + BODY_BYTES_MAX + PAGE_BYTES) as u64);
/// How much of a segment is read at once, in bytes. The payloads that are replayed are parts of it.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// Returns the path of a file for segments. Its number says nothing of the segment in it.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("wal-{number:016x}"))
}

/// Returns the number in the name of a file for segments.
pub(super) fn number_of(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix("wal-")?, 16).ok()
}

/// A preallocated file.
#[derive(Clone, Debug)]
pub(super) struct SegmentFile {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) bytes: u64,
}

/// A block that is being made.
#[derive(Debug)]
pub(super) struct Block {
    buffer: PageBuffer,
    records: u32,
}

impl Block {
    pub(super) fn new() -> Self {
        let mut buffer = PageBuffer::new(BLOCK_HEADER_BYTES + BODY_BYTES_MAX);
        buffer.reset(BLOCK_HEADER_BYTES);
        Self { buffer, records: 0 }
    }

    /// Adds a record.
    pub(super) fn put(&mut self, kind: Kind, key: Key, payload: &[u8]) {
        self.buffer.put(&record_header(kind, key, payload.len()));
        self.buffer.put(payload);
        self.records += 1;
    }

    /// Returns the length so far, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.buffer.used()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Returns how much of a file the block will take, in bytes.
    pub(super) fn pages_bytes(&self) -> u64 {
        u64_of(self.buffer.used().next_multiple_of(PAGE_BYTES))
    }

    /// Forgets the records.
    pub(super) fn clear(&mut self) {
        self.buffer.reset(BLOCK_HEADER_BYTES);
        self.records = 0;
    }

    /// Writes the block durably to its place. Returns how much was written, in bytes.
    pub(super) fn write(&mut self, place: &Place) -> io::Result<usize> {
        let Place { store, segment, block, .. } = *place;
        let (head, body) = self.buffer.content_mut().split_at_mut(BLOCK_HEADER_BYTES);
        let header = BlockHeader {
            segment,
            block,
            generation: place.generation,
            body_bytes: u32_of(body.len()),
            records: self.records,
            body_crc: BlockHeader::crc_of(store, segment, block, body),
            settled: place.settled,
        };
        head.copy_from_slice(&header.encode(store));
        let pages = self.buffer.pages();
        place.file.write_durable(pages, place.offset)?;
        Ok(pages.len())
    }
}

/// Where a block goes, and what its header says.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) block: u64,
    store: u64,
    generation: u64,
    segment: u64,
    settled: u64,
    file: Arc<dyn DiskFile>,
    offset: u64,
}

/// The segment that is being written.
#[derive(Debug)]
pub(super) struct SegmentWriter {
    pub(super) store: u64,
    pub(super) generation: u64,
    pub(super) segment: u64,
    pub(super) block_next: u64,
    /// Where in the file the next block goes.
    pub(super) offset: u64,
    /// The file; `None` until the store gets its first record.
    pub(super) file: Option<SegmentFile>,
}

impl SegmentWriter {
    pub(super) const fn new(store: u64, generation: u64, segment: u64, block_next: u64) -> Self {
        Self { store, generation, segment, block_next, offset: 0, file: None }
    }

    /// Whether a block of so many bytes fits into what is left of the segment.
    pub(super) fn fits(&self, bytes: u64) -> bool {
        self.file.as_ref().is_some_and(|file| self.offset + bytes <= file.bytes)
    }

    /// Begins another segment in a file that is empty or has only older segments in it.
    pub(super) fn begin(&mut self, segment: u64, file: SegmentFile) -> Option<SegmentFile> {
        self.segment = segment;
        self.offset = 0;
        self.file.replace(file)
    }

    /// Takes the next place, for a block that fits.
    pub(super) fn take(&mut self, block: &Block, settled: u64) -> Place {
        let file = self.file.as_ref().expect("a block gets a place only if it fits");
        let place = Place {
            block: self.block_next,
            store: self.store,
            generation: self.generation,
            segment: self.segment,
            settled,
            file: Arc::clone(&file.file),
            offset: self.offset,
        };
        self.offset += block.pages_bytes();
        self.block_next += 1;
        place
    }
}

/// What stands at a place in a segment's file.
#[derive(Debug)]
pub(super) enum BlockAt {
    /// A whole block.
    Block(BlockHeader, Bytes),
    /// The header of a block whose body is not what was written.
    Torn(BlockHeader),
    /// A block in a version that is not known.
    Version(u16),
    /// No block.
    Nothing,
}

/// Reads a segment's file from front to back.
#[derive(Debug)]
pub(super) struct SegmentReader {
    pub(super) name: Arc<str>,
    pub(super) bytes: u64,
    store: u64,
    file: Arc<dyn DiskFile>,
    window: Bytes,
    window_at: u64,
}

impl SegmentReader {
    pub(super) fn new(store: u64, path: &Path, file: Arc<dyn DiskFile>) -> Result<Self, LogFault> {
        let name: Arc<str> = path.display().to_string().into();
        let failed = |source: io::Error| LogFault::Read {
            path: Arc::clone(&name),
            source: Arc::new(source),
        };
        let bytes = file.bytes().map_err(failed)?;
        Ok(Self { name, bytes, store, file, window: Bytes::new(), window_at: 0 })
    }

    /// Has the whole file fetched, as it is going to be read.
    pub(super) fn prefetch(&self) {
        self.file.prefetch(0, self.bytes);
    }

    /// Returns the header that stands at the start of the file.
    pub(super) fn first_header(&mut self) -> Result<Found, LogFault> {
        let mut header = [0; BLOCK_HEADER_BYTES];
        if self.bytes < u64_of(BLOCK_HEADER_BYTES) {
            return Ok(Found::Nothing);
        }
        self.file.read_at(&mut header, 0).map_err(|source| self.failed(source))?;
        Ok(BlockHeader::decode(self.store, &header))
    }

    /// Returns what stands at an offset.
    pub(super) fn block_at(&mut self, offset: u64) -> Result<BlockAt, LogFault> {
        let store = self.store;
        let Some(head) = self.slice(offset, BLOCK_HEADER_BYTES)? else {
            return Ok(BlockAt::Nothing);
        };
        let header = match BlockHeader::decode(store, &self.window[head]) {
            Found::Block(header) => header,
            Found::Version(version) => return Ok(BlockAt::Version(version)),
            Found::Nothing => return Ok(BlockAt::Nothing),
        };
        let bytes = header.body_bytes as usize;
        let at = offset + u64_of(BLOCK_HEADER_BYTES);
        let body = if bytes <= BODY_BYTES_MAX { self.slice(at, bytes)? } else { None };
        let crc = |body: &[u8]| BlockHeader::crc_of(store, header.segment, header.block, body);
        Ok(match body {
            Some(body) if crc(&self.window[body.clone()]) == header.body_crc => {
                BlockAt::Block(header, self.window.slice(body))
            }
            _ => BlockAt::Torn(header),
        })
    }

    /// Returns the first header between two offsets that is wanted; the body may be torn.
    pub(super) fn find_block(
        &mut self,
        mut offset: u64,
        end: u64,
        wanted: impl Fn(&BlockHeader) -> bool,
    ) -> Result<Option<(u64, BlockHeader)>, LogFault> {
        let store = self.store;
        while offset < end
            && let Some(head) = self.slice(offset, BLOCK_HEADER_BYTES)?
        {
            if let Found::Block(header) = BlockHeader::decode(store, &self.window[head])
                && wanted(&header)
            {
                return Ok(Some((offset, header)));
            }
            offset += PAGE_BYTES as u64;
        }
        Ok(None)
    }

    /// Returns the offset behind a block.
    pub(super) fn after(offset: u64, header: &BlockHeader) -> u64 {
        let bytes = BLOCK_HEADER_BYTES + header.body_bytes as usize;
        offset + u64_of(bytes.next_multiple_of(PAGE_BYTES))
    }

    /// Returns where in the window so many bytes from an offset on are; `None` where the file ends.
    fn slice(&mut self, offset: u64, bytes: usize) -> Result<Option<Range<usize>>, LogFault> {
        if offset + u64_of(bytes) > self.bytes {
            return Ok(None);
        }
        let end = self.window_at + u64_of(self.window.len());
        if offset < self.window_at || offset + u64_of(bytes) > end {
            let take = bytes.max(WINDOW_BYTES).min(usize_of(self.bytes - offset));
            // The memory is used again unless a payload is part of it.
            let old = std::mem::take(&mut self.window).try_into_mut();
            let mut window = old.unwrap_or_default();
            window.resize(take, 0);
            let read = self.file.read_at(&mut window, offset);
            read.map_err(|source| self.failed(source))?;
            (self.window, self.window_at) = (window.freeze(), offset);
        }
        let from = usize_of(offset - self.window_at);
        Ok(Some(from..from + bytes))
    }

    fn failed(&self, source: io::Error) -> LogFault {
        LogFault::Read { path: Arc::clone(&self.name), source: Arc::new(source) }
    }
}

/// Returns how much of a block a record with a payload takes, in bytes.
pub(super) const fn record_bytes(payload: usize) -> usize {
    RECORD_HEADER_BYTES + payload
}
