//! Goes through every session: finds the gaps, and writes what can be kept.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::gather::{Contents, Tail};
use crate::embedded::format::{Key, SessionRef, SessionState};
use crate::embedded::run::{PIECE_BYTES, RunWriter, Section, WalkMerged};

/// What a look at all sessions gave.
#[derive(Debug, Default)]
pub(super) struct Salvage {
    pub(super) sessions: u64,
    pub(super) entries: u64,
    /// Positions that a repair cannot keep: of which session, the first and the last.
    pub(super) lost: Vec<(SessionRef, u64, u64)>,
    needs: Needs,
    /// The last position that is kept of a session with a gap.
    cut_short: BTreeMap<SessionRef, u64>,
}

/// One session as it is met on the way through all of them.
struct Met<'a> {
    of: SessionRef,
    state: Option<SessionState>,
    tail: Option<&'a Tail>,
}

/// All sessions of a store in their order.
struct Way<'a> {
    states: WalkMerged,
    entries: WalkMerged,
    snapshots: WalkMerged,
    tails: &'a BTreeMap<SessionRef, Tail>,
    tail_after: Option<SessionRef>,
}

impl<'a> Way<'a> {
    fn new(contents: &'a Contents) -> Self {
        let walk = |section| WalkMerged::new(&contents.runs, section);
        Self {
            states: walk(Section::States),
            entries: walk(Section::Entries),
            snapshots: walk(Section::Snapshots),
            tails: &contents.tails,
            tail_after: None,
        }
    }

    fn next(&mut self) -> Option<Met<'a>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let after = self.tail_after.map_or(Unbounded, Excluded);
        let tail = self.tails.range((after, Unbounded)).next();
        let of = [
            self.states.key().map(|key| key.of),
            self.entries.key().map(|key| key.of),
            tail.map(|(of, _)| *of),
        ];
        let of = of.into_iter().flatten().min()?;
        let tail = tail.filter(|(at, _)| **at == of).map(|(_, tail)| tail);
        if tail.is_some() {
            self.tail_after = Some(of);
        }
        let mut state = None;
        while self.states.key().is_some_and(|key| key.of == of) {
            let record = self.states.next();
            state = record.and_then(|record| SessionState::decode(&record.payload));
        }
        let newer = tail.and_then(|tail| tail.state.clone());
        Some(Met { of, state: newer.or(state), tail })
    }

    /// Calls for each entry of the session that was met last, in order.
    fn entries(
        &mut self,
        met: &Met<'_>,
        mut each: impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        while self.entries.key().is_some_and(|key| key.of == met.of) {
            let Some(record) = self.entries.next() else { break };
            each(record.key.seq, &record.payload)?;
        }
        for (seq, payload) in met.tail.iter().flat_map(|tail| &tail.entries) {
            each(*seq, payload)?;
        }
        Ok(())
    }

    fn snapshots(
        &mut self,
        met: &Met<'_>,
        mut each: impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let newer = met.tail.map(|tail| &tail.snapshots);
        while self.snapshots.key().is_some_and(|key| key.of <= met.of) {
            let Some(record) = self.snapshots.next() else { break };
            let replaced = newer.is_some_and(|newer| newer.contains_key(&record.key.seq));
            if record.key.of == met.of && !replaced {
                each(record.key.seq, &record.payload)?;
            }
        }
        for (seq, data) in newer.into_iter().flatten() {
            each(*seq, data)?;
        }
        Ok(())
    }
}

/// Who reads what: the branches, and from them the positions of each session that are needed.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// The sessions that are branches, with parent and branch point.
    parents: BTreeMap<SessionRef, (SessionRef, u64)>,
    /// The positions of a session's own that branches read, from the first to the last.
    shared: BTreeMap<SessionRef, Vec<(u64, u64)>>,
}

impl Needs {
    fn find(contents: &Contents) -> Self {
        let mut needs = Self::default();
        let mut live = Vec::new();
        let mut way = Way::new(contents);
        while let Some(met) = way.next() {
            way.entries(&met, |_, _| Ok(())).expect("nothing here fails");
            if let Some(state) = met.state
                && let Some((parent, at)) = state.parent
            {
                let parent = SessionRef { session: parent, ..met.of };
                needs.parents.insert(met.of, (parent, at));
                if !state.deleted {
                    live.push((met.of, state.first));
                }
            }
        }
        for (mut of, first) in live {
            let mut last = u64::MAX;
            while let Some((parent, at)) = needs.parents.get(&of) {
                last = last.min(*at);
                let base = needs.parents.get(parent).map_or(0, |(_, base)| *base);
                if last > base && first <= last {
                    needs.shared.entry(*parent).or_default().push((first.max(base + 1), last));
                }
                of = *parent;
            }
        }
        needs
    }
}

/// Follows the positions of a session and notices gaps.
struct Gaps {
    /// The positions that are needed, in ranges from the first to the last.
    ranges: Vec<(u64, u64)>,
    live: bool,
    /// The last position that the state knows.
    known_last: u64,
    /// The position that has to come next, if any has to.
    needed: Option<u64>,
    /// The last position so far.
    last: u64,
    /// The first position that is missing though it should be there.
    gap: Option<u64>,
    /// The highest position met.
    highest: u64,
}

