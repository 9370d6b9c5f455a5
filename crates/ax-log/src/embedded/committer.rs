//! What is decided, and what readers get to see of it: the state that the commit loops share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ax_core::id::{Epoch, Namespace, Seq, SessionKey};
use tokio::sync::mpsc;

use super::format::{Key, Kind, SessionRef, SessionState, u64_of};
use super::request::{AppendReply, Done, Request};
use super::run_loop::Job;
use super::segment::{Block, Place, SegmentWriter, record_bytes};
use super::sessions::{Sessions, Slot, Tracked};
use super::shared::Shared;
use crate::limits;
use crate::types::{Append, AppendError, LogFault};

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

/// A block, and everything that waits for it to be durable.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) block: Block,
    staged: Vec<Staged>,
    /// The sessions that the block has changes of, with the last position that each has then.
    touched: Vec<(Slot, u64)>,
    /// The states that the memtable gets: those that the block changes, and those that are new to
    /// it. They are kept here, because a later block may have changed them again by then.
    states: Vec<(Slot, SessionState)>,
    named: Vec<(u32, Namespace)>,
    done: Vec<Done>,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            block: Block::new(),
            staged: Vec::new(),
            touched: Vec::new(),
            states: Vec::new(),
            named: Vec::new(),
            done: Vec::new(),
        }
    }

    /// Takes out what is to be answered.
    pub(super) fn answers(&mut self) -> std::vec::Drain<'_, Done> {
        self.done.drain(..)
    }
}

