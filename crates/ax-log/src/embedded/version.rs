//! What the log consists of at one moment: its layers, newest last, as one immutable value.
//!
//! A reader takes the version once and sees every acknowledged event exactly once, whatever is
//! rotated, written out or merged meanwhile.

use std::sync::Arc;

use bytes::Bytes;

use super::format::{Key, SessionRef, SessionState, damaged};
use super::memtable::Memtable;
use super::run::{Cursor, Run, Section};
use crate::types::{Entry, LogFault, ReadLimit};
use ax_core::id::Seq;

/// The layers of the log.
#[derive(Clone, Debug)]
pub(super) struct Version {
    /// Immutable files, oldest first.
    pub(super) runs: Vec<Arc<Run>>,
    /// Memtables of full segments that are not yet in a run, oldest first.
    pub(super) frozen: Vec<Arc<Memtable>>,
    /// The memtable of the segment that is being written.
    pub(super) active: Arc<Memtable>,
}

/// One layer.
enum Layer<'a> {
    Memory(&'a Arc<Memtable>),
    Run(&'a Arc<Run>),
}

/// A part of what a session reads: positions `first` to `last` of its own or an ancestor's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) of: SessionRef,
    pub(super) first: u64,
    pub(super) last: u64,
}

/// Entries that are being gathered, up to a limit.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) entries: Vec<Entry>,
    bytes: usize,
    limit: ReadLimit,
}

impl Gathered {
    pub(super) const fn new(limit: ReadLimit) -> Self {
        Self { entries: Vec::new(), bytes: 0, limit }
    }

    /// Adds an entry unless the limit is reached. Returns whether it was added.
    fn push(&mut self, seq: u64, payload: Bytes) -> bool {
        let bytes = self.bytes + payload.len();
        let full = self.entries.len() >= self.limit.entries || bytes > self.limit.bytes;
        if full && !self.entries.is_empty() {
            return false;
        }
        self.bytes = bytes;
        self.entries.push(Entry { seq: Seq(seq), payload });
        true
    }
}

