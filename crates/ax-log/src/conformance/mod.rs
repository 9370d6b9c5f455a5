//! The law of [`EventLog`] as tests, which every backend runs.
//!
//! A backend gives a [`Store`] and calls [`all`] with a maker of fresh ones. The tests panic where
//! the law is broken. They are plain async functions: a simulator can run them as well.

#![expect(clippy::unwrap_used, reason = "the tests of other crates' backends")]

mod branches;
mod leases;
mod lifetime;
mod order;

use std::sync::Arc;

use ax_core::id::{Namespace, Seq, SessionId, SessionKey};
use bytes::Bytes;
use futures::future::LocalBoxFuture;

use crate::EventLog;
use crate::types::{
    Append, AppendError, Entry, Filter, Lease, ListQuery, ReadLimit, Row, RowEntry,
};

pub use branches::{
    law_07_a_branch_of_a_branch_reads_through, law_07_a_branch_reads_as_its_parent_then_as_itself,
    law_07_a_branch_sees_the_snapshots_before_it, law_07_what_cannot_be_branched_is_refused,
    law_08_a_deleted_parent_keeps_what_its_branches_share,
    law_08_a_deleted_session_is_gone_for_good, law_09_a_cut_is_seen_by_a_read_that_begins_there,
    law_09_a_cut_keeps_what_a_branch_shares,
};
pub use leases::{
    law_13_a_lapsed_lease_is_taken_over, law_13_only_the_holder_of_a_lease_writes,
    law_13_what_is_given_back_is_free_at_once, law_14_a_fence_falls_with_the_lease,
};
pub use lifetime::{
    law_01_what_was_acknowledged_is_there_after_a_crash, law_06_a_watcher_sees_the_end,
    law_06_a_watcher_sees_the_head_move, law_08_a_deletion_survives_a_crash,
    law_09_a_cut_survives_a_crash, law_12_a_closed_log_does_nothing,
    law_12_after_a_failed_write_nothing_is_taken,
};
pub use order::{
    law_02_row_snapshot_and_entries_come_together, law_03_positions_have_no_gaps,
    law_03_reads_stop_at_their_limits, law_04_a_wrong_position_changes_nothing,
    law_05_a_released_epoch_is_refused, law_05_a_stale_writer_is_refused,
    law_05_epochs_grow_over_restarts, law_10_pages_follow_ids_and_filters,
    law_11_namespaces_do_not_see_each_other,
};

/// One store of a backend, which can be opened, crashed and broken.
pub trait Store {
    /// Opens the store; the log that was opened before, if any, was dropped or crashed.
    fn open(&self) -> LocalBoxFuture<'_, Arc<dyn EventLog>>;

    /// Lets the process that has the log open die, as abruptly as the backend can.
    fn crash(&self, log: Arc<dyn EventLog>) -> LocalBoxFuture<'_, ()>;

    /// Opens the store in another process, beside the one that has it open. `None` if one process
    /// has the store for itself.
    fn join(&self) -> Option<LocalBoxFuture<'_, Arc<dyn EventLog>>> {
        None
    }

    /// Lets so much time pass, in which no process gets to do anything, that every lease lapses.
    fn lapse(&self) {}

    /// Makes the writes of the open log fail from now on. Returns whether the backend can do so.
    fn break_writes(&self) -> bool {
        false
    }
}