/// The state that the commit loops share. It belongs to one of them at a time.
#[derive(Debug)]
pub(super) struct Committer {
    pub(super) shared: Arc<Shared>,
    pub(super) writer: SegmentWriter,
    pub(super) jobs: mpsc::UnboundedSender<Job>,
    pub(super) sessions: Sessions,
    /// Numbers of namespaces, also of those that have no record yet.
    namespaces: BTreeMap<Namespace, u32>,
    namespace_next: u32,
    /// The namespaces that have a record in a block that has its place.
    named_ids: BTreeSet<u32>,
    epoch_next: u64,
    pub(super) spare_asked: bool,
    /// Why a block failed, and all after it.
    pub(super) failed: Option<LogFault>,
    /// What is being made; that of the loop that leads.
    pub(super) batch: Batch,
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
            spare_asked: false,
            failed: None,
            batch: Batch::new(),
        }
    }

    /// Whether a request goes into the block that is being made.
    pub(super) fn has_room(&self, request: &Request) -> bool {
        let bytes = match request {
            Request::Append(append, _) => append_bytes(append),
            Request::Release(..) | Request::Acquire(..) | Request::Close(_) => 0,
            _ => CHANGE_BYTES,
        };
        let block = &self.batch.block;
        block.is_empty() || block.bytes() + bytes <= self.shared.limits.commit_bytes_max
    }

    /// Decides a request and puts what it changes into the block.
    pub(super) fn take(&mut self, request: Request) {
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
            Err(fault) => return self.done(Done::Append(reply, append, Err(fault.into()))),
        };
        match check(self.sessions.at(slot), &append) {
            Err(error) => {
                self.sessions.settle(slot);
                self.done(Done::Append(reply, append, Err(error)));
            }
            Ok(next) if limits::is_empty(&append) => {
                self.done(Done::Append(reply, append, Ok(next.prev())));
            }
            Ok(next) => {
                let last = self.stage(slot, &append);
                let done = self.batch.done.len();
                self.batch.staged.push(Staged { slot, first: next.0, done });
                self.done(Done::Append(reply, append, Ok(last)));
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
        let block = &mut self.batch.block;
        // A new session has its state first, so that a replay need not look for an older one.
        if append.row.is_some() || is_new {
            state.row = append.row.clone().unwrap_or_default();
            block.put(Kind::State, Key { of, seq }, &state.encode());
            tracked.changed = true;
        }
        for (payload, seq) in append.entries.iter().zip(first..) {
            block.put(Kind::Entry, Key { of, seq }, payload);
        }
        if let Some(snapshot) = &append.snapshot {
            block.put(Kind::Snapshot, Key { of, seq }, snapshot);
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
            self.batch.touched.push((slot, 0));
            if !self.named_ids.contains(&id) {
                let name = tracked.key.namespace.clone();
                self.name(id, &name);
            }
        }
    }

    /// Puts the name of a namespace into the block that has its first record.
    fn name(&mut self, id: u32, name: &Namespace) {
        let batch = &mut self.batch;
        if batch.named.iter().all(|(named, _)| *named != id) {
            let of = SessionRef { namespace: id, session: 0 };
            batch.block.put(Kind::Namespace, Key { of, seq: 0 }, name.as_str().as_bytes());
            batch.named.push((id, name.clone()));
        }
    }

    /// Puts the state of a session into the block.
    pub(super) fn put_state(&mut self, slot: Slot, state: SessionState) {
        let tracked = self.sessions.at(slot);
        let record = Key { of: tracked.of, seq: state.last };
        self.batch.block.put(Kind::State, record, &state.encode());
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
        // What readers see of it is all there is: one with changes under way is in hand.
        let state = self.shared.version().state(of)?;
        let tracked = Tracked {
            key: key.clone(),
            of,
            state,
            epoch: None,
            place: None,
            touched: false,
            changed: false,
            in_flight: 0,
        };
        Ok(self.sessions.insert(tracked))
    }

    pub(super) fn epoch(&mut self) -> Epoch {
        self.epoch_next += 1;
        Epoch(self.epoch_next - 1)
    }

    pub(super) fn done(&mut self, done: Done) {
        self.batch.done.push(done);
    }

    /// Closes the batch: what comes from here on belongs to a later block. `settled` is the newest
    /// block that is durable and shown. Returns where the block goes, if it is to be written.
    pub(super) fn seal(&mut self, batch: &mut Batch, settled: Option<u64>) -> Option<Place> {
        for (slot, last) in &mut batch.touched {
            let tracked = self.sessions.at(*slot);
            let state = tracked.state.as_ref().expect("what has changes exists");
            *last = state.last;
            let known = tracked.place.is_some_and(|(segment, _)| segment == self.writer.segment);
            if tracked.changed || !known {
                batch.states.push((*slot, state.clone()));
            }
            (tracked.touched, tracked.changed) = (false, false);
            tracked.in_flight += 1;
        }
        let settled = settled.filter(|_| !batch.block.is_empty())?;
        self.named_ids.extend(batch.named.iter().map(|(id, _)| *id));
        Some(self.writer.take(&batch.block, settled))
    }

    /// Lets readers and watchers see the block, all of it at once.
    pub(super) fn show(&mut self, batch: &mut Batch) {
        if !batch.named.is_empty() {
            let mut known = self.shared.namespaces.write().expect("no holder of the lock panics");
            for (id, name) in batch.named.drain(..) {
                known.insert(id, name);
            }
        }
        let version = self.shared.version();
        let mut tables = version.active.write();
        let segment = version.active.segment;
        let mut ended = Vec::new();
        for (slot, state) in batch.states.drain(..) {
            let tracked = self.sessions.at(slot);
            if state.deleted {
                ended.push(slot);
            }
            tracked.place = Some((segment, tables.state(tracked.of, state)));
        }
        for Staged { slot, first, done } in batch.staged.drain(..) {
            let tracked = self.sessions.at(slot);
            let (_, place) = tracked.place.expect("what is staged has its place by now");
            if let Done::Append(_, append, Ok(last)) = &mut batch.done[done] {
                tables.add(place, first, &mut append.entries);
                if let Some(data) = append.snapshot.take() {
                    tables.snapshot(tracked.of, last.0, data);
                }
            }
        }
        drop(tables);
        let mut watchers = self.shared.watchers();
        for (slot, last) in batch.touched.drain(..) {
            let tracked = self.sessions.at(slot);
            tracked.in_flight -= 1;
            if watchers.is_empty() {
            } else if ended.contains(&slot) {
                watchers.end(&tracked.key);
            } else {
                watchers.moved(&tracked.key, Seq(last));
            }
            self.sessions.settle(slot);
        }
        drop(watchers);
        self.shared.segment_begun.store(segment, Ordering::Release);
        batch.block.clear();
        self.prepare();
    }

    /// Takes back what a batch would have changed. It is closed.
    pub(super) fn refuse(&mut self, batch: &mut Batch, fault: &LogFault) {
        batch.block.clear();
        batch.staged.clear();
        batch.named.clear();
        batch.states.clear();
        for (slot, _) in batch.touched.drain(..) {
            let tracked = self.sessions.at(slot);
            tracked.in_flight -= 1;
            match self.shared.version().state(tracked.of) {
                Ok(state) => tracked.state = state,
                // Whoever has the right to write has to acquire it again, and then finds out.
                Err(_) => tracked.epoch = None,
            }
            self.sessions.settle(slot);
        }
        for done in batch.done.drain(..) {
            if let Some((key, epoch)) = done.refuse(fault.clone()) {
                self.release(&key, epoch);
            }
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
