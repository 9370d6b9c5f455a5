//! The loop that turns full segments into runs, at the pace at which the next one fills.

use std::io;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;

use super::format::{Key, SessionRef, SessionState, u64_of};
use super::memtable::{Memtable, SessionTable};
use super::run::{self, Covers, PIECE_BYTES, Run, RunWriter};
use super::segment::SegmentFile;
use super::shared::Shared;
use super::{OpenError, is_full};
use crate::types::LogFault;

/// How long a piece waits for the segment to fill, at most, in steps of [`PACE_STEP`].
const PACE_STEPS_MAX: u32 = 4;
const PACE_STEP: Duration = Duration::from_millis(1);
/// How long to wait before trying again on a full disk.
const FULL_WAIT: Duration = Duration::from_millis(500);
/// How many sessions are taken from a memtable at once.
const CHUNK_COUNT: usize = 64;
/// How many files are kept for segments to come.
pub(super) const SPARE_COUNT_MAX: usize = 2;

/// Work for the loop.
#[derive(Debug)]
pub(super) enum Job {
    /// Write a frozen memtable as a run; then its segment's file is free.
    Write { memtable: Arc<Memtable>, file: Option<SegmentFile>, block_next: u64 },
    /// Remove files that belong to nothing.
    Remove { paths: Vec<PathBuf> },
    /// See that there is a spare file of this length.
    Spare { bytes: u64 },
}

/// Why a run was not written.
#[derive(Debug)]
pub(super) enum Failed {
    /// The disk is full; it may be tried again.
    Full,
    /// The log is being closed.
    Stopping,
    /// What is to be written cannot be read.
    Unreadable(LogFault),
    /// A write or a sync failed.
    Io(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        if is_full(&error) { Self::Full } else { Self::Io(error) }
    }
}

impl From<OpenError> for Failed {
    fn from(error: OpenError) -> Self {
        Self::Io(io::Error::other(error.to_string()))
    }
}

/// Serves jobs until the committer is gone.
pub(super) async fn run(
    shared: Arc<Shared>,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    merges: mpsc::UnboundedSender<()>,
) {
    while let Some(job) = jobs.recv().await {
        let tried = match job {
            Job::Write { memtable, file, block_next } => {
                let written = write(&shared, &memtable, block_next, file).await;
                if written.is_ok() {
                    let _gone = merges.send(());
                }
                written
            }
            Job::Remove { paths } => {
                for path in paths {
                    // One that stays is found again at the next opening.
                    drop(shared.disk.remove(&path));
                }
                Ok(())
            }
            Job::Spare { bytes } => prepare(&shared, bytes),
        };
        let error = match tried {
            Ok(()) | Err(Failed::Full) => continue,
            Err(Failed::Stopping) => return,
            // Without this run there is no room for more.
            Err(Failed::Unreadable(fault)) => io::Error::other(fault.to_string()),
            Err(Failed::Io(error)) => error,
        };
        let _fault = shared.poison("writing a run failed", &error);
        shared.progress.send_modify(|progress| progress.rounds += 1);
        return;
    }
}

/// Writes a memtable as a run, and goes on trying while the disk is full.
async fn write(
    shared: &Arc<Shared>,
    memtable: &Memtable,
    block_next: u64,
    mut file: Option<SegmentFile>,
) -> Result<(), Failed> {
    let mut made = None;
    loop {
        if shared.is_stopping() {
            return Err(Failed::Stopping);
        }
        let written = write_once(shared, memtable, block_next, &mut made).await;
        let full = matches!(written, Err(Failed::Full));
        if written.is_ok() {
            // Before the committer gets to know, which may be waiting for a file.
            recycle(shared, file.take());
        }
        shared.progress.send_modify(|progress| {
            progress.rounds += 1;
            progress.full = full;
        });
        if !full {
            return written;
        }
        tracing::warn!(dir = %shared.name, "no space is left to write a run");
        tokio::time::sleep(FULL_WAIT).await;
    }
}

/// Makes the run unless that was done before, and publishes it.
async fn write_once(
    shared: &Shared,
    memtable: &Memtable,
    block_next: u64,
    made: &mut Option<Arc<Run>>,
) -> Result<(), Failed> {
    let run = match made {
        Some(run) => Arc::clone(run),
        None => {
            let id = shared.run_next();
            let run = make(shared, memtable, block_next, id).await;
            if run.is_err() {
                // What is left of it belongs to nothing and goes at the next opening at the latest.
                drop(shared.disk.remove(&run::path(&shared.dir, id)));
            }
            Arc::clone(made.insert(Arc::new(run?)))
        }
    };
    publish(shared, memtable.segment, block_next, run)
}

