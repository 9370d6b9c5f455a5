//! The checks that every backend makes alike.

use crate::types::{
    APPEND_BYTES_MAX, APPEND_ENTRIES_MAX, Append, AppendError, BranchError, ENTRY_BYTES_MAX,
    Filter, ROW_BYTES_MAX, ROW_STATE_MAX, Row, SNAPSHOT_BYTES_MAX,
};

/// How many bits of an epoch count the acquisitions since the store was opened; the bits above
/// count the openings.
const EPOCH_COUNTER_BITS: u32 = 40;

/// Returns the first epoch of an opening of a store.
pub(crate) fn epoch_first(generation: u64) -> u64 {
    assert!(generation < 1 << (64 - EPOCH_COUNTER_BITS), "a store is opened 2^24 times at most");
    generation << EPOCH_COUNTER_BITS
}

/// Whether an append would change nothing.
pub(crate) fn is_empty(append: &Append) -> bool {
    append.entries.is_empty() && append.row.is_none() && append.snapshot.is_none()
}

/// Checks an append against the limits of the log.
pub(crate) fn check(append: &Append) -> Result<(), AppendError> {
    within("the number of entries", append.entries.len(), APPEND_ENTRIES_MAX)?;
    let mut total = 0;
    for entry in &append.entries {
        within("the size of an entry", entry.len(), ENTRY_BYTES_MAX)?;
        total += entry.len();
    }
    if let Some(row) = &append.row {
        within("the state of the row", usize::from(row.state), usize::from(ROW_STATE_MAX))?;
        within("the size of the row", row.data.len(), ROW_BYTES_MAX)?;
        total += row.data.len();
    }
    if let Some(snapshot) = &append.snapshot {
        within("the size of the snapshot", snapshot.len(), SNAPSHOT_BYTES_MAX)?;
        total += snapshot.len();
    }
    within("the size of the append", total, APPEND_BYTES_MAX)
}

/// Checks the row of a branch against the limits of the log.
pub(crate) fn check_row(row: &Row) -> Result<(), BranchError> {
    let over = |what, bytes, limit| BranchError::TooLarge { what, bytes, limit };
    if row.state > ROW_STATE_MAX {
        let state = usize::from(row.state);
        return Err(over("the state of the row", state, usize::from(ROW_STATE_MAX)));
    }
    if row.data.len() > ROW_BYTES_MAX {
        return Err(over("the size of the row", row.data.len(), ROW_BYTES_MAX));
    }
    Ok(())
}

fn within(what: &'static str, bytes: usize, limit: usize) -> Result<(), AppendError> {
    if bytes > limit { Err(AppendError::TooLarge { what, bytes, limit }) } else { Ok(()) }
}

/// Whether a row passes a filter.
pub(crate) fn passes(filter: &Filter, row: &Row) -> bool {
    let due = |before| row.due_millis.is_some_and(|due| due <= before);
    filter.states.has(row.state) && filter.due_before_millis.is_none_or(due)
}
