//! Brings a session's state back from the log.

use crate::codec;
use crate::inner::{Inner, ROW_IMPORTING};
use crate::observe::HISTORY_EVENTS_MAX;
use crate::{Code, Error};
use ax_core::id::{Epoch, Seq, SessionId, SessionKey};
use ax_core::session::{Event, Session, State};
use ax_core::time::Timestamp;
use ax_log::{EventLog, Fence, ReadLimit};

/// A session whose state is at hand.
pub(super) struct Loaded {
    pub(super) session: Session,
    pub(super) epoch: Epoch,
    pub(super) fence: Fence,
    pub(super) parent: Option<(SessionId, Seq)>,
    /// Its import is not finished.
    pub(super) is_half: bool,
    /// The position of the newest snapshot.
    pub(super) snapshot_at: Seq,
    /// When the last event was decided.
    pub(super) floor: Timestamp,
}

/// Takes the right to write a session, and brings its state back.
pub(super) async fn load(inner: &Inner, key: &SessionKey) -> Result<Loaded, Error> {
    let lease = inner.log.acquire(key).await?;
    let parent = match lease.row {
        Some(_) => inner.log.head(key).await?.and_then(|head| head.parent),
        None => None,
    };
    let is_half = lease.row.as_ref().is_some_and(|row| row.state == ROW_IMPORTING);
    let last = lease.next.prev();
    let (session, snapshot_at, floor) = match replay(inner.log.as_ref(), key, last).await {
        Ok(replayed) => replayed,
        Err(error) => {
            inner.log.release(key, lease.epoch);
            return Err(error);
        }
    };
    let fence = inner.log.fence(key, lease.epoch);
    Ok(Loaded { session, epoch: lease.epoch, fence, parent, is_half, snapshot_at, floor })
}

impl super::Task {
    /// Tells the observer that the session is awake, and what it was doing. What cannot be read
    /// is not told: nothing rests on it.
    pub(super) async fn observe(&mut self) {
        let (inner, state) = (&self.inner, self.session.state());
        let mut history = Vec::new();
        if let Some(exec) = state.exec.as_ref().filter(|_| inner.observer.wants_history()) {
            read_events(inner.log.as_ref(), &self.key, exec.input.prev(), exec.input, &mut history)
                .await;
            let after = exec.journal_from.prev().max(exec.input);
            read_events(inner.log.as_ref(), &self.key, after, state.last, &mut history).await;
        }
        inner.observer.woke(&self.key, state, &history);
    }
}

/// Reads events after one position, up to another.
async fn read_events(
    log: &dyn EventLog,
    key: &SessionKey,
    mut after: Seq,
    last: Seq,
    events: &mut Vec<(Seq, Event)>,
) {
    while after < last && events.len() < HISTORY_EVENTS_MAX {
        let Ok(entries) = log.read(key, after, ReadLimit::default()).await else { return };
        let Some(newest) = entries.last() else { return };
        after = newest.seq;
        let entries = entries.iter().filter(|entry| entry.seq <= last);
        let decoded = entries.filter_map(|entry| {
            codec::decode_event(&entry.payload).ok().map(|event| (entry.seq, event))
        });
        events.extend(decoded);
    }
    events.truncate(HISTORY_EVENTS_MAX);
}

/// Brings the state of a session back without taking the right to write it.
pub(crate) async fn read_only(
    inner: &Inner,
    key: &SessionKey,
) -> Result<(Session, ax_log::Head), Error> {
    let head = inner.log.head(key).await?;
    let head = head.ok_or_else(|| {
        Error::new(Code::NoSession, format!("there is no session {}", key.session))
    })?;
    let (session, ..) = replay(inner.log.as_ref(), key, head.last).await?;
    Ok((session, head))
}

async fn replay(
    log: &dyn EventLog,
    key: &SessionKey,
    last: Seq,
) -> Result<(Session, Seq, Timestamp), Error> {
    let (state, snapshot_at) = snapshot(log, key, last).await?;
    let mut floor = Timestamp::default();
    let mut events = Vec::new();
    // One that the snapshot has in it says how late it was.
    let mut after = if snapshot_at == last { last.prev() } else { snapshot_at };
    while after < last {
        let entries = log.read(key, after, ReadLimit::default()).await?;
        let Some(newest) = entries.last() else {
            let what = format!("{key} ends at {after}, its head says {last}");
            return Err(Error::new(Code::Damaged, what));
        };
        after = newest.seq;
        for entry in &entries {
            let event = codec::decode_event(&entry.payload).map_err(|error| {
                let what = format!("event {} of {key} cannot be read", entry.seq);
                Error::new(Code::Damaged, what).caused_by(&error)
            })?;
            floor = floor.max(event.at);
            if entry.seq > snapshot_at {
                events.push(event);
            }
        }
    }
    Ok((Session::restore(state, &events), snapshot_at, floor))
}

/// Returns the newest state that was stored and can be read, and its position. The events are the
/// truth: a snapshot that cannot be read costs time, nothing else.
async fn snapshot(log: &dyn EventLog, key: &SessionKey, last: Seq) -> Result<(State, Seq), Error> {
    let mut at = last;
    while at > Seq::ZERO {
        let Some(snapshot) = log.snapshot(key, at).await? else { break };
        at = snapshot.at;
        match codec::decode_state(&snapshot.data) {
            Ok(state) if state.last == at => return Ok((state, at)),
            Ok(_) => tracing::warn!(session = %key, %at, "a snapshot is misplaced"),
            Err(error) => tracing::warn!(session = %key, %at, %error, "a snapshot is unreadable"),
        }
        at = at.prev();
    }
    Ok((State::default(), Seq::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ax_core::id::{Namespace, SessionId};
    use ax_core::session::{Actor, Kind};
    use ax_log::{Append, MemoryLog, Row};

    #[tokio::test]
    async fn a_snapshot_of_everything_does_not_forget_how_late_it_was() {
        let log = MemoryLog::default();
        let key = SessionKey::new(Namespace::default(), SessionId(7));
        let epoch = log.acquire(&key).await.unwrap().epoch;
        let at = Timestamp::from_millis(9_000);
        let event = Event {
            at,
            actor: Actor::User,
            principal: "".into(),
            request: "".into(),
            trace: "".into(),
            exec: None,
            attempt: None,
            kind: Kind::SessionRenamed { title: "one".into() },
        };
        let state = State { last: Seq(1), ..State::default() };
        let append = Append {
            key: key.clone(),
            epoch,
            expected: Seq(1),
            entries: vec![codec::encode_event(&event)],
            row: Some(Row::default()),
            snapshot: Some(codec::encode_state(&state)),
        };
        log.append(append).await.unwrap();
        let (session, snapshot_at, floor) = replay(&log, &key, Seq(1)).await.unwrap();
        assert_eq!((snapshot_at, floor, session.state().last), (Seq(1), at, Seq(1)));
    }
}
