//! Lists sessions in the order of their ids, over all layers at once.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use ax_core::id::SessionId;

use super::format::{Key, SessionRef, SessionState};
use super::memtable::Memtable;
use super::run::{Cursor, Run, Section};
use super::version::Version;
use crate::limits;
use crate::types::{ListQuery, LogFault, Page, RowEntry};

/// The most sessions that one call looks at; a page may be short because of it.
const SCAN_COUNT_MAX: usize = 10_000;
/// How many sessions are taken from a memtable at once.
const CHUNK_COUNT: usize = 256;

/// The states in a run, from a place on.
struct RunSource {
    run: Arc<Run>,
    cursor: Cursor,
    next: Option<(SessionRef, SessionState)>,
}

/// The states in one layer, from a place on.
enum Source {
    Memory { memtable: Arc<Memtable>, chunk: VecDeque<(SessionRef, (SessionState, bool))> },
    Run(Box<RunSource>),
}

impl Source {
    fn memory(memtable: &Arc<Memtable>, after: Bound<SessionRef>) -> Self {
        let chunk = memtable.states(after, CHUNK_COUNT).into();
        Self::Memory { memtable: Arc::clone(memtable), chunk }
    }

    fn run(run: &Arc<Run>, after: Bound<SessionRef>) -> Result<Self, LogFault> {
        let (Bound::Excluded(of) | Bound::Included(of)) = after else {
            unreachable!("a list begins somewhere in a namespace")
        };
        let cursor = Cursor::seek(run, Section::States, Key { of, seq: 0 })?;
        let mut source =
            Self::Run(Box::new(RunSource { run: Arc::clone(run), cursor, next: None }));
        source.advance()?;
        if matches!(after, Bound::Excluded(_)) && source.key() == Some(of) {
            source.advance()?;
        }
        Ok(source)
    }

    fn key(&self) -> Option<SessionRef> {
        match self {
            Self::Memory { chunk, .. } => chunk.front().map(|(of, _)| *of),
            Self::Run(source) => source.next.as_ref().map(|(of, _)| *of),
        }
    }

    /// Returns the next state, and whether it is whole.
    fn take(&mut self) -> Result<Option<(SessionState, bool)>, LogFault> {
        match self {
            Self::Memory { memtable, chunk } => {
                let Some((of, state)) = chunk.pop_front() else { return Ok(None) };
                if chunk.is_empty() {
                    *chunk = memtable.states(Bound::Excluded(of), CHUNK_COUNT).into();
                }
                Ok(Some(state))
            }
            Self::Run(source) => {
                let state = source.next.take().map(|(_, state)| (state, true));
                self.advance()?;
                Ok(state)
            }
        }
    }

    fn advance(&mut self) -> Result<(), LogFault> {
        if let Self::Run(source) = self {
            source.next = match source.cursor.next()? {
                Some(record) => Some((record.key.of, source.run.decode_state(&record)?)),
                None => None,
            };
        }
        Ok(())
    }
}

/// Returns the sessions of a namespace that pass a filter.
pub(super) fn list(version: &Version, namespace: u32, query: &ListQuery) -> Result<Page, LogFault> {
    let at = |session| SessionRef { namespace, session };
    let after = match query.after {
        Some(id) => Bound::Excluded(at(id.0)),
        None => Bound::Included(at(0)),
    };
    // The newest layer first: of several states of a session, the first found is the newest.
    let mut sources = vec![Source::memory(&version.active, after)];
    sources.extend(version.frozen.iter().rev().map(|memtable| Source::memory(memtable, after)));
    for run in version.runs.iter().rev() {
        sources.push(Source::run(run, after)?);
    }
    let mut page = Page::default();
    for scanned in 0.. {
        let next = sources.iter().filter_map(Source::key).min();
        let Some(of) = next.filter(|of| of.namespace == namespace) else { break };
        if scanned == SCAN_COUNT_MAX {
            page.next = Some(SessionId(of.session.saturating_sub(1)));
            break;
        }
        let mut newest: Option<(SessionState, bool)> = None;
        for source in &mut sources {
            if source.key() == Some(of)
                && let Some((state, whole)) = source.take()?
            {
                newest = match newest {
                    None => Some((state, whole)),
                    Some((newer, false)) => {
                        Some((SessionState { last: newer.last, ..state }, whole))
                    }
                    found => found,
                };
            }
        }
        let Some((state, _)) = newest else { continue };
        if state.deleted || !limits::passes(&query.filter, &state.row) {
            continue;
        }
        if page.rows.len() == query.limit.max(1) {
            page.next = page.rows.last().map(|row| row.session);
            break;
        }
        page.rows.push(RowEntry { session: SessionId(of.session), head: state.head() });
    }
    Ok(page)
}
