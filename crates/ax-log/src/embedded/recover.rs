//! Opens a data directory: finds out what belongs to the store and replays what no run covers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::cache::BlockCache;
use super::disk::{Held, LockError, PageBuffer};
use super::format::{
    BLOCK_HEADER_BYTES, BlockHeader, Found, Kind, SessionState, VERSION, damaged, record_at,
};
use super::manifest::Manifest;
use super::memtable::{Memtable, Tables};
use super::run::{self, Run};
use super::run_loop::{Job, SPARE_COUNT_MAX};
use super::segment::{self, BlockAt, SegmentFile, SegmentReader, SegmentWriter};
use super::shared::{Namespaces, Recovered, Shared};
use super::version::Version;
use super::{OpenError, Options, fsck, io_error};
use crate::types::LogFault;

/// How much of the command line goes into the lock file, in characters.
const COMMAND_CHARS_MAX: usize = 200;

/// What an opening gives: the state of the log, and what its loops begin with.
pub(super) type Opened = (Arc<Shared>, SegmentWriter, Vec<Job>);

/// A file with a segment that no run covers.
struct Live {
    header: BlockHeader,
    path: PathBuf,
    reader: SegmentReader,
}

/// Opens a store, or makes one.
pub(super) fn open(options: &Options) -> Result<Opened, OpenError> {
    let disk = &*options.disk;
    let dir = &options.dir;
    disk.create_dir(dir).map_err(|error| io_error("making", dir, error))?;
    let lock = lock(options)?;
    fsck::refuse_half_repaired(disk, dir)?;
    let names = disk.list(dir).map_err(|error| io_error("listing", dir, error))?;
    let mut manifest = match Manifest::read(disk, dir)? {
        Some(manifest) => manifest,
        None => new_manifest(options, &names)?,
    };
    let cache = Arc::new(BlockCache::new(options.limits.index_cache_bytes_max));
    let runs = open_runs(options, &manifest, &cache)?;
    let (live, unused, file_next) = segments(options, &manifest, &names)?;
    let mut namespaces = Namespaces::default();
    for (id, name) in &manifest.namespaces {
        namespaces.insert(*id, name.clone());
    }
    let active = Arc::new(Memtable::new(manifest.replay_segment));
    let mut version = Version { runs, frozen: Vec::new(), active };
    manifest.generation += 1;
    manifest.write(disk, dir).map_err(|error| full_or("writing", options, error))?;
    // Only now is what the manifest said durable, if the process before this one was killed.
    let spares = keep_spares(options, unused)?;
    remove_leftovers(options, &manifest, &names);
    let (writer, jobs) = replay(options, &manifest, live, &mut version, &mut namespaces)?;
    let recovered = Recovered {
        cache,
        version,
        manifest,
        namespaces,
        spares,
        file_next,
        segment_bytes: writer.file.as_ref().map_or(0, |file| file.bytes),
        lock,
    };
    Ok((Arc::new(Shared::new(options, recovered)), writer, jobs))
}

fn lock(options: &Options) -> Result<Box<dyn Held>, OpenError> {
    let path = options.dir.join("LOCK");
    let command = std::env::args().collect::<Vec<_>>().join(" ");
    let command: String = command.chars().take(COMMAND_CHARS_MAX).collect();
    let holder = format!("process {} ({command})", std::process::id());
    options.disk.lock(&path, &holder).map_err(|error| match error {
        LockError::Held { holder } => OpenError::Locked { dir: options.dir.clone(), holder },
        LockError::Io(error) => io_error("locking", &path, error),
    })
}

fn full_or(action: &'static str, options: &Options, error: std::io::Error) -> OpenError {
    match error.kind() {
        std::io::ErrorKind::StorageFull => OpenError::Full { dir: options.dir.clone() },
        _ => io_error(action, &Manifest::path(&options.dir), error),
    }
}

/// Makes the manifest of a new store, if there is nothing that an old one should have named.
fn new_manifest(options: &Options, names: &[String]) -> Result<Manifest, OpenError> {
    let ours = |name: &String| run::id_of(name).is_some() || segment::number_of(name).is_some();
    if names.iter().any(ours) {
        return Err(OpenError::Damaged {
            path: Manifest::path(&options.dir).display().to_string().into(),
            offset: 0,
            what: "the manifest is missing, but there are segments or runs".into(),
        });
    }
    Ok(Manifest::new(options.store.unwrap_or_else(drawn)))
}

/// Draws the number of a new store. Payloads that imitate blocks would have to know it.
fn drawn() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    RandomState::new().build_hasher().finish()
}