impl Gaps {
    fn new(of: SessionRef, state: &SessionState, needs: &Needs) -> Self {
        let last = state.parent.map_or(0, |(_, at)| at);
        let mut ranges = needs.shared.get(&of).cloned().unwrap_or_default();
        if !state.deleted {
            ranges.push((state.first.max(last + 1), state.last));
        }
        let (live, known_last) = (!state.deleted, state.last);
        let (needed, gap, highest) = (None, None, state.last);
        let mut gaps = Self { ranges, live, known_last, needed, last, gap, highest };
        gaps.needed = gaps.needed_after(last);
        gaps
    }

    /// Returns the lowest position behind another that somebody can still read.
    fn needed_after(&self, after: u64) -> Option<u64> {
        let next = |(first, last): &(u64, u64)| {
            let next = (*first).max(after + 1);
            (next <= *last).then_some(next)
        };
        self.ranges.iter().filter_map(next).min()
    }

    /// Takes note of an entry. Returns whether it is kept.
    fn meet(&mut self, seq: u64) -> bool {
        self.highest = self.highest.max(seq);
        if self.gap.is_some() || seq <= self.last {
            return false;
        }
        match self.needed {
            Some(needed) if seq < needed => return false,
            Some(needed) if seq > needed => {
                self.gap = Some(needed);
                return false;
            }
            Some(_) => {}
            // Entries may go on behind a state that is not the newest.
            None if self.live && seq == self.last + 1 => {}
            None if self.live && seq > self.known_last => {
                self.gap = Some(self.last + 1);
                return false;
            }
            None => return false,
        }
        self.last = seq;
        self.needed = self.needed_after(seq);
        true
    }

    /// Returns the first position that is missing, now that every entry was met.
    fn finish(&self) -> Option<u64> {
        self.gap.or(self.needed)
    }
}

/// Goes through all sessions and says what is there and what is lost.
pub(super) fn examine(contents: &mut Contents) -> Salvage {
    let mut salvage = Salvage::default();
    let needs = Needs::find(contents);
    let mut way = Way::new(contents);
    while let Some(met) = way.next() {
        let state = met.state.clone().unwrap_or_else(SessionState::unborn);
        let mut gaps = Gaps::new(met.of, &state, &needs);
        let mut count = 0;
        let met_all = way.entries(&met, |seq, _| {
            count += u64::from(gaps.meet(seq));
            Ok(())
        });
        met_all.expect("nothing here fails");
        salvage.entries += count;
        salvage.sessions += u64::from(!state.deleted);
        if let Some(gap) = gaps.finish() {
            salvage.lost.push((met.of, gap, gaps.highest.max(gap)));
            salvage.cut_short.insert(met.of, gap - 1);
        }
    }
    let faults = [way.states.faults, way.entries.faults, way.snapshots.faults];
    for fault in faults.iter().flatten() {
        contents.fault(fault);
    }
    salvage.needs = needs;
    propagate(contents, &mut salvage);
    salvage
}

/// Cuts short what branches read of a session that is cut short.
fn propagate(contents: &Contents, salvage: &mut Salvage) {
    let mut grown = !salvage.cut_short.is_empty();
    let mut reported = BTreeSet::new();
    while grown {
        grown = false;
        let mut way = Way::new(contents);
        while let Some(met) = way.next() {
            way.entries(&met, |_, _| Ok(())).expect("nothing here fails");
            let Some((parent, at)) = met.state.as_ref().and_then(|state| state.parent) else {
                continue;
            };
            let parent = SessionRef { session: parent, ..met.of };
            let Some(kept) = salvage.cut_short.get(&parent).copied().filter(|kept| *kept < at)
            else {
                continue;
            };
            let own = salvage.cut_short.get(&met.of).copied();
            if own.is_none_or(|own| own > kept) {
                salvage.cut_short.insert(met.of, kept);
                grown = true;
                let last = met.state.map_or(at, |state| state.last);
                if reported.insert(met.of) {
                    salvage.lost.push((met.of, kept + 1, last));
                }
            }
        }
    }
}

/// Writes what can be kept.
pub(super) fn write(
    contents: &Contents,
    salvage: &Salvage,
    writer: &mut RunWriter,
) -> io::Result<()> {
    let mut way = Way::new(contents);
    while let Some(met) = way.next() {
        let of = met.of;
        let mut state = met.state.clone().unwrap_or_else(SessionState::unborn);
        let limit = salvage.cut_short.get(&of).copied();
        let keeps = |seq: u64| limit.is_none_or(|limit| seq <= limit);
        let mut gaps = Gaps::new(of, &state, &salvage.needs);
        way.entries(&met, |seq, payload| {
            if gaps.meet(seq) && keeps(seq) {
                writer.entry(Key { of, seq }, payload);
            }
            write_out(writer)
        })?;
        way.snapshots(&met, |seq, data| {
            if state.keeps_snapshot(seq) && keeps(seq) {
                writer.snapshot(Key { of, seq }, data);
            }
            write_out(writer)
        })?;
        state.last = limit.unwrap_or(gaps.highest).max(state.first - 1);
        if let Some((parent, at)) = state.parent {
            state.parent = Some((parent, at.min(state.last)));
        }
        if limit.is_some() {
            state.pin_last = state.pin_last.min(state.last);
        }
        writer.state(of, contents.name(of.namespace).as_str(), &state);
        write_out(writer)?;
    }
    Ok(())
}

fn write_out(writer: &mut RunWriter) -> io::Result<()> {
    if writer.pending_bytes() >= PIECE_BYTES { writer.write_out() } else { Ok(()) }
}
