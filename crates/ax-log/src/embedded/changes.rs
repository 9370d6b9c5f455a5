//! What the committer does for requests other than appends.

use ax_core::id::{Epoch, Seq, SessionId, SessionKey};

use super::committer::Committer;
use super::format::SessionState;
use super::request::{Acquired, Branch, Done, Reply};
use super::sessions::Slot;
use crate::limits;
use crate::types::{AcquireError, BranchError, CutError, DeleteError, Lease};

/// How many ancestors one deletion lets go of at most. Those beyond keep their space.
const UNPIN_COUNT_MAX: usize = 2_000;

impl Committer {
    pub(super) fn acquire(&mut self, key: SessionKey, reply: Reply<Lease, AcquireError>) {
        let made = self.lease(&key);
        self.done(Done::Acquire(reply, Box::new(Acquired { key, made })));
    }

    fn lease(&mut self, key: &SessionKey) -> Result<Lease, AcquireError> {
        let epoch = self.epoch();
        let slot = self.track(key)?;
        let tracked = self.sessions.at(slot);
        if tracked.state.as_ref().is_some_and(|state| state.deleted) {
            self.sessions.settle(slot);
            return Err(AcquireError::Deleted);
        }
        tracked.epoch = Some(epoch);
        let row = tracked.state.as_ref().map(|state| state.row.clone());
        Ok(Lease { epoch, next: tracked.next(), row })
    }

    pub(super) fn release(&mut self, key: &SessionKey, epoch: Epoch) {
        let Some(slot) = self.sessions.find(key) else { return };
        let tracked = self.sessions.at(slot);
        if tracked.epoch == Some(epoch) {
            tracked.epoch = None;
        }
        self.sessions.settle(slot);
    }

    pub(super) fn branch(&mut self, branch: &Branch, reply: Reply<(), BranchError>) {
        let made = self.make_branch(branch);
        self.done(Done::Branch(reply, made));
    }

    fn make_branch(&mut self, branch: &Branch) -> Result<(), BranchError> {
        let child = SessionKey::new(branch.parent.namespace.clone(), branch.child);
        let parent = self.track(&branch.parent)?;
        let child = self.track(&child).inspect_err(|_| self.sessions.settle(parent))?;
        match self.branch_states(branch, parent, child) {
            Ok((pinned, state)) => {
                self.put_state(parent, pinned);
                self.put_state(child, state);
                Ok(())
            }
            Err(error) => {
                self.sessions.settle(parent);
                if child != parent {
                    self.sessions.settle(child);
                }
                Err(error)
            }
        }
    }

    fn branch_states(
        &mut self,
        branch: &Branch,
        parent: Slot,
        child: Slot,
    ) -> Result<(SessionState, SessionState), BranchError> {
        limits::check_row(&branch.row)?;
        let parent = self.live(parent).ok_or(BranchError::NotFound)?;
        let (at, first, last) = (branch.at, Seq(parent.first).prev(), Seq(parent.last));
        if at < first || at > last {
            return Err(BranchError::OutOfRange { at, first, last });
        }
        if self.sessions.at(child).state.is_some() {
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
        let made = self.make_cut(key, below);
        self.done(Done::Cut(reply, made));
    }

    fn make_cut(&mut self, key: &SessionKey, below: Seq) -> Result<(), CutError> {
        let slot = self.track(key)?;
        match self.cut_state(slot, below) {
            Ok(Some(state)) => self.put_state(slot, state),
            Ok(None) => self.sessions.settle(slot),
            Err(error) => {
                self.sessions.settle(slot);
                return Err(error);
            }
        }
        Ok(())
    }

    fn cut_state(&mut self, slot: Slot, below: Seq) -> Result<Option<SessionState>, CutError> {
        let state = self.live(slot).ok_or(CutError::NotFound)?;
        if below.0 <= state.first {
            return Ok(None);
        }
        // A snapshot that is not durable yet does not count.
        let of = self.sessions.at(slot).of;
        let newest = self.shared.version().snapshot(of, &state, state.last)?;
        if newest.is_none_or(|(at, _)| at + 1 < below.0) {
            return Err(CutError::Uncovered { below });
        }
        Ok(Some(SessionState { first: below.0, ..state }))
    }

    pub(super) fn delete(&mut self, key: &SessionKey, reply: Reply<(), DeleteError>) {
        let made = self.make_deletion(key);
        self.done(Done::Delete(reply, made));
    }

    fn make_deletion(&mut self, key: &SessionKey) -> Result<(), DeleteError> {
        let slot = self.track(key)?;
        let Some(state) = self.live(slot) else {
            self.sessions.settle(slot);
            return Err(DeleteError::NotFound);
        };
        let unpins = if state.pin_count == 0 { state.parent } else { None };
        self.sessions.at(slot).epoch = None;
        self.put_state(slot, SessionState { deleted: true, row: crate::Row::default(), ..state });
        if let Some((parent, _)) = unpins {
            self.unpin(&SessionKey::new(key.namespace.clone(), SessionId(parent)));
        }
        Ok(())
    }

    /// Lets go of what a branch shared with its parent, and of what the parent shared if that was
    /// deleted and has no other branch.
    fn unpin(&mut self, parent: &SessionKey) {
        let mut key = parent.clone();
        for _ in 0..UNPIN_COUNT_MAX {
            // Where this ends early some sessions keep their space; nothing is lost.
            let Ok(slot) = self.track(&key) else { return };
            let Some(mut state) = self.sessions.at(slot).state.clone() else { return };
            state.pin_count = state.pin_count.saturating_sub(1);
            if state.pin_count == 0 {
                state.pin_last = 0;
            }
            let gone = state.deleted && state.pin_count == 0;
            let above = state.parent;
            self.put_state(slot, state);
            match above {
                Some((session, _)) if gone => key.session = SessionId(session),
                _ => return,
            }
        }
    }

    fn live(&mut self, slot: Slot) -> Option<SessionState> {
        self.sessions.at(slot).state.clone().filter(|state| !state.deleted)
    }
}
