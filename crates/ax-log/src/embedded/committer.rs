//! The one loop that writes: it decides, makes blocks durable, shows them, and answers.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ax_core::id::{Epoch, Namespace, Seq, SessionKey};
use tokio::sync::mpsc;

use super::format::{Key, Kind, SessionRef, SessionState, u64_of};
use super::memtable::Memtable;
use super::request::{AppendReply, Done, Request};
use super::run_loop::Job;
use super::segment::{SegmentFile, SegmentWriter, record_bytes};
use super::sessions::{Sessions, Slot, Tracked};
use super::shared::Shared;
use super::{COMMIT_COUNT_MAX, FROZEN_COUNT_MAX, SEGMENT_GROWTH};
use crate::limits;
use crate::types::{Append, AppendError, LogFault};

/// How often the loop spins between two looks for requests that are just coming.
const GATHER_SPIN_COUNT: usize = 32;
/// The room that is kept in a block for a request that is not an append, in bytes.
const CHANGE_BYTES: usize = 512 * 1024;

/// An append that goes into the memtable when the block is durable.
#[derive(Debug)]
struct Staged {
    slot: Slot,
    first: u64,
    /// Where it is among what is done.
    done: usize,
}

/// The state of the loop.
#[derive(Debug)]
pub(super) struct Committer {
    pub(super) shared: Arc<Shared>,
    pub(super) writer: SegmentWriter,
    pub(super) jobs: mpsc::UnboundedSender<Job>,
    pub(super) sessions: Sessions,
    /// Numbers of namespaces, also of those that have no record yet.
    namespaces: BTreeMap<Namespace, u32>,
    namespace_next: u32,
    /// The namespaces that have a durable record.
    named_ids: BTreeSet<u32>,
    epoch_next: u64,
    // What follows belongs to the block that is being made.
    staged: Vec<Staged>,
    touched: Vec<Slot>,
    named: Vec<(u32, Namespace)>,
    done: Vec<Done>,
    spare_asked: bool,
}

impl Committer {
    pub(super) fn new(
        shared: Arc<Shared>,
        writer: SegmentWriter,
        jobs: mpsc::UnboundedSender<Job>,
    ) -> Self {
        let known = shared.namespaces.read().expect("no holder of the lock panics");
        let namespaces = known.ids.clone();
        let namespace_next = known.names.last_key_value().map_or(1, |(id, _)| id + 1);
        let named_ids = known.names.keys().copied().collect();
        drop(known);
        let epoch_next = limits::epoch_first(shared.generation);
        Self {
            shared,
            writer,
            jobs,
            sessions: Sessions::default(),
            namespaces,
            namespace_next,
            named_ids,
            epoch_next,
            staged: Vec::new(),
            touched: Vec::new(),
            named: Vec::new(),
            done: Vec::new(),
            spare_asked: false,
        }
    }

