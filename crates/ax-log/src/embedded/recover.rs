//! Opens a data directory: finds out what belongs to the store, and has what no run covers
//! replayed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::cache::BlockCache;
use super::disk::{Held, LockError, make_dir};
use super::format::{BlockHeader, Found, VERSION, damaged};
use super::manifest::Manifest;
use super::memtable::Memtable;
use super::replay::{self, Beheaded, Live};
use super::run::{self, Run};
use super::run_loop::{Job, SPARE_COUNT_MAX};
use super::segment::{self, SegmentFile, SegmentReader, SegmentWriter};
use super::shared::{Namespaces, Recovered, Shared};
use super::version::Version;
use super::{OpenError, Options, fsck, io_error, is_full};

/// How much of the command line goes into the lock file, in characters.
const COMMAND_CHARS_MAX: usize = 200;

/// What an opening gives: the state of the log, and what its loops begin with.
pub(super) type Opened = (Arc<Shared>, SegmentWriter, Vec<Job>);

/// Opens a store, or makes one.
pub(super) fn open(options: &Options) -> Result<Opened, OpenError> {
    let disk = &*options.disk;
    let dir = &options.dir;
    make_dir(disk, dir).map_err(|error| io_error("making", dir, error))?;
    let lock = lock(options)?;
    fsck::refuse_half_repaired(disk, dir)?;
    let names = disk.list(dir).map_err(|error| io_error("listing", dir, error))?;
    let mut manifest = match Manifest::read(disk, dir)? {
        Some(manifest) => manifest,
        None => new_manifest(options, &names)?,
    };
    let cache = Arc::new(BlockCache::new(options.limits.index_cache_bytes_max));
    let runs = open_runs(options, &manifest, &cache)?;
    let Files { live, beheaded, mut unused, file_next } = files(options, &manifest, &names)?;
    let mut namespaces = Namespaces::default();
    for (id, name) in &manifest.namespaces {
        namespaces.insert(*id, name.clone());
    }
    let active = Arc::new(Memtable::new(manifest.replay_segment));
    let mut version = Version { runs, frozen: Vec::new(), active };
    let replayed = replay::replay(options, &manifest, live, &mut version, &mut namespaces)?;
    replayed.check_beheaded(beheaded)?;
    manifest.generation += 1;
    manifest.segment_begun = replayed.begun(&manifest, options)?;
    write_manifest(options, &manifest, &mut unused)?;
    // Only now is what the manifest said durable, if the process before this one was killed.
    let spares = keep_spares(options, unused)?;
    let (writer, mut jobs) = replayed.settle(manifest.generation)?;
    // Before any run is made, for it may get the name of one of these.
    jobs.insert(0, Job::Remove { paths: leftovers(options, &manifest, &names) });
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

/// Writes the manifest. If the disk is full, a file for segments to come makes room for it.
fn write_manifest(
    options: &Options,
    manifest: &Manifest,
    unused: &mut Vec<Unused>,
) -> Result<(), OpenError> {
    let (disk, dir) = (&*options.disk, &options.dir);
    let mut written = manifest.write(disk, dir);
    if written.as_ref().is_err_and(is_full)
        && let Some((path, _)) = unused.pop()
    {
        // By the manifest that is there, which is durable then, nothing is in that file.
        let freed = disk.sync_dir(dir).and_then(|()| disk.remove(&path));
        written = freed.and_then(|()| manifest.write(disk, dir));
    }
    written.map_err(|error| full_or("writing", options, error))
}

fn full_or(action: &'static str, options: &Options, error: std::io::Error) -> OpenError {
    if is_full(&error) {
        return OpenError::Full { dir: options.dir.clone() };
    }
    io_error(action, &Manifest::path(&options.dir), error)
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

/// The files for segments.
#[derive(Default)]
struct Files {
    /// Those with a segment that is to be replayed.
    live: BTreeMap<u64, Live>,
    /// Those that have a block of such a segment, but not its first one.
    beheaded: Vec<Beheaded>,
    unused: Vec<Unused>,
    /// The next free number of a file.
    file_next: u64,
}

fn files(options: &Options, manifest: &Manifest, names: &[String]) -> Result<Files, OpenError> {
    let disk = &*options.disk;
    let mut files = Files { file_next: 1, ..Files::default() };
    let counts = |header: &BlockHeader| header.segment >= manifest.replay_segment;
    for name in names {
        let Some(number) = segment::number_of(name) else { continue };
        files.file_next = files.file_next.max(number + 1);
        let path = segment::path(&options.dir, number);
        let file = disk.open(&path).map_err(|error| io_error("opening", &path, error))?;
        let mut reader = SegmentReader::new(manifest.store, &path, file)?;
        let name = Arc::clone(&reader.name);
        match reader.first_header()? {
            Found::Version(found) => {
                return Err(OpenError::Version { path, found, known: VERSION });
            }
            Found::Block(header) if counts(&header) => {
                let twin = files.live.insert(header.segment, Live { header, path, reader });
                if twin.is_some() {
                    return Err(damaged(&name, 0, "another file has the same segment").into());
                }
            }
            Found::Block(_) | Found::Nothing => {
                let found = reader.find_block(0, segment::BEGINNING_BYTES, counts)?;
                files.unused.push((path, reader.bytes));
                if let Some((_, header)) = found {
                    files.beheaded.push(Beheaded { segment: header.segment, reader });
                }
            }
        }
    }
    Ok(files)
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

/// Returns the runs that do not belong to the store: they were being written, or were merged.
fn leftovers(options: &Options, manifest: &Manifest, names: &[String]) -> Vec<PathBuf> {
    let leftover = |name: &&String| {
        run::id_of(name).is_some_and(|id| manifest.runs.iter().all(|entry| entry.id != id))
    };
    names.iter().filter(leftover).map(|name| options.dir.join(name)).collect()
}
