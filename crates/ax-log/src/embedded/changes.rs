//! What the committer does for requests other than appends.

use ax_core::id::{Epoch, Seq, SessionId, SessionKey};

use super::committer::Committer;
use super::format::SessionState;
use super::request::{Branch, Done, Reply};
use crate::limits;
use crate::types::{AcquireError, BranchError, CutError, DeleteError, Lease, LogFault};

/// How many ancestors one deletion lets go of at most. Those beyond keep their space.
const UNPIN_COUNT_MAX: usize = 2_000;

impl Committer {
    pub(super) fn acquire(&mut self, key: SessionKey, reply: Reply<Lease, AcquireError>) {
        let epoch = self.epoch();
        let lease = match self.track(&key) {
            Err(fault) => Err(fault.into()),
            Ok(tracked) => match &tracked.state {
                Some(state) if state.deleted => Err(AcquireError::Deleted),
                state => {
                    let row = state.as_ref().map(|state| state.row.clone());
                    tracked.epoch = Some(epoch);
                    Ok(Lease { epoch, next: tracked.next(), row })
                }
            },
        };
        match lease {
            Ok(lease) => self.done(Done::Acquire(reply, key, lease)),
            Err(error) => {
                self.settle(&key);
                drop(reply.send(Err(error)));
            }
        }
    }

    pub(super) fn release(&mut self, key: &SessionKey, epoch: Epoch) {
        if let Ok(tracked) = self.track(key)
            && tracked.epoch == Some(epoch)
        {
            tracked.epoch = None;
        }
        self.settle(key);
    }

    pub(super) fn branch(&mut self, branch: Branch, reply: Reply<(), BranchError>) {
        let child = SessionKey::new(branch.parent.namespace.clone(), branch.child);
        match self.branch_states(&branch, &child) {
            Ok((parent, state)) => {
                self.put_state(branch.parent, parent);
                self.put_state(child, state);
                self.done(Done::Branch(reply));
            }
            Err(error) => {
                self.settle(&branch.parent);
                self.settle(&child);
                drop(reply.send(Err(error)));
            }
        }
    }

    fn branch_states(
        &mut self,
        branch: &Branch,
        child: &SessionKey,
    ) -> Result<(SessionState, SessionState), BranchError> {
        limits::check_row(&branch.row)?;
        let parent = self.live(&branch.parent)?.ok_or(BranchError::NotFound)?;
        let (at, first, last) = (branch.at, Seq(parent.first).prev(), Seq(parent.last));
        if at < first || at > last {
            return Err(BranchError::OutOfRange { at, first, last });
        }
        if self.track(child)?.state.is_some() {
            return Err(BranchError::Exists { child: branch.child });
        }
        let state = SessionState {
            row: branch.row.clone(),
            last: at.0,
            first: parent.first,
            parent: Some((branch.parent.session.0, at.0)),
            ..SessionState::unborn()
        };
        let pinned = SessionState {
            pin_count: parent.pin_count + 1,
            pin_last: parent.pin_last.max(at.0),
            ..parent
        };
        Ok((pinned, state))
    }

    pub(super) fn cut(&mut self, key: &SessionKey, below: Seq, reply: Reply<(), CutError>) {
        match self.cut_state(key, below) {
            Ok(state) => {
                if let Some(state) = state {
                    self.put_state(key.clone(), state);
                }
                self.done(Done::Cut(reply));
            }
            Err(error) => {
                self.settle(key);
                drop(reply.send(Err(error)));
            }
        }
    }

    fn cut_state(
        &mut self,
        key: &SessionKey,
        below: Seq,
    ) -> Result<Option<SessionState>, CutError> {
        let state = self.live(key)?.ok_or(CutError::NotFound)?;
        if below.0 <= state.first {
            return Ok(None);
        }
        // A snapshot that is in this very block does not count: it is not durable yet.
        let of = self.track(key)?.of;
        let newest = self.shared.version().snapshot(of, &state, state.last)?;
        if newest.is_none_or(|(at, _)| at + 1 < below.0) {
            return Err(CutError::Uncovered { below });
        }
        Ok(Some(SessionState { first: below.0, ..state }))
    }

    pub(super) fn delete(&mut self, key: &SessionKey, reply: Reply<(), DeleteError>) {
        match self.delete_state(key) {
            Ok(state) => {
                let unpins = if state.pin_count == 0 { state.parent } else { None };
                self.put_state(key.clone(), state);
                if let Some((parent, _)) = unpins {
                    self.unpin(&SessionKey::new(key.namespace.clone(), SessionId(parent)));
                }
                self.done(Done::Delete(reply));
            }
            Err(error) => {
                self.settle(key);
                drop(reply.send(Err(error)));
            }
        }
    }

    fn delete_state(&mut self, key: &SessionKey) -> Result<SessionState, DeleteError> {
        let state = self.live(key)?.ok_or(DeleteError::NotFound)?;
        self.track(key)?.epoch = None;
        Ok(SessionState { deleted: true, row: crate::Row::default(), ..state })
    }

    /// Lets go of what a branch shared with its parent, and of what the parent shared if that was
    /// deleted and has no other branch.
    fn unpin(&mut self, parent: &SessionKey) {
        let mut key = parent.clone();
        for _ in 0..UNPIN_COUNT_MAX {
            let Ok(Some(mut state)) = self.track(&key).map(|tracked| tracked.state.clone()) else {
                // It keeps its space; nothing is lost.
                return;
            };
            state.pin_count = state.pin_count.saturating_sub(1);
            let gone = state.deleted && state.pin_count == 0;
            let above = state.parent;
            self.put_state(key.clone(), state);
            match above {
                Some((session, _)) if gone => key.session = SessionId(session),
                _ => return,
            }
        }
    }

    fn live(&mut self, key: &SessionKey) -> Result<Option<SessionState>, LogFault> {
        let state = self.track(key)?.state.clone();
        Ok(state.filter(|state| !state.deleted))
    }
}