    /// Serves requests until the log is closed or dropped.
    pub(super) async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        let mut batch = Vec::new();
        let mut closing = None;
        while closing.is_none() && requests.recv_many(&mut batch, COMMIT_COUNT_MAX).await > 0 {
            gather(&mut requests, &mut batch).await;
            for request in batch.drain(..) {
                match request {
                    Request::Close(reply) if closing.is_none() => closing = Some(reply),
                    request if closing.is_some() => request.refuse(LogFault::Closed),
                    request => self.take(request).await,
                }
            }
            self.flush().await;
        }
        self.shared.stopping.store(true, Ordering::Release);
        if let Some(reply) = closing {
            self.shared.close();
            while let Ok(request) = requests.try_recv() {
                request.refuse(LogFault::Closed);
            }
            drop(reply.send(Ok(())));
        }
    }

    async fn take(&mut self, request: Request) {
        let bytes = match &request {
            Request::Append(append, _) => append_bytes(append),
            Request::Release(..) | Request::Acquire(..) => 0,
            _ => CHANGE_BYTES,
        };
        if !self.writer.block_is_empty()
            && self.writer.block_bytes() + bytes > self.shared.limits.commit_bytes_max
        {
            self.flush().await;
        }
        if let Some(fault) = self.shared.fault() {
            request.refuse(fault);
            return;
        }
        match request {
            Request::Append(append, reply) => self.append(append, reply),
            Request::Acquire(key, reply) => self.acquire(key, reply),
            Request::Release(key, epoch) => self.release(&key, epoch),
            Request::Branch(branch, reply) => self.branch(&branch, reply),
            Request::Cut(key, below, reply) => self.cut(&key, below, reply),
            Request::Delete(key, reply) => self.delete(&key, reply),
            Request::Close(_) => unreachable!("the loop keeps it to itself"),
        }
    }

    fn append(&mut self, append: Box<Append>, reply: AppendReply) {
        let slot = match self.track(&append.key) {
            Ok(slot) => slot,
            Err(fault) => return drop(reply.send((append, Err(fault.into())))),
        };
        match check(self.sessions.at(slot), &append) {
            Err(error) => {
                self.sessions.settle(slot);
                drop(reply.send((append, Err(error))));
            }
            Ok(next) if limits::is_empty(&append) => {
                self.done.push(Done::Append(reply, append, next.prev()));
            }
            Ok(next) => {
                let last = self.stage(slot, &append);
                self.staged.push(Staged { slot, first: next.0, done: self.done.len() });
                self.done.push(Done::Append(reply, append, last));
            }
        }
    }

    /// Puts the records of an append into the block.
    fn stage(&mut self, slot: Slot, append: &Append) -> Seq {
        let tracked = self.sessions.at(slot);
        let of = tracked.of;
        let is_new = tracked.state.is_none();
        let state = tracked.state.get_or_insert_with(SessionState::unborn);
        let first = state.last + 1;
        state.last += u64_of(append.entries.len());
        let seq = state.last;
        // A new session has its state first, so that a replay need not look for an older one.
        if append.row.is_some() || is_new {
            state.row = append.row.clone().unwrap_or_default();
            self.writer.put(Kind::State, Key { of, seq }, &state.encode());
            tracked.changed = true;
        }
        for (payload, seq) in append.entries.iter().zip(first..) {
            self.writer.put(Kind::Entry, Key { of, seq }, payload);
        }
        if let Some(snapshot) = &append.snapshot {
            self.writer.put(Kind::Snapshot, Key { of, seq }, snapshot);
        }
        self.touch(slot);
        Seq(seq)
    }

    /// Notes that the block has changes of a session.
    fn touch(&mut self, slot: Slot) {
        let tracked = self.sessions.at(slot);
        if !tracked.touched {
            tracked.touched = true;
            let id = tracked.of.namespace;
            self.touched.push(slot);
            if !self.named_ids.contains(&id) {
                let name = tracked.key.namespace.clone();
                self.name(id, &name);
            }
        }
    }

    /// Puts the name of a namespace into the block that has its first record.
    fn name(&mut self, id: u32, name: &Namespace) {
        if self.named.iter().all(|(named, _)| *named != id) {
            let of = SessionRef { namespace: id, session: 0 };
            self.writer.put(Kind::Namespace, Key { of, seq: 0 }, name.as_str().as_bytes());
            self.named.push((id, name.clone()));
        }
    }

    /// Puts the state of a session into the block.
    pub(super) fn put_state(&mut self, slot: Slot, state: SessionState) {
        let tracked = self.sessions.at(slot);
        let record = Key { of: tracked.of, seq: state.last };
        self.writer.put(Kind::State, record, &state.encode());
        tracked.state = Some(state);
        tracked.changed = true;
        self.touch(slot);
    }

    /// Takes a session in hand, looked up if need be.
    pub(super) fn track(&mut self, key: &SessionKey) -> Result<Slot, LogFault> {
        if let Some(slot) = self.sessions.find(key) {
            return Ok(slot);
        }
        let namespace = match self.namespaces.get(&key.namespace) {
            Some(id) => *id,
            None => {
                self.namespace_next += 1;
                self.namespaces.insert(key.namespace.clone(), self.namespace_next - 1);
                self.namespace_next - 1
            }
        };
        let of = SessionRef { namespace, session: key.session.0 };
        let state = self.shared.version().state(of)?;
        let (key, epoch) = (key.clone(), None);
        let (touched, changed, place) = (false, false, None);
        let tracked = Tracked { key, of, state, epoch, place, touched, changed };
        Ok(self.sessions.insert(tracked))
    }

    pub(super) fn epoch(&mut self) -> Epoch {
        self.epoch_next += 1;
        Epoch(self.epoch_next - 1)
    }

    pub(super) fn done(&mut self, done: Done) {
        self.done.push(done);
    }

    /// Makes the block durable, shows it and answers.
    async fn flush(&mut self) {
        if !self.writer.block_is_empty()
            && let Err(fault) = self.commit().await
        {
            self.refuse(&fault);
            return;
        }
        for done in std::mem::take(&mut self.done) {
            if let Some((key, epoch)) = done.tell() {
                self.release(&key, epoch);
            }
        }
    }

    async fn commit(&mut self) -> Result<(), LogFault> {
        if let Some(fault) = self.shared.fault() {
            return Err(fault);
        }
        let heavy = self.shared.version().active.read().bytes;
        if !self.writer.fits() || heavy > self.shared.limits.memtable_bytes_max {
            self.rotate().await?;
        }
        let written = self.writer.commit();
        let bytes =
            written.map_err(|error| self.shared.poison("writing a segment failed", &error))?;
        self.shared.committed_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.show();
        self.prepare();
        Ok(())
    }

    /// Lets readers and watchers see the block, all of it at once.
    fn show(&mut self) {
        if !self.named.is_empty() {
            let mut known = self.shared.namespaces.write().expect("no holder of the lock panics");
            for (id, name) in self.named.drain(..) {
                self.named_ids.insert(id);
                known.insert(id, name);
            }
        }
        let version = self.shared.version();
        let mut tables = version.active.write();
        let segment = version.active.segment;
        for Staged { slot, first, done } in self.staged.drain(..) {
            let tracked = self.sessions.at(slot);
            let place = match tracked.place {
                Some((here, place)) if here == segment => place,
                _ => {
                    let state = tracked.state.as_ref().expect("what is staged exists");
                    let place = tables.place(tracked.of, state);
                    tracked.place = Some((segment, place));
                    place
                }
            };
            if let Done::Append(_, append, last) = &mut self.done[done] {
                tables.add(place, first, &mut append.entries);
                if let Some(data) = append.snapshot.take() {
                    tables.snapshot(tracked.of, last.0, data);
                }
            }
        }
        for slot in &self.touched {
            let tracked = self.sessions.at(*slot);
            if let Some(state) = tracked.state.as_ref().filter(|_| tracked.changed) {
                tables.state(tracked.of, state.clone());
            }
        }
        drop(tables);
        let mut watchers = self.shared.watchers();
        for slot in self.touched.drain(..) {
            let tracked = self.sessions.at(slot);
            (tracked.touched, tracked.changed) = (false, false);
            match &tracked.state {
                _ if watchers.is_empty() => {}
                Some(state) if state.deleted => watchers.end(&tracked.key),
                Some(state) => watchers.moved(&tracked.key, Seq(state.last)),
                None => {}
            }
            self.sessions.settle(slot);
        }
    }

    /// Takes back what the block would have changed.
    fn refuse(&mut self, fault: &LogFault) {
        self.writer.discard();
        self.staged.clear();
        self.named.clear();
        for slot in self.touched.drain(..) {
            let tracked = self.sessions.at(slot);
            (tracked.touched, tracked.changed) = (false, false);
            match self.shared.version().state(tracked.of) {
                Ok(state) => tracked.state = state,
                // Whoever has the right to write has to acquire it again, and then finds out.
                Err(_) => tracked.epoch = None,
            }
            self.sessions.settle(slot);
        }
        for done in std::mem::take(&mut self.done) {
            if let Some((key, epoch)) = done.refuse(fault.clone()) {
                self.release(&key, epoch);
            }
        }
    }

    /// Goes on in another segment that has room for the block.
    async fn rotate(&mut self) -> Result<(), LogFault> {
        let need = self.writer.block_pages_bytes();
        let used = self.writer.offset > 0;
        if used {
            self.wait_for_room().await?;
        }
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

    /// Waits until another memtable may be frozen.
    async fn wait_for_room(&self) -> Result<(), LogFault> {
        let mut progress = self.shared.progress.subscribe();
        while self.shared.version().frozen.len() >= FROZEN_COUNT_MAX {
            if let Some(fault) = self.shared.fault() {
                return Err(fault);
            }
            if progress.borrow_and_update().full {
                return Err(self.shared.full());
            }
            self.shared.hurry.store(true, Ordering::Relaxed);
            if progress.changed().await.is_err() {
                return Err(LogFault::Closed);
            }
        }
        self.shared.hurry.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn preallocate(&self, bytes: u64) -> Result<SegmentFile, LogFault> {
        self.shared.preallocate(bytes).map_err(|error| match error.kind() {
            // Nothing was promised with this file yet: the log is as it was.
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => self.shared.full(),
            _ => self.shared.poison("preallocating a segment failed", &error),
        })
    }

    /// Returns how long the segment after one is to be: a store that is used little stays small.
    fn segment_bytes_next(&self, bytes: u64) -> u64 {
        let limits = self.shared.limits;
        (SEGMENT_GROWTH * bytes).clamp(limits.segment_bytes_min, limits.segment_bytes_max)
    }

    /// Has a spare file made in time, when the segment is half full.
    fn prepare(&mut self) {
        let Some(file) = &self.writer.file else { return };
        if self.spare_asked || self.writer.offset * 2 < file.bytes {
            return;
        }
        self.spare_asked = true;
        let bytes = self.segment_bytes_next(file.bytes);
        drop(self.jobs.send(Job::Spare { bytes }));
    }
}

/// Takes what comes while requests keep coming.
///
/// Those who were answered together ask again one after the other, within some microseconds: were
/// the first taken alone, the rest would wait for its write. This waits for no clock and for
/// nobody in particular; where nothing more comes it costs about a microsecond.
async fn gather(requests: &mut mpsc::UnboundedReceiver<Request>, batch: &mut Vec<Request>) {
    let mut before = 0;
    while before < batch.len() && batch.len() < COMMIT_COUNT_MAX {
        before = batch.len();
        for _ in 0..GATHER_SPIN_COUNT {
            std::hint::spin_loop();
        }
        tokio::task::yield_now().await;
        while batch.len() < COMMIT_COUNT_MAX
            && let Ok(request) = requests.try_recv()
        {
            batch.push(request);
        }
    }
}

/// Returns the position that an append is to begin at, if it may be made.
fn check(tracked: &Tracked, append: &Append) -> Result<Seq, AppendError> {
    if tracked.state.as_ref().is_some_and(|state| state.deleted) {
        return Err(AppendError::Deleted);
    }
    if tracked.epoch != Some(append.epoch) {
        return Err(AppendError::Fenced { epoch: append.epoch });
    }
    let next = tracked.next();
    if append.expected != next {
        return Err(AppendError::WrongSeq { expected: append.expected, next });
    }
    Ok(next)
}

/// Returns how much of a block an append takes at most, in bytes.
fn append_bytes(append: &Append) -> usize {
    let entries: usize = append.entries.iter().map(|entry| record_bytes(entry.len())).sum();
    let row = append.row.as_ref().map_or(0, |row| row.data.len());
    let snapshot = append.snapshot.as_ref().map_or(0, |data| record_bytes(data.len()));
    // A state and the name of a namespace are shorter than this, but for the row.
    entries + row + snapshot + 512
}
