//! Replays the segments that no run covers, and finds where the log ends.
//!
//! The last blocks of the last segment may have been under way when the process ended, and they may
//! have reached the disk in any order. So what follows a block that is torn or missing was either
//! under way with it, and acknowledged to nobody, or it shows that the block has been damaged
//! since:
//! every header says up to which block all was durable when it was made.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use ax_core::id::Namespace;
use bytes::Bytes;

use super::disk::PageBuffer;
use super::format::{
    BLOCK_HEADER_BYTES, BlockHeader, Kind, SessionState, VERSION, damaged, record_at,
};
use super::manifest::Manifest;
use super::memtable::{Memtable, Tables};
use super::run_loop::Job;
use super::segment::{BlockAt, SegmentFile, SegmentReader, SegmentWriter};
use super::shared::Namespaces;
use super::version::Version;
use super::{BLOCKS_IN_FLIGHT_MAX, OpenError, Options, io_error};
use crate::types::LogFault;

/// A file with a segment that no run covers.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) header: BlockHeader,
    pub(super) path: PathBuf,
    pub(super) reader: SegmentReader,
}

/// A file that has a block of such a segment, but not its first one.
#[derive(Debug)]
pub(super) struct Beheaded {
    pub(super) segment: u64,
    pub(super) reader: SegmentReader,
}

/// Where a whole block stands.
type Placed = (u64, BlockHeader, Bytes);

/// What a replay gave.
#[derive(Debug)]
pub(super) struct Replay {
    store: u64,
    /// The segment that goes on being written, and its file if it has one.
    segment: u64,
    file: Option<SegmentFile>,
    offset: u64,
    block_next: u64,
    /// The number of the first block of each segment.
    firsts: BTreeMap<u64, u64>,
    /// The last blocks of the last segment.
    last: Vec<Placed>,
    jobs: Vec<Job>,
}

/// Replays segments into memtables; the last one goes on being written.
pub(super) fn replay(
    options: &Options,
    manifest: &Manifest,
    live: BTreeMap<u64, Live>,
    version: &mut Version,
    namespaces: &mut Namespaces,
) -> Result<Replay, OpenError> {
    let mut all = Replay {
        store: manifest.store,
        segment: manifest.replay_segment,
        file: None,
        offset: 0,
        block_next: manifest.replay_block,
        firsts: BTreeMap::new(),
        last: Vec::new(),
        jobs: Vec::new(),
    };
    let mut generation = 0;
    let count = live.len();
    for (at, (live, read)) in read_all(live.into_values().collect()).into_iter().enumerate() {
        let (name, expected) = (&live.reader.name, manifest.replay_segment + at as u64);
        if live.header.segment != expected {
            let what = format!("segment {expected} before it is missing");
            return Err(damaged(name, 0, what).into());
        }
        let first = all.block_next;
        if live.header.block != first {
            let what = format!("it begins with block {}, not {first}", live.header.block);
            return Err(damaged(name, 0, what).into());
        }
        if live.header.generation < generation {
            let what = format!("block {first} is older than the one before it");
            return Err(damaged(name, 0, what).into());
        }
        let read = read?;
        let file = options.disk.open_durable(&live.path);
        let file = file.map_err(|error| io_error("opening", &live.path, error))?;
        let file = SegmentFile { path: live.path, file, bytes: live.reader.bytes };
        for (id, name) in read.namespaces {
            namespaces.insert(id, name);
        }
        let memtable = Arc::new(Memtable::with(expected, read.tables));
        all.firsts.insert(expected, first);
        (all.segment, all.offset, all.last) = (expected, read.offset, read.last);
        all.block_next = read.block_next;
        generation = read.generation;
        if at + 1 < count {
            version.frozen.push(Arc::clone(&memtable));
            let block_next = all.block_next;
            all.jobs.push(Job::Write { memtable, file: Some(file), block_next });
        } else {
            version.active = memtable;
            all.file = Some(file);
        }
    }
    Ok(all)
}