type Law = (&'static str, for<'a> fn(&'a dyn Store) -> LocalBoxFuture<'a, ()>);

macro_rules! laws {
    ($($law:ident),* $(,)?) => {
        /// Every law with its name, for runners that want one test a law.
        pub const LAWS: &[Law] = &[$((stringify!($law), |store| Box::pin($law(store)))),*];
    };
}

laws![
    law_01_what_was_acknowledged_is_there_after_a_crash,
    law_02_row_snapshot_and_entries_come_together,
    law_03_positions_have_no_gaps,
    law_03_reads_stop_at_their_limits,
    law_04_a_wrong_position_changes_nothing,
    law_05_a_released_epoch_is_refused,
    law_05_a_stale_writer_is_refused,
    law_05_epochs_grow_over_restarts,
    law_06_a_watcher_sees_the_head_move,
    law_06_a_watcher_sees_the_end,
    law_07_a_branch_of_a_branch_reads_through,
    law_07_a_branch_reads_as_its_parent_then_as_itself,
    law_07_a_branch_sees_the_snapshots_before_it,
    law_07_what_cannot_be_branched_is_refused,
    law_08_a_deleted_parent_keeps_what_its_branches_share,
    law_08_a_deleted_session_is_gone_for_good,
    law_08_a_deletion_survives_a_crash,
    law_09_a_cut_is_seen_by_a_read_that_begins_there,
    law_09_a_cut_keeps_what_a_branch_shares,
    law_09_a_cut_survives_a_crash,
    law_10_pages_follow_ids_and_filters,
    law_11_namespaces_do_not_see_each_other,
    law_12_a_closed_log_does_nothing,
    law_12_after_a_failed_write_nothing_is_taken,
    law_13_a_lapsed_lease_is_taken_over,
    law_13_only_the_holder_of_a_lease_writes,
    law_13_what_is_given_back_is_free_at_once,
    law_14_a_fence_falls_with_the_lease,
];

/// Runs every law, each on a fresh store.
pub async fn all<S: Store>(mut fresh: impl FnMut() -> S) {
    for (name, law) in LAWS {
        tracing::debug!(name, "law");
        law(&fresh()).await;
    }
}

pub(crate) fn key(session: u128) -> SessionKey {
    SessionKey::new(Namespace::default(), SessionId(session))
}

/// Returns a payload that says which session and position it is of.
pub(crate) fn payload(session: u128, seq: u64) -> Bytes {
    Bytes::from(format!("{session}:{seq}:{}", "x".repeat(usize::try_from(seq % 57).unwrap())))
}

pub(crate) fn row(state: u8, data: &str) -> Row {
    Row { state, due_millis: None, updated_millis: 7, data: Bytes::from(data.to_owned()) }
}

/// Makes an append of `count` numbered payloads at the position of the lease.
pub(crate) fn entries(key: &SessionKey, lease: &Lease, count: u64) -> Append {
    let first = lease.next.0;
    Append {
        key: key.clone(),
        epoch: lease.epoch,
        expected: lease.next,
        entries: (first..first + count).map(|seq| payload(key.session.0, seq)).collect(),
        row: None,
        snapshot: None,
    }
}

/// Appends numbered payloads and moves the lease on.
pub(crate) async fn extend(log: &dyn EventLog, key: &SessionKey, lease: &mut Lease, count: u64) {
    let last = log.append(entries(key, lease, count)).await.unwrap();
    assert_eq!(last.0, lease.next.0 + count - 1, "the position of the last entry is returned");
    lease.next = last.next();
}

/// Acquires a session and gives it `count` numbered entries.
pub(crate) async fn filled(log: &dyn EventLog, key: &SessionKey, count: u64) -> Lease {
    let mut lease = log.acquire(key).await.unwrap();
    extend(log, key, &mut lease, count).await;
    lease
}

pub(crate) async fn read_all(log: &dyn EventLog, key: &SessionKey, after: u64) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut after = Seq(after);
    loop {
        let more = log.read(key, after, ReadLimit { entries: 7, bytes: 4096 }).await.unwrap();
        let Some(last) = more.last() else { return entries };
        after = last.seq;
        entries.extend(more);
    }
}

/// Asserts that a session holds the numbered payloads of `owner(seq)` from `first` to `last`.
pub(crate) async fn assert_holds(
    log: &dyn EventLog,
    key: &SessionKey,
    first: u64,
    last: u64,
    owner: impl Fn(u64) -> u128,
) {
    let read = read_all(log, key, first - 1).await;
    assert_eq!(read.len() as u64, last + 1 - first, "{key} holds {first} to {last}");
    for (entry, seq) in read.iter().zip(first..) {
        assert_eq!(entry.seq, Seq(seq));
        assert_eq!(entry.payload, payload(owner(seq), seq), "{key} at {seq}");
    }
    let head = log.head(key).await.unwrap().unwrap();
    assert_eq!(head.last, Seq(last), "the head is the last entry");
}

pub(crate) async fn list_all(
    log: &dyn EventLog,
    namespace: &Namespace,
    limit: usize,
    filter: Filter,
) -> Vec<RowEntry> {
    let mut rows = Vec::new();
    let mut after = None;
    loop {
        let query = ListQuery { namespace: namespace.clone(), after, limit, filter };
        let page = log.list(query).await.unwrap();
        assert!(page.rows.len() <= limit, "a page keeps to its limit");
        rows.extend(page.rows);
        match page.next {
            Some(next) => after = Some(next),
            None => return rows,
        }
    }
}

pub(crate) fn assert_fenced(result: Result<Seq, AppendError>) {
    assert!(matches!(result, Err(AppendError::Fenced { .. })), "{result:?}");
}