fn open_runs(
    options: &Options,
    manifest: &Manifest,
    cache: &Arc<BlockCache>,
) -> Result<Vec<Arc<Run>>, OpenError> {
    let mut runs = Vec::new();
    for entry in &manifest.runs {
        let path = run::path(&options.dir, entry.id);
        let run = Run::open(&*options.disk, path.clone(), manifest.store, cache)?;
        if run.entry != *entry {
            return Err(OpenError::Damaged {
                path: path.display().to_string().into(),
                offset: 0,
                what: "it is not the run that the manifest names".into(),
            });
        }
        runs.push(Arc::new(run));
    }
    Ok(runs)
}

/// A file with nothing in it that has to be replayed, and its length in bytes.
type Unused = (PathBuf, u64);

/// Returns the segments to replay in their order, the other files, and the next free file number.
fn segments(
    options: &Options,
    manifest: &Manifest,
    names: &[String],
) -> Result<(Vec<Live>, Vec<Unused>, u64), OpenError> {
    let disk = &*options.disk;
    let mut live = BTreeMap::new();
    let mut unused = Vec::new();
    let mut file_next = 1;
    let counts = |header: &BlockHeader| header.segment >= manifest.replay_segment;
    for name in names {
        let Some(number) = segment::number_of(name) else { continue };
        file_next = file_next.max(number + 1);
        let path = segment::path(&options.dir, number);
        let file = disk.open(&path).map_err(|error| io_error("opening", &path, error))?;
        let mut reader = SegmentReader::new(manifest.store, &path, file)?;
        let name = Arc::clone(&reader.name);
        match reader.first_header()? {
            Found::Version(found) => {
                return Err(OpenError::Version { path, found, known: VERSION });
            }
            Found::Block(header) if counts(&header) => {
                let twin = live.insert(header.segment, Live { header, path, reader });
                if twin.is_some() {
                    return Err(damaged(&name, 0, "another file has the same segment").into());
                }
            }
            Found::Block(_) | Found::Nothing => {
                // A segment that lost its beginning is no file to write another one into.
                if let Some((_, header)) = reader.find_block(0, segment::BEGINNING_BYTES, counts)? {
                    let BlockHeader { segment, block, .. } = header;
                    let what = format!("segment {segment} is damaged, and block {block} follows");
                    return Err(damaged(&name, 0, what).into());
                }
                unused.push((path, reader.bytes));
            }
        }
    }
    Ok((live.into_values().collect(), unused, file_next))
}

/// Keeps files for segments to come and removes the others.
fn keep_spares(options: &Options, mut unused: Vec<Unused>) -> Result<Vec<SegmentFile>, OpenError> {
    let disk = &*options.disk;
    unused.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let mut kept = Vec::new();
    for (path, bytes) in unused {
        // A file that was not filled with zeros to its end is of no use; nor is one too many.
        if kept.len() < SPARE_COUNT_MAX && bytes >= options.limits.segment_bytes_min {
            let file = disk.open_durable(&path);
            let file = file.map_err(|error| io_error("opening", &path, error))?;
            kept.push(SegmentFile { path, file, bytes });
        } else {
            drop(disk.remove(&path));
        }
    }
    Ok(kept)
}

fn remove_leftovers(options: &Options, manifest: &Manifest, names: &[String]) {
    for name in names {
        let leftover =
            run::id_of(name).is_some_and(|id| manifest.runs.iter().all(|entry| entry.id != id));
        if leftover {
            // It was being written, or was merged; a file that stays is found again next time.
            drop(options.disk.remove(&options.dir.join(name)));
        }
    }
}

/// Replays segments into memtables; the last one goes on being written.
fn replay(
    options: &Options,
    manifest: &Manifest,
    live: Vec<Live>,
    version: &mut Version,
    namespaces: &mut Namespaces,
) -> Result<(SegmentWriter, Vec<Job>), OpenError> {
    let Manifest { store, generation, replay_segment, replay_block, .. } = *manifest;
    let mut writer = SegmentWriter::new(store, generation, replay_segment, replay_block);
    let mut jobs = Vec::new();
    let mut generation_least = 0;
    let ends: Vec<_> = live.iter().skip(1).map(|next| Some(next.header.block)).collect();
    let live = live.into_iter().zip(ends.into_iter().chain([None]));
    for ((mut live, end), expected) in live.zip(replay_segment..) {
        if live.header.segment != expected {
            let what = format!("segment {expected} before it is missing");
            return Err(damaged(&live.reader.name, 0, what).into());
        }
        let mut replayed = Replayed { generation: generation_least, ..Replayed::default() };
        let from = writer.block_next;
        replay_segment_file(&mut live, from, end, namespaces, &mut replayed)?;
        let file = options.disk.open_durable(&live.path);
        let file = file.map_err(|error| io_error("opening", &live.path, error))?;
        let file = SegmentFile { path: live.path, file, bytes: live.reader.bytes };
        let memtable = Arc::new(Memtable::with(expected, replayed.tables));
        writer.block_next += replayed.blocks;
        generation_least = replayed.generation;
        if end.is_some() {
            let block_next = writer.block_next;
            version.frozen.push(Arc::clone(&memtable));
            jobs.push(Job::Write { memtable, file: Some(file), block_next });
        } else {
            version.active = memtable;
            settle(&file, store, replayed.last)?;
            drop(writer.begin(expected, file));
            writer.offset = replayed.offset;
        }
    }
    Ok((writer, jobs))
}