/// Reads segments, each in a thread of its own: a disk reads faster in several places.
fn read_all(live: Vec<Live>) -> Vec<(Live, Result<Segment, OpenError>)> {
    let ends: Vec<_> = live.iter().skip(1).map(|next| Some(next.header.block)).collect();
    let ends = ends.into_iter().chain([None]);
    for file in &live {
        file.reader.prefetch();
    }
    thread::scope(|scope| {
        let readers = live.into_iter().zip(ends).map(|(mut live, end)| {
            scope.spawn(move || {
                let read = Segment::read(&mut live, end);
                (live, read)
            })
        });
        let readers: Vec<_> = readers.collect();
        let joined = readers.into_iter().map(|reader| reader.join());
        joined.map(|read| read.expect("no reader panics")).collect()
    })
}

impl Replay {
    /// Refuses files that show that a segment has lost its beginning.
    pub(super) fn check_beheaded(&self, files: Vec<Beheaded>) -> Result<(), LogFault> {
        for Beheaded { segment, mut reader } in files {
            // The first block of the segment after the last one would have been the next.
            let first = self.firsts.get(&segment).copied().unwrap_or(self.block_next);
            let shows = |header: &BlockHeader| header.segment == segment && header.settled >= first;
            if let Some((_, header)) = reader.find_block(0, u64::MAX, shows)? {
                let what =
                    format!("segment {segment} is damaged, and block {} follows", header.block);
                return Err(damaged(&reader.name, 0, what));
            }
        }
        Ok(())
    }

    /// Returns the newest segment that has a block; refuses a store that has lost a later one.
    pub(super) fn begun(&self, manifest: &Manifest, options: &Options) -> Result<u64, LogFault> {
        let newest = if self.offset > 0 { self.segment } else { self.segment - 1 };
        let known = manifest.segment_begun;
        if known > newest {
            let path: Arc<str> = options.dir.display().to_string().into();
            let what = format!("segment {known} has no block, though the manifest knows of one");
            return Err(damaged(&path, 0, what));
        }
        Ok(newest)
    }

    /// Makes the end of the log durable before anyone reads it: writes again what may not be.
    ///
    /// A process that was killed, or whose write failed, may have left its last blocks in the page
    /// cache only; a sync would not help, for after a failed one the system takes the pages for
    /// written. If there is only the header of a first block that was cut short, it goes: the
    /// segment may begin again in another file.
    pub(super) fn settle(self, generation: u64) -> Result<(SegmentWriter, Vec<Job>), OpenError> {
        let mut writer = SegmentWriter::new(self.store, generation, self.segment, self.block_next);
        let Some(file) = self.file else { return Ok((writer, self.jobs)) };
        let write = |buffer: &mut PageBuffer, at| {
            let written = file.file.write_durable(buffer.pages(), at);
            written.map_err(|error| io_error("writing", &file.path, error))
        };
        if self.last.is_empty() {
            let mut buffer = PageBuffer::new(BLOCK_HEADER_BYTES);
            buffer.put(&[0; BLOCK_HEADER_BYTES]);
            write(&mut buffer, 0)?;
        }
        let settled = self.last.last().map_or(0, |(_, header, _)| header.settled);
        for (at, header, body) in self.last.iter().filter(|last| last.1.block > settled) {
            let mut buffer = PageBuffer::new(BLOCK_HEADER_BYTES + body.len());
            buffer.put(&header.encode(self.store));
            buffer.put(body);
            write(&mut buffer, *at)?;
        }
        drop(writer.begin(self.segment, file));
        writer.offset = self.offset;
        Ok((writer, self.jobs))
    }
}

/// What a segment gave.
#[derive(Debug, Default)]
struct Segment {
    tables: Tables,
    namespaces: Vec<(u32, Namespace)>,
    block_next: u64,
    offset: u64,
    /// That of the newest block.
    generation: u64,
    /// The newest blocks, as many as may have been under way.
    last: Vec<Placed>,
}

