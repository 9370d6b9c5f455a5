//! The loop that merges runs of about the same size into a larger one, and reclaims what is
//! deleted or cut away and not shared.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::format::{Key, SessionRef, SessionState, damaged};
use super::is_full;
use super::manifest::RunEntry;
use super::run::{self, Covers, Merged, PIECE_BYTES, Run, RunWriter, Section};
use super::run_loop::{Failed, put_state};
use super::shared::Shared;

/// How long the merging rests after each piece.
const REST: Duration = Duration::from_millis(1);
const START: Key = Key { of: SessionRef { namespace: 0, session: 0 }, seq: 0 };

/// Merges whenever a run was added, until the run writer is gone.
pub(super) async fn run(shared: Arc<Shared>, mut added: mpsc::UnboundedReceiver<()>) {
    while added.recv().await.is_some() {
        while let Some(range) = pick(&shared) {
            match merge(&shared, range).await {
                Ok(()) => {}
                Err(Failed::Stopping) => return,
                Err(failed @ (Failed::Full | Failed::Unreadable(_))) => {
                    // Nothing is lost by not merging; it is tried again after the next run.
                    tracing::warn!(dir = %shared.name, ?failed, "merging runs failed");
                    break;
                }
                Err(Failed::Io(error)) => {
                    let _fault = shared.poison("merging runs failed", &error);
                    return;
                }
            }
        }
    }
}

fn pick(shared: &Shared) -> Option<Range<usize>> {
    let version = shared.version();
    let sizes: Vec<_> = version.runs.iter().map(|run| run.entry.bytes).collect();
    choose(&sizes, shared.limits.segment_bytes_max, shared.limits.runs_per_tier_max)
}

/// Returns which of the runs, given by their lengths, oldest first, are to be merged: when a tier
/// has too many, its runs and the smaller ones after them. A tier is `count_max` times the one
/// below.
pub(super) fn choose(sizes: &[u64], unit: u64, count_max: usize) -> Option<Range<usize>> {
    let count_max = count_max.max(2);
    // A run is a little longer than its segment.
    let (mut low, mut high) = (0, unit + unit / 2);
    loop {
        let small = sizes.iter().rev().take_while(|bytes| **bytes < high).count();
        let range = sizes.len() - small..sizes.len();
        let in_tier = sizes[range.clone()].iter().filter(|bytes| **bytes >= low).count();
        if in_tier >= count_max {
            return Some(range);
        }
        if small == sizes.len() {
            return None;
        }
        (low, high) = (high, high.saturating_mul(count_max as u64));
    }
}

async fn merge(shared: &Arc<Shared>, range: Range<usize>) -> Result<(), Failed> {
    let runs = shared.version().runs[range].to_vec();
    let id = shared.run_next();
    let path = run::path(&shared.dir, id);
    let block_bytes = shared.limits.run_block_bytes;
    let writer = RunWriter::create(&*shared.disk, &path, (shared.store, id), block_bytes)?;
    let merged = write(shared, writer, &runs).await;
    let merged = merged.and_then(|()| {
        shared.sync_dir()?;
        Ok(Run::open(&*shared.disk, path.clone(), shared.store, &shared.cache)?)
    });
    let merged = match merged {
        Ok(run) => Arc::new(run),
        Err(failed) => {
            drop(shared.disk.remove(&path));
            return Err(failed);
        }
    };
    publish(shared, &runs, &merged)
}

fn publish(shared: &Shared, old: &[Arc<Run>], new: &Arc<Run>) -> Result<(), Failed> {
    let replaced = |entry: &RunEntry| old.iter().any(|run| run.entry.id == entry.id);
    let changed = shared.change_manifest(|manifest| {
        let at = manifest.runs.iter().position(replaced).unwrap_or(0);
        manifest.runs.retain(|entry| !replaced(entry));
        manifest.runs.insert(at, new.entry);
    });
    if let Err(error) = changed {
        if is_full(&error) {
            drop(shared.disk.remove(&new.path));
            return Err(Failed::Full);
        }
        // Which of the two manifests is on disk is not known, so both lists of runs stay.
        return Err(Failed::Io(error));
    }
    shared.change(|version| {
        let at = version.runs.iter().position(|run| replaced(&run.entry)).unwrap_or(0);
        version.runs.retain(|run| !replaced(&run.entry));
        version.runs.insert(at, Arc::clone(new));
    });
    for run in old {
        shared.cache.forget(run.entry.id);
        drop(shared.disk.remove(&run.path));
    }
    Ok(())
}

async fn write(shared: &Shared, mut writer: RunWriter, runs: &[Arc<Run>]) -> Result<(), Failed> {
    let section = |section| Merged::seek(runs, section, START).map_err(Failed::Unreadable);
    let mut states = section(Section::States)?;
    let mut snapshots = section(Section::Snapshots)?;
    let mut entries = section(Section::Entries)?;
    while let Some(record) = states.next().map_err(Failed::Unreadable)? {
        let state = SessionState::decode(&record.payload);
        let malformed = || damaged(&shared.name, 0, "the state of a session is malformed");
        let state = state.ok_or_else(malformed).map_err(Failed::Unreadable)?;
        let of = record.key.of;
        put_state(shared, &mut writer, of, &state);
        while snapshots.key().is_some_and(|key| key.of <= of) {
            let Some(record) = snapshots.next().map_err(Failed::Unreadable)? else { break };
            if state.keeps_snapshot(record.key.seq) {
                writer.snapshot(record.key, &record.payload);
            }
            rest(shared, &mut writer).await?;
        }
        while entries.key().is_some_and(|key| key.of <= of) {
            let Some(record) = entries.next().map_err(Failed::Unreadable)? else { break };
            if state.keeps_entry(record.key.seq) {
                writer.entry(record.key, &record.payload);
            }
            rest(shared, &mut writer).await?;
        }
        rest(shared, &mut writer).await?;
    }
    let first = runs.first().map_or(0, |run| run.entry.segment_first);
    let last = runs.last();
    let covers = Covers {
        segment_first: first,
        segment_last: last.map_or(0, |run| run.entry.segment_last),
        block_next: last.map_or(0, |run| run.block_next),
        generation: shared.generation,
    };
    writer.finish(covers)?;
    Ok(())
}

/// Hands a piece to the disk when there is one, and lets others have the disk.
async fn rest(shared: &Shared, writer: &mut RunWriter) -> Result<(), Failed> {
    if writer.pending_bytes() < PIECE_BYTES {
        return Ok(());
    }
    writer.write_out()?;
    if shared.is_stopping() {
        return Err(Failed::Stopping);
    }
    tokio::time::sleep(REST).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::choose;

    #[test]
    fn runs_are_merged_when_a_tier_is_full() {
        assert_eq!(choose(&[], 10, 3), None);
        assert_eq!(choose(&[10, 10], 10, 3), None);
        assert_eq!(choose(&[10, 2, 10], 10, 3), Some(0..3));
        assert_eq!(
            choose(&[30, 10, 10], 10, 3),
            None,
            "a large run is not moved for few small ones"
        );
        assert_eq!(choose(&[30, 30, 10, 30, 10], 10, 3), Some(0..5));
        assert_eq!(choose(&[300, 10, 10], 10, 3), None);
        assert_eq!(choose(&[300, 10, 10, 10], 10, 3), Some(1..4));
        assert_eq!(choose(&[300, 30, 30, 10, 10, 10], 10, 3), Some(3..6));
    }
}
