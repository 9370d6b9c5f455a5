//! How the committer goes on in another segment.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::committer::Committer;
use super::memtable::Memtable;
use super::run_loop::Job;
use super::segment::SegmentFile;
use super::shared::Shared;
use super::{FROZEN_COUNT_MAX, SEGMENT_GROWTH, is_full};
use crate::types::LogFault;

impl Committer {
    /// Whether a block of so many bytes goes into the segment that is being written.
    pub(super) fn has_place(&self, bytes: u64) -> bool {
        let heavy = self.shared.version().active.read().bytes;
        self.writer.fits(bytes) && heavy <= self.shared.limits.memtable_bytes_max
    }

    /// Goes on in another segment that has room for a block of so many bytes. Nothing is being
    /// written, and another memtable may be frozen.
    pub(super) fn rotate(&mut self, need: u64) -> Result<(), LogFault> {
        let used = self.writer.offset > 0;
        let before = self.writer.file.as_ref().map_or(0, |file| file.bytes);
        let target = self.segment_bytes_next(before);
        let file = match self.shared.spare(need.max(before)) {
            Some(spare) => spare,
            None => self.preallocate(target.max(need))?,
        };
        self.spare_asked = false;
        self.shared.segment_bytes.store(file.bytes, Ordering::Relaxed);
        if !used {
            // The segment has no block yet: it moves into the longer file.
            if let Some(short) = self.writer.begin(self.writer.segment, file) {
                self.shared.spares.lock().expect("no holder of the lock panics").push(short);
            }
            return Ok(());
        }
        let next = self.writer.segment + 1;
        let block_next = self.writer.block_next;
        let full = self.writer.begin(next, file);
        let full = full.expect("a segment that was written has a file");
        let mut frozen = None;
        self.shared.change(|version| {
            let fresh = Arc::new(Memtable::new(next));
            let old = std::mem::replace(&mut version.active, fresh);
            frozen = Some(Arc::clone(&old));
            version.frozen.push(old);
        });
        let memtable = frozen.expect("it was just frozen");
        // The loop ends after this one, so there is someone to take it.
        drop(self.jobs.send(Job::Write { memtable, file: Some(full), block_next }));
        Ok(())
    }

    fn preallocate(&self, bytes: u64) -> Result<SegmentFile, LogFault> {
        self.shared.preallocate(bytes).map_err(|error| {
            if is_full(&error) {
                // Nothing was promised with this file yet: the log is as it was.
                self.shared.full()
            } else {
                self.shared.poison("preallocating a segment failed", &error)
            }
        })
    }

    /// Returns how long the segment after one is to be: a store that is used little stays small.
    fn segment_bytes_next(&self, bytes: u64) -> u64 {
        let limits = self.shared.limits;
        (SEGMENT_GROWTH * bytes).clamp(limits.segment_bytes_min, limits.segment_bytes_max)
    }

    /// Has a spare file made in time, when the segment is half full.
    pub(super) fn prepare(&mut self) {
        let Some(file) = &self.writer.file else { return };
        if self.spare_asked || self.writer.offset * 2 < file.bytes {
            return;
        }
        self.spare_asked = true;
        let bytes = self.segment_bytes_next(file.bytes);
        drop(self.jobs.send(Job::Spare { bytes }));
    }
}

/// Waits until another memtable may be frozen.
pub(super) async fn wait_for_room(shared: &Shared) -> Result<(), LogFault> {
    let mut progress = shared.progress.subscribe();
    while shared.version().frozen.len() >= FROZEN_COUNT_MAX {
        if let Some(fault) = shared.fault() {
            return Err(fault);
        }
        if progress.borrow_and_update().full {
            return Err(shared.full());
        }
        shared.hurry.store(true, Ordering::Relaxed);
        if progress.changed().await.is_err() {
            return Err(LogFault::Closed);
        }
    }
    shared.hurry.store(false, Ordering::Relaxed);
    Ok(())
}
