//! What one segment holds, in memory, grouped by session: the newest layer of the log.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use super::format::{SessionRef, SessionState};

/// What an entry costs in memory beside its payload, in bytes.
const ENTRY_COST_BYTES: usize = 64;
/// What a session costs in memory beside its entries, in bytes.
const SESSION_COST_BYTES: usize = 400;

/// The memory of one segment. It grows while its segment does and is frozen with it.
#[derive(Debug)]
pub(super) struct Memtable {
    /// The segment that has the same content.
    pub(super) segment: u64,
    tables: RwLock<Tables>,
}

/// The sessions of a memtable.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// Where each session is among `tables`, in the order of the sessions.
    index: BTreeMap<SessionRef, usize>,
    tables: Vec<SessionTable>,
    /// An estimate of the memory that they take.
    pub(super) bytes: usize,
}

/// What a memtable knows of a session.
#[derive(Clone, Debug)]
pub(super) struct SessionTable {
    /// The state; where it is not whole, only its last position counts.
    pub(super) state: SessionState,
    /// Whether the state is known. After a replay it may have to be looked up in older layers.
    pub(super) whole: bool,
    /// The position of the first of `entries`.
    pub(super) first: u64,
    pub(super) entries: Vec<Bytes>,
    pub(super) snapshots: Vec<(u64, Bytes)>,
}

impl SessionTable {
    /// Returns the position after the last entry.
    pub(super) fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }
}

impl Tables {
    pub(super) fn get(&self, of: SessionRef) -> Option<&SessionTable> {
        self.index.get(&of).map(|place| &self.tables[*place])
    }

    /// Returns the place of a session, which is added with its state if it is new here.
    fn place(&mut self, of: SessionRef, state: &SessionState) -> usize {
        let place = *self.index.entry(of).or_insert(self.tables.len());
        if place == self.tables.len() {
            self.bytes += SESSION_COST_BYTES + state.row.data.len();
            self.tables.push(SessionTable {
                state: state.clone(),
                whole: true,
                first: 0,
                entries: Vec::new(),
                snapshots: Vec::new(),
            });
        }
        place
    }

    /// Adds the entries of an append. Of the state only the last position is taken.
    pub(super) fn add(&mut self, place: usize, first: u64, entries: &mut Vec<Bytes>) {
        let table = &mut self.tables[place];
        if table.entries.is_empty() {
            table.first = first;
        }
        assert!(first == table.next(), "the positions of a session have no gaps");
        self.bytes += entries.iter().map(|entry| entry.len() + ENTRY_COST_BYTES).sum::<usize>();
        table.state.last = table.state.last.max(first - 1 + entries.len() as u64);
        table.entries.append(entries);
    }

    /// Adds an entry that is replayed.
    pub(super) fn entry(&mut self, of: SessionRef, seq: u64, payload: Bytes) {
        self.bytes += payload.len() + ENTRY_COST_BYTES;
        let table = self.table(of);
        if table.entries.is_empty() {
            table.first = seq;
        }
        assert!(seq == table.next(), "the positions of a session have no gaps");
        table.entries.push(payload);
        table.state.last = seq;
    }

    pub(super) fn snapshot(&mut self, of: SessionRef, at: u64, data: Bytes) {
        self.bytes += data.len() + ENTRY_COST_BYTES;
        let table = self.table(of);
        // It covers everything up to the last position there was.
        table.state.last = table.state.last.max(at);
        table.snapshots.retain(|(before, _)| *before != at);
        table.snapshots.push((at, data));
    }

    /// Takes the state of a session, which is added if it is new here. Returns its place.
    pub(super) fn state(&mut self, of: SessionRef, state: SessionState) -> usize {
        let place = self.place(of, &state);
        let table = &mut self.tables[place];
        let (old, new) = (table.state.row.data.len(), state.row.data.len());
        table.state = state;
        table.whole = true;
        self.bytes = self.bytes + new - old;
        place
    }

    fn table(&mut self, of: SessionRef) -> &mut SessionTable {
        let known = self.index.get(&of).copied();
        let place = known.unwrap_or_else(|| self.place(of, &SessionState::unborn()));
        let table = &mut self.tables[place];
        table.whole &= known.is_some();
        table
    }
}

impl Memtable {
    pub(super) fn new(segment: u64) -> Self {
        Self::with(segment, Tables::default())
    }

    pub(super) const fn with(segment: u64, tables: Tables) -> Self {
        Self { segment, tables: RwLock::new(tables) }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().expect("no holder of the lock panics")
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().expect("no holder of the lock panics")
    }

    /// Returns the state of a session, and whether it is whole.
    pub(super) fn state(&self, of: SessionRef) -> Option<(SessionState, bool)> {
        self.read().get(of).map(|table| (table.state.clone(), table.whole))
    }

    /// Returns the newest snapshot of a session at or before a position.
    pub(super) fn snapshot(&self, of: SessionRef, at: u64) -> Option<(u64, Bytes)> {
        let tables = self.read();
        let snapshots = &tables.get(of)?.snapshots;
        let at_or_before = snapshots.iter().rfind(|(seq, _)| *seq <= at);
        at_or_before.cloned()
    }

    /// Returns the first position of a session that the memtable has an entry of.
    pub(super) fn entry_first(&self, of: SessionRef) -> Option<u64> {
        let tables = self.read();
        let table = tables.get(of)?;
        (!table.entries.is_empty()).then_some(table.first)
    }

    /// Returns up to `count` sessions behind `after`, or from `from` on, in order.
    pub(super) fn chunk(
        &self,
        after: Bound<SessionRef>,
        count: usize,
    ) -> Vec<(SessionRef, SessionTable)> {
        let tables = self.read();
        let range = tables.index.range((after, Bound::Unbounded)).take(count);
        range.map(|(of, place)| (*of, tables.tables[*place].clone())).collect()
    }

    /// Returns the states of up to `count` sessions behind `after`, in order.
    pub(super) fn states(
        &self,
        after: Bound<SessionRef>,
        count: usize,
    ) -> Vec<(SessionRef, (SessionState, bool))> {
        let tables = self.read();
        let range = tables.index.range((after, Bound::Unbounded)).take(count);
        let found = range.map(|(of, place)| (*of, &tables.tables[*place]));
        found.map(|(of, table)| (of, (table.state.clone(), table.whole))).collect()
    }
}