/// What a segment gave.
#[derive(Debug, Default)]
struct Replayed {
    tables: Tables,
    blocks: u64,
    offset: u64,
    /// That of the newest block.
    generation: u64,
    /// The newest block of this segment and where it stands.
    last: Option<(u64, BlockHeader, Bytes)>,
}

/// Replays one segment up to the block before `end`; the last segment up to its torn tail.
fn replay_segment_file(
    live: &mut Live,
    from: u64,
    end: Option<u64>,
    namespaces: &mut Namespaces,
    into: &mut Replayed,
) -> Result<(), OpenError> {
    let name = Arc::clone(&live.reader.name);
    while end != Some(from + into.blocks) {
        let expected = from + into.blocks;
        match live.reader.block_at(into.offset)? {
            BlockAt::Block(header, body)
                if header.segment == live.header.segment && header.block == expected =>
            {
                if header.generation < into.generation {
                    let what = format!("block {expected} is older than the one before it");
                    return Err(damaged(&name, into.offset, what).into());
                }
                if !apply(&header, &body, namespaces, &mut into.tables) {
                    return Err(damaged(&name, into.offset, "a record is malformed").into());
                }
                let at = into.offset;
                into.offset = SegmentReader::after(at, &header);
                into.blocks += 1;
                into.generation = header.generation;
                into.last = Some((at, header, body));
            }
            BlockAt::Version(found) => {
                return Err(OpenError::Version { path: live.path.clone(), found, known: VERSION });
            }
            _ => {
                tail(live, into.offset, expected, end)?;
                break;
            }
        }
    }
    Ok(())
}

/// Makes the end of the log durable before anyone reads it: writes its last block again.
///
/// A process that was killed, or whose write failed, may have left it in the page cache only; a
/// sync would not help, for after a failed one the system takes the pages for written. If there is
/// only the header of a first block that was cut short, it goes: the segment may begin again in
/// another file.
fn settle(
    file: &SegmentFile,
    store: u64,
    last: Option<(u64, BlockHeader, Bytes)>,
) -> Result<(), OpenError> {
    let mut buffer = PageBuffer::new(BLOCK_HEADER_BYTES);
    let mut at = 0;
    if let Some((offset, header, body)) = last {
        buffer = PageBuffer::new(BLOCK_HEADER_BYTES + body.len());
        buffer.put(&header.encode(store));
        buffer.put(&body);
        at = offset;
    } else {
        buffer.put(&[0; BLOCK_HEADER_BYTES]);
    }
    let written = file.file.write_durable(buffer.pages(), at);
    written.map_err(|error| io_error("writing", &file.path, error))
}

/// Accepts the end of what can be read as the tail of the log, or says that it is damaged: a write
/// that was cut short can only be the last one.
fn tail(live: &mut Live, at: u64, expected: u64, end: Option<u64>) -> Result<(), LogFault> {
    let name = Arc::clone(&live.reader.name);
    if end.is_some() {
        let what = format!("block {expected} is damaged, and a later segment was written");
        return Err(damaged(&name, at, what));
    }
    let segment = live.header.segment;
    let later = |header: &BlockHeader| header.segment == segment && header.block > expected;
    if let Some((_, header)) = live.reader.find_block(at, u64::MAX, later)? {
        let what = format!("block {expected} is damaged, and block {} follows", header.block);
        return Err(damaged(&name, at, what));
    }
    Ok(())
}

/// Puts the records of a block into the tables. Returns whether they are well-formed.
fn apply(
    header: &BlockHeader,
    body: &Bytes,
    namespaces: &mut Namespaces,
    tables: &mut Tables,
) -> bool {
    let mut at = 0;
    for _ in 0..header.records {
        let Some(record) = record_at(body, &mut at) else { return false };
        let of = record.key.of;
        match record.kind {
            Kind::Namespace => {
                let name = std::str::from_utf8(&record.payload).ok();
                let name = name.and_then(|name| ax_core::id::Namespace::new(name).ok());
                let Some(name) = name else { return false };
                namespaces.insert(of.namespace, name);
            }
            Kind::State => {
                let Some(state) = SessionState::decode(&record.payload) else { return false };
                tables.state(of, state);
            }
            Kind::Snapshot => tables.snapshot(of, record.key.seq, record.payload),
            Kind::Entry => tables.entry(of, record.key.seq, record.payload),
        }
    }
    at == body.len()
}