async fn make(
    shared: &Shared,
    memtable: &Memtable,
    block_next: u64,
    id: u64,
) -> Result<Run, Failed> {
    let path = run::path(&shared.dir, id);
    let block_bytes = shared.limits.run_block_bytes;
    let mut writer = RunWriter::create(&*shared.disk, &path, (shared.store, id), block_bytes)?;
    let mut pace = Pace::new(shared);
    let mut after = Bound::Unbounded;
    loop {
        let chunk = memtable.chunk(after, CHUNK_COUNT);
        let Some((last, _)) = chunk.last() else { break };
        after = Bound::Excluded(*last);
        for (of, table) in &chunk {
            put_session(shared, &mut writer, &mut pace, (memtable, *of, table)).await?;
        }
    }
    let segment = memtable.segment;
    let generation = shared.generation;
    let covers = Covers { segment_first: segment, segment_last: segment, block_next, generation };
    writer.finish(covers)?;
    shared.sync_dir()?;
    Ok(Run::open(&*shared.disk, path, shared.store, &shared.cache)?)
}

/// Puts a run in the place of a segment and its memtable. On an error the manifest on disk may name
/// the run already, so its file stays: the next opening removes it if it is not named.
fn publish(shared: &Shared, segment: u64, block_next: u64, run: Arc<Run>) -> Result<(), Failed> {
    shared.change_manifest(|manifest| {
        manifest.runs.push(run.entry);
        manifest.replay_segment = segment + 1;
        manifest.replay_block = block_next;
    })?;
    shared.change(|version| {
        let oldest = version.frozen.remove(0);
        assert!(oldest.segment == segment, "memtables become runs in their order");
        version.runs.push(run);
    });
    Ok(())
}

async fn put_session(
    shared: &Shared,
    writer: &mut RunWriter,
    pace: &mut Pace<'_>,
    (memtable, of, table): (&Memtable, SessionRef, &SessionTable),
) -> Result<(), Failed> {
    let mut state = table.state.clone();
    if !table.whole {
        let older = shared.version().state_before(memtable, of);
        let older = older.map_err(Failed::Unreadable)?;
        state = SessionState { last: state.last, ..older.unwrap_or(state) };
    }
    put_state(shared, writer, of, &state);
    for (at, data) in &table.snapshots {
        if state.keeps_snapshot(*at) {
            writer.snapshot(Key { of, seq: *at }, data);
        }
        pace.write(writer).await?;
    }
    for (payload, seq) in table.entries.iter().zip(table.first..) {
        if state.keeps_entry(seq) {
            writer.entry(Key { of, seq }, payload);
        }
        pace.write(writer).await?;
    }
    pace.write(writer).await
}

/// Adds the state of a session to a run.
pub(super) fn put_state(
    shared: &Shared,
    writer: &mut RunWriter,
    of: SessionRef,
    state: &SessionState,
) {
    let namespaces = shared.namespaces.read().expect("no holder of the lock panics");
    let name = namespaces.names.get(&of.namespace).map_or("", |name| name.as_str());
    writer.state(of, name, state);
}

/// Keeps the writing of a run from crowding out commits: its pieces follow what is committed.
#[derive(Debug)]
pub(super) struct Pace<'a> {
    shared: &'a Shared,
    committed_before: u64,
    written: u64,
}

impl<'a> Pace<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        let committed_before = shared.committed_bytes.load(Ordering::Relaxed);
        Self { shared, committed_before, written: 0 }
    }

    /// Hands a piece to the disk when there is one, in its turn.
    pub(super) async fn write(&mut self, writer: &mut RunWriter) -> Result<(), Failed> {
        let bytes = writer.pending_bytes();
        if bytes < PIECE_BYTES {
            return Ok(());
        }
        writer.write_out()?;
        self.written += u64_of(bytes);
        for _ in 0..PACE_STEPS_MAX {
            if self.shared.is_stopping() {
                return Err(Failed::Stopping);
            }
            let committed = self.shared.committed_bytes.load(Ordering::Relaxed);
            let ahead = self.written > 2 * (committed - self.committed_before);
            if !ahead || self.shared.hurry.load(Ordering::Relaxed) {
                break;
            }
            tokio::time::sleep(PACE_STEP).await;
        }
        Ok(())
    }
}

/// Keeps the file of a segment that a run covers for a segment to come, or removes it.
fn recycle(shared: &Shared, file: Option<SegmentFile>) {
    let Some(file) = file else { return };
    let mut spares = shared.spares.lock().expect("no holder of the lock panics");
    let short = |bytes| bytes < shared.segment_bytes.load(Ordering::Relaxed);
    let (keep, drop_now): (Vec<_>, Vec<_>) =
        spares.drain(..).chain([file]).partition(|spare| !short(spare.bytes));
    *spares = keep;
    let extra = spares.len().min(SPARE_COUNT_MAX);
    let surplus = spares.split_off(extra);
    for file in drop_now.into_iter().chain(surplus) {
        // A file that stays is found again at the next opening.
        drop(shared.disk.remove(&file.path));
    }
}

fn prepare(shared: &Shared, bytes: u64) -> Result<(), Failed> {
    let enough = |spare: &SegmentFile| spare.bytes >= bytes;
    if shared.spares.lock().expect("no holder of the lock panics").iter().any(enough) {
        return Ok(());
    }
    let spare = shared.preallocate(bytes)?;
    shared.spares.lock().expect("no holder of the lock panics").push(spare);
    Ok(())
}
