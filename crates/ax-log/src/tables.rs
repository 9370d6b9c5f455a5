//! Sessions in memory, as tables would hold them: what the model and the shared store have in
//! common.
//!
//! Nothing here knows who may write: that is decided before.

use std::collections::{BTreeMap, BTreeSet};

use ax_core::id::{Namespace, Seq, SessionId, SessionKey};
use bytes::Bytes;

use crate::limits;
use crate::types::{
    BranchError, CutError, Entry, Head, ListQuery, Page, ReadError, ReadLimit, Row, RowEntry,
    Snapshot,
};

/// Every session of a store.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    sessions: BTreeMap<SessionKey, Session>,
}

/// One session; a deleted one stays, since its branches read it and its id is not used again.
#[derive(Debug, Default)]
pub(crate) struct Session {
    pub(crate) row: Row,
    parent: Option<(SessionId, Seq)>,
    first: u64,
    entries: Vec<Bytes>,
    snapshots: BTreeMap<u64, Bytes>,
    pub(crate) deleted: bool,
}

impl Session {
    fn base(&self) -> u64 {
        self.parent.map_or(0, |(_, at)| at.0)
    }

    pub(crate) fn last(&self) -> u64 {
        self.base() + self.entries.len() as u64
    }

    pub(crate) fn head(&self) -> Head {
        Head {
            last: Seq(self.last()),
            first: Seq(self.first),
            row: self.row.clone(),
            parent: self.parent,
        }
    }
}

impl Tables {
    /// Returns a session, deleted or not.
    pub(crate) fn get(&self, key: &SessionKey) -> Option<&Session> {
        self.sessions.get(key)
    }

    pub(crate) fn live(&self, key: &SessionKey) -> Option<&Session> {
        self.sessions.get(key).filter(|session| !session.deleted)
    }

    /// Returns the session that owns a position: the session itself or an ancestor.
    fn owner(&self, key: &SessionKey, seq: u64) -> &Session {
        let mut session = &self.sessions[key];
        while let Some((parent, at)) = session.parent
            && seq <= at.0
        {
            session = &self.sessions[&SessionKey::new(key.namespace.clone(), parent)];
        }
        session
    }

    pub(crate) fn snapshot(&self, key: &SessionKey, at: u64) -> Option<Snapshot> {
        let first = self.live(key)?.first;
        let mut session = self.live(key)?;
        let mut at = at;
        loop {
            if let Some((seq, data)) = session.snapshots.range(..=at).next_back() {
                let found = Snapshot { at: Seq(*seq), data: data.clone() };
                return (found.at.0 + 1 >= first).then_some(found);
            }
            let (parent, base) = session.parent?;
            at = at.min(base.0);
            session = &self.sessions[&SessionKey::new(key.namespace.clone(), parent)];
        }
    }

    /// Adds to a session, which begins to exist by it. Returns its last position.
    pub(crate) fn extend(
        &mut self,
        key: &SessionKey,
        entries: Vec<Bytes>,
        row: Option<Row>,
        snapshot: Option<Bytes>,
    ) -> u64 {
        let session = self
            .sessions
            .entry(key.clone())
            .or_insert_with(|| Session { first: 1, ..Session::default() });
        session.entries.extend(entries);
        let last = session.last();
        if let Some(row) = row {
            session.row = row;
        }
        if let Some(snapshot) = snapshot {
            session.snapshots.insert(last, snapshot);
        }
        last
    }

    pub(crate) fn read(
        &self,
        key: &SessionKey,
        after: Seq,
        limit: ReadLimit,
    ) -> Result<Vec<Entry>, ReadError> {
        let session = self.live(key).ok_or(ReadError::NotFound)?;
        if after.0 + 1 < session.first {
            return Err(ReadError::Cut { first: Seq(session.first) });
        }
        let mut entries = Vec::new();
        let mut bytes = 0;
        for seq in after.0 + 1..=session.last() {
            let owner = self.owner(key, seq);
            let at = usize::try_from(seq - owner.base() - 1).expect("it is an index in memory");
            let payload = owner.entries[at].clone();
            bytes += payload.len();
            let full = entries.len() >= limit.entries || bytes > limit.bytes;
            if full && !entries.is_empty() {
                break;
            }
            entries.push(Entry { seq: Seq(seq), payload });
        }
        Ok(entries)
    }

    /// Makes the session that a branch would be; [`Self::insert`] keeps it.
    pub(crate) fn branch(
        &self,
        parent: &SessionKey,
        at: Seq,
        child: SessionId,
        row: Row,
    ) -> Result<(SessionKey, Session), BranchError> {
        limits::check_row(&row)?;
        let from = self.live(parent).ok_or(BranchError::NotFound)?;
        let (first, last) = (Seq(from.first).prev(), Seq(from.last()));
        if at < first || at > last {
            return Err(BranchError::OutOfRange { at, first, last });
        }
        let key = SessionKey::new(parent.namespace.clone(), child);
        if self.sessions.contains_key(&key) {
            return Err(BranchError::Exists { child });
        }
        let parent = Some((parent.session, at));
        Ok((key, Session { row, parent, first: from.first, ..Session::default() }))
    }

    pub(crate) fn insert(&mut self, key: SessionKey, session: Session) {
        self.sessions.insert(key, session);
    }

    /// Whether a cut would change anything.
    pub(crate) fn check_cut(&self, key: &SessionKey, below: Seq) -> Result<bool, CutError> {
        let session = self.live(key).ok_or(CutError::NotFound)?;
        if below.0 <= session.first {
            return Ok(false);
        }
        let newest = self.snapshot(key, session.last());
        if newest.is_none_or(|snapshot| snapshot.at < below.prev()) {
            return Err(CutError::Uncovered { below });
        }
        Ok(true)
    }

    pub(crate) fn cut(&mut self, key: &SessionKey, below: Seq) {
        self.sessions.get_mut(key).expect("it was checked before").first = below.0;
    }

    pub(crate) fn delete(&mut self, key: &SessionKey) {
        self.sessions.get_mut(key).expect("it was checked before").deleted = true;
    }

    pub(crate) fn list(&self, query: &ListQuery) -> Page {
        let mut page = Page::default();
        let limit = query.limit.max(1);
        for (key, session) in &self.sessions {
            let past = key.namespace == query.namespace && Some(key.session) > query.after;
            if !past || session.deleted || !limits::passes(&query.filter, &session.row) {
                continue;
            }
            if page.rows.len() == limit {
                page.next = page.rows.last().map(|row| row.session);
                break;
            }
            page.rows.push(RowEntry { session: key.session, head: session.head() });
        }
        page
    }

    pub(crate) fn namespaces(&self) -> Vec<Namespace> {
        let names: BTreeSet<_> = self.sessions.keys().map(|key| key.namespace.clone()).collect();
        names.into_iter().collect()
    }
}