impl Version {
    fn memory(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.active).chain(self.frozen.iter().rev())
    }

    fn layers(&self) -> impl Iterator<Item = Layer<'_>> {
        self.memory().map(Layer::Memory).chain(self.runs.iter().rev().map(Layer::Run))
    }

    /// Returns the newest state of a session; also that of one that was deleted.
    pub(super) fn state(&self, of: SessionRef) -> Result<Option<SessionState>, LogFault> {
        let mut partial: Option<SessionState> = None;
        for layer in self.layers() {
            let found = match layer {
                Layer::Memory(memtable) => memtable.state(of),
                Layer::Run(run) => run.state(of)?.map(|state| (state, true)),
            };
            let Some((mut state, whole)) = found else { continue };
            if let Some(newer) = partial {
                state.last = newer.last;
            }
            if whole {
                return Ok(Some(state));
            }
            partial = Some(state);
        }
        Ok(partial)
    }

    /// Returns the state that a session had before the oldest memtable, which is being written.
    pub(super) fn state_before(
        &self,
        memtable: &Memtable,
        of: SessionRef,
    ) -> Result<Option<SessionState>, LogFault> {
        let oldest = self.frozen.first().is_some_and(|first| first.segment == memtable.segment);
        assert!(oldest, "memtables become runs in their order");
        for run in self.runs.iter().rev() {
            let found = run.state(of)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Returns the newest snapshot at or before a position that a session finds, also in what it
    /// shares with its ancestors.
    pub(super) fn snapshot(
        &self,
        of: SessionRef,
        state: &SessionState,
        at: u64,
    ) -> Result<Option<(u64, Bytes)>, LogFault> {
        let found = self.snapshot_in_chain(of, state, at)?;
        Ok(found.filter(|(at, _)| at + 1 >= state.first))
    }

    fn snapshot_in_chain(
        &self,
        mut of: SessionRef,
        state: &SessionState,
        mut at: u64,
    ) -> Result<Option<(u64, Bytes)>, LogFault> {
        let mut parent = state.parent;
        loop {
            let own = self.snapshot_own(of, at)?;
            if own.is_some() {
                return Ok(own);
            }
            let Some((session, base)) = parent else { return Ok(None) };
            of.session = session;
            at = at.min(base);
            parent = self.ancestor(of)?.parent;
        }
    }

    fn snapshot_own(&self, of: SessionRef, at: u64) -> Result<Option<(u64, Bytes)>, LogFault> {
        for layer in self.layers() {
            let found = match layer {
                Layer::Memory(memtable) => memtable.snapshot(of, at),
                Layer::Run(run) => {
                    let record = run.snapshot(Key { of, seq: at })?;
                    record.map(|record| (record.key.seq, record.payload))
                }
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn ancestor(&self, of: SessionRef) -> Result<SessionState, LogFault> {
        let state = self.state(of)?;
        state.ok_or_else(|| missing(of, "the state of a session that has branches is missing"))
    }

    /// Reads a session behind a position, through its ancestors, oldest first.
    pub(super) fn read(
        &self,
        of: SessionRef,
        state: &SessionState,
        after: u64,
        limit: ReadLimit,
    ) -> Result<Vec<Entry>, LogFault> {
        let mut gathered = Gathered::new(limit);
        for span in self.spans(of, state, after)?.into_iter().rev() {
            if !self.gather(span, &mut gathered)? {
                break;
            }
        }
        Ok(gathered.entries)
    }

    /// Returns whose entries a session reads behind a position: its own first.
    fn spans(
        &self,
        mut of: SessionRef,
        state: &SessionState,
        after: u64,
    ) -> Result<Vec<Span>, LogFault> {
        let mut spans = Vec::new();
        let (mut last, mut parent) = (state.last, state.parent);
        loop {
            let base = parent.map_or(0, |(_, at)| at);
            if last > base {
                spans.push(Span { of, first: after.max(base) + 1, last });
            }
            match parent {
                Some((session, at)) if after < at.min(last) => {
                    of.session = session;
                    last = last.min(at);
                    parent = self.ancestor(of)?.parent;
                }
                _ => break,
            }
        }
        spans.retain(|span| span.first <= span.last);
        Ok(spans)
    }

    /// Gathers the entries of a span. Returns whether the limit leaves room for more.
    pub(super) fn gather(&self, span: Span, into: &mut Gathered) -> Result<bool, LogFault> {
        // The newest layers first, back to the one that the span begins in.
        let mut layers = Vec::new();
        for layer in self.layers() {
            let first = match layer {
                Layer::Memory(memtable) => memtable.entry_first(span.of),
                Layer::Run(run) => run.entry_first(span.of)?,
            };
            match first {
                Some(first) if first <= span.last => {
                    layers.push(layer);
                    if first <= span.first {
                        break;
                    }
                }
                _ => {}
            }
        }
        let mut next = span.first;
        for layer in layers.into_iter().rev() {
            let more = match layer {
                Layer::Memory(memtable) => from_memory(memtable, span, &mut next, into)?,
                Layer::Run(run) => from_run(run, span, &mut next, into)?,
            };
            if !more {
                return Ok(false);
            }
        }
        if next <= span.last {
            return Err(missing(span.of, "an entry of the session is missing"));
        }
        Ok(true)
    }
}

fn from_memory(
    memtable: &Memtable,
    span: Span,
    next: &mut u64,
    into: &mut Gathered,
) -> Result<bool, LogFault> {
    let tables = memtable.read();
    let Some(table) = tables.get(span.of) else { return Ok(true) };
    let Some(skip) = next.checked_sub(table.first) else {
        return Err(missing(span.of, "an entry of the session is missing"));
    };
    let skip = usize::try_from(skip).unwrap_or(usize::MAX);
    for payload in table.entries.iter().skip(skip) {
        if *next > span.last {
            break;
        }
        if !into.push(*next, payload.clone()) {
            return Ok(false);
        }
        *next += 1;
    }
    Ok(true)
}

fn from_run(
    run: &Arc<Run>,
    span: Span,
    next: &mut u64,
    into: &mut Gathered,
) -> Result<bool, LogFault> {
    let key = Key { of: span.of, seq: *next };
    let mut cursor = Cursor::seek(run, Section::Entries, key)?;
    while *next <= span.last {
        let Some(record) = cursor.next()?.filter(|record| record.key.of == span.of) else { break };
        if record.key.seq != *next {
            let path: Arc<str> = run.path.display().to_string().into();
            return Err(damaged(&path, 0, format!("entry {next} of a session is missing")));
        }
        if !into.push(*next, record.payload) {
            return Ok(false);
        }
        *next += 1;
    }
    Ok(true)
}

fn missing(of: SessionRef, what: &str) -> LogFault {
    let path: Arc<str> = format!("the log of session ses_{:032x}", of.session).into();
    damaged(&path, 0, what)
}