impl Segment {
    /// Reads a segment up to the block `end`; the last segment up to where the log ends.
    fn read(live: &mut Live, end: Option<u64>) -> Result<Self, OpenError> {
        let segment = live.header.segment;
        let mut read = Self { block_next: live.header.block, ..Self::default() };
        while end != Some(read.block_next) {
            let expected = read.block_next;
            match live.reader.block_at(read.offset)? {
                BlockAt::Block(header, body)
                    if header.segment == segment
                        && header.block == expected
                        && header.generation >= read.generation =>
                {
                    if !read.apply(&header, &body) {
                        let what = "a record is malformed";
                        return Err(damaged(&live.reader.name, read.offset, what).into());
                    }
                    read.take(header, body);
                }
                BlockAt::Version(found) => {
                    let path = live.path.clone();
                    return Err(OpenError::Version { path, found, known: VERSION });
                }
                _ => {
                    read.check_tail(&mut live.reader, segment, end)?;
                    break;
                }
            }
        }
        Ok(read)
    }

    fn take(&mut self, header: BlockHeader, body: Bytes) {
        if self.last.len() == BLOCKS_IN_FLIGHT_MAX {
            drop(self.last.remove(0));
        }
        self.last.push((self.offset, header, body));
        self.offset = SegmentReader::after(self.offset, &header);
        self.block_next += 1;
        self.generation = header.generation;
    }

    /// Accepts the end of what can be read as the end of the log, or says that it is damaged.
    fn check_tail(
        &self,
        reader: &mut SegmentReader,
        segment: u64,
        end: Option<u64>,
    ) -> Result<(), LogFault> {
        let expected = self.block_next;
        if end.is_some() {
            let what = format!("block {expected} is damaged, and a later segment was written");
            return Err(damaged(&reader.name, self.offset, what));
        }
        if let Some(header) = shows_damage(reader, self.offset, segment, expected)? {
            let what = match header.block {
                block if block == expected => format!("the file ends within block {expected}"),
                block => format!("block {expected} is damaged, and block {block} follows"),
            };
            return Err(damaged(&reader.name, self.offset, what));
        }
        Ok(())
    }

    /// Puts the records of a block into the tables. Returns whether they are well-formed.
    fn apply(&mut self, header: &BlockHeader, body: &Bytes) -> bool {
        let mut at = 0;
        for _ in 0..header.records {
            let Some(record) = record_at(body, &mut at) else { return false };
            let of = record.key.of;
            match record.kind {
                Kind::Namespace => {
                    let name = std::str::from_utf8(&record.payload).ok();
                    let Some(name) = name.and_then(|name| Namespace::new(name).ok()) else {
                        return false;
                    };
                    self.namespaces.push((of.namespace, name));
                }
                Kind::State => {
                    let Some(state) = SessionState::decode(&record.payload) else { return false };
                    let _place = self.tables.state(of, state);
                }
                Kind::Snapshot => self.tables.snapshot(of, record.key.seq, record.payload),
                Kind::Entry => self.tables.entry(of, record.key.seq, record.payload),
            }
        }
        at == body.len()
    }
}

/// Returns the header of a block which shows that one that cannot be read, and is to stand at
/// `from`, is damaged: a later one that was made when it was durable, or its own if the file ends
/// within it, as a block is written only where it fits. One that was under way together with it
/// does not.
pub(super) fn shows_damage(
    reader: &mut SegmentReader,
    from: u64,
    segment: u64,
    block: u64,
) -> Result<Option<BlockHeader>, LogFault> {
    let own = |header: &BlockHeader| header.segment == segment && header.block == block;
    if let BlockAt::Torn(header) = reader.block_at(from)?
        && own(&header)
        && SegmentReader::after(from, &header) > reader.bytes
    {
        return Ok(Some(header));
    }
    let shows = |header: &BlockHeader| header.segment == segment && header.settled >= block;
    Ok(reader.find_block(from, u64::MAX, shows)?.map(|(_, header)| header))
}
