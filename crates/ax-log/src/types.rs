//! What goes into a log and what comes out.

use ax_core::id::{Epoch, Namespace, Seq, SessionId, SessionKey};
use bytes::Bytes;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// The largest payload of one entry, in bytes. Larger content belongs in the blob store.
pub const ENTRY_BYTES_MAX: usize = 256 * 1024;
/// The most entries of one append.
pub const APPEND_ENTRIES_MAX: usize = 1024;
/// The most payload bytes of one append, its row and snapshot included.
pub const APPEND_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The largest [`Row::state`]: filters select states by a mask of 32 bits.
pub const ROW_STATE_MAX: u8 = 31;
/// The largest [`Row::data`], in bytes.
pub const ROW_BYTES_MAX: usize = 16 * 1024;
/// The largest snapshot, in bytes.
pub const SNAPSHOT_BYTES_MAX: usize = 2 * 1024 * 1024;

/// One entry of a session's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its position.
    pub seq: Seq,
    /// What was appended.
    pub payload: Bytes,
}

/// What the log keeps of a session beside its entries, to list and find it by while it sleeps.
/// The writer replaces it as a whole when it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// A small number that filters select by; the engine defines what it means.
    pub state: u8,
    /// When the session wants to be woken, in milliseconds since the Unix epoch.
    pub due_millis: Option<u64>,
    /// When the row was written, in milliseconds since the Unix epoch.
    pub updated_millis: u64,
    /// Whatever else the engine wants to show in a list.
    pub data: Bytes,
}

/// A snapshot of what the entries up to a position amount to; opaque to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The last position that it covers.
    pub at: Seq,
    /// The encoded state.
    pub data: Bytes,
}

/// One conditional, fenced, atomic append.
#[derive(Clone, Debug)]
pub struct Append {
    /// The session.
    pub key: SessionKey,
    /// The right to write, from [`Lease::epoch`].
    pub epoch: Epoch,
    /// The position that the first entry is to have.
    pub expected: Seq,
    /// The payloads; may be empty if a row or a snapshot is given.
    pub entries: Vec<Bytes>,
    /// The session's new row, if it changed.
    pub row: Option<Row>,
    /// A snapshot that covers everything up to and with the last entry of this append.
    pub snapshot: Option<Bytes>,
}

/// The right to write a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The number to append with.
    pub epoch: Epoch,
    /// The position that the next entry will have.
    pub next: Seq,
    /// The row; `None` if the session does not exist yet.
    pub row: Option<Row>,
}

/// What is known of a session without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The position of the last durable entry.
    pub last: Seq,
    /// The lowest position that can still be read.
    pub first: Seq,
    /// The row.
    pub row: Row,
    /// The session it is a branch of, and the last position that the two share.
    pub parent: Option<(SessionId, Seq)>,
}

/// The durable head of a session as it moves: the position of its last entry.
#[derive(Clone, Debug)]
pub struct HeadWatch {
    pub(crate) receiver: watch::Receiver<HeadState>,
}

/// What a watcher sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadState {
    /// The position of the last durable entry; 0 if there is none.
    pub last: Seq,
    /// The session was deleted, or the log was closed: nothing will follow.
    pub ended: bool,
}

impl HeadWatch {
    /// Returns the head as it is now.
    pub fn current(&self) -> HeadState {
        *self.receiver.borrow()
    }

    /// Waits until an entry after `after` is durable or nothing will follow.
    pub async fn beyond(&mut self, after: Seq) -> HeadState {
        let seen = self.receiver.wait_for(|head| head.last > after || head.ended).await;
        let seen = seen.map(|head| *head);
        seen.unwrap_or_else(|_| HeadState { last: self.current().last, ended: true })
    }
}

/// A clock of a process: it says how long ago some fixed moment was, and only goes on.
pub type Ticker = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Says whether what a writer does may still rest on its right to write.
///
/// A log that one process has for itself never takes the right away while the process lives. Where
/// processes share a store the right is a lease: the fence falls some time *before* the store may
/// give it to another, and never stands again.
#[derive(Clone)]
pub struct Fence {
    lease: Option<(Arc<Until>, Ticker)>,
}

/// Until when a lease may be relied on, by the clock of its holder. Whoever waits for its end is
/// told in the order in which they began to.
#[derive(Debug)]
pub(crate) struct Until {
    /// `None` once it is over.
    end: Mutex<Option<Duration>>,
    over: Notify,
}

impl Until {
    pub(crate) fn new(end: Duration) -> Self {
        Self { end: Mutex::new(Some(end)), over: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Duration>> {
        self.end.lock().expect("no holder of the lock panics")
    }

    /// Returns the end; `None` once it is over.
    pub(crate) fn end(&self) -> Option<Duration> {
        *self.lock()
    }

    pub(crate) fn holds(&self, now: Duration) -> bool {
        self.end().is_some_and(|end| now < end)
    }

    /// Moves the end on, unless it is over.
    pub(crate) fn extend(&self, to: Duration) {
        let mut end = self.lock();
        *end = end.map(|before| before.max(to));
    }

    /// It is over, for ever.
    pub(crate) fn finish(&self) {
        *self.lock() = None;
        self.over.notify_waiters();
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fence").field("holds", &self.holds()).finish()
    }
}

impl Fence {
    /// A fence that stands as long as the process does.
    pub const fn lasting() -> Self {
        Self { lease: None }
    }

    /// A fence that has fallen.
    pub(crate) fn fallen() -> Self {
        Self { lease: Some((Arc::new(Until::new(Duration::ZERO)), Arc::new(Duration::default))) }
    }

    pub(crate) const fn new(until: Arc<Until>, now: Ticker) -> Self {
        Self { lease: Some((until, now)) }
    }

    /// Whether it stands. Ask as late as possible before something is done.
    pub fn holds(&self) -> bool {
        self.lease.as_ref().is_none_or(|(until, now)| until.holds(now()))
    }

    /// Waits until it has fallen.
    pub async fn fallen_down(&self) {
        let Some((until, now)) = &self.lease else { return std::future::pending().await };
        loop {
            let over = until.over.notified();
            let Some(end) = until.end() else { return };
            let Some(left) = end.checked_sub(now()).filter(|left| !left.is_zero()) else { return };
            tokio::select! {
                biased;
                () = over => {}
                () = tokio::time::sleep(left) => {}
            }
        }
    }
}

/// Tells when this process was given sessions to write that it did not have before.
#[derive(Clone, Debug)]
pub struct Grants {
    granted: Option<Arc<Granted>>,
    seen: u64,
}

/// How often shards were granted to a process.
#[derive(Debug, Default)]
pub(crate) struct Granted {
    count: AtomicU64,
    more: Notify,
}

impl Granted {
    pub(crate) fn grant(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.more.notify_waiters();
    }
}

impl Grants {
    /// There is nothing to be told: every session is this process's from the beginning.
    pub const fn none() -> Self {
        Self { granted: None, seen: 0 }
    }

    pub(crate) fn new(granted: Arc<Granted>) -> Self {
        let seen = granted.count.load(Ordering::Relaxed);
        Self { granted: Some(granted), seen }
    }

    /// Waits until there are new ones since the last time.
    pub async fn more(&mut self) {
        let Some(granted) = &self.granted else { return std::future::pending().await };
        loop {
            let more = granted.more.notified();
            let count = granted.count.load(Ordering::Relaxed);
            if count != self.seen {
                self.seen = count;
                return;
            }
            more.await;
        }
    }
}

/// How much to read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimit {
    /// The most entries.
    pub entries: usize,
    /// The most payload bytes, passed only by a first entry that is larger.
    pub bytes: usize,
}

impl Default for ReadLimit {
    fn default() -> Self {
        Self { entries: 1_024, bytes: 1024 * 1024 }
    }
}

/// A set of [`Row::state`] values, each below 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateMask(pub u32);

impl StateMask {
    /// Every state.
    pub const ALL: Self = Self(u32::MAX);

    /// Returns the set of one state.
    pub const fn of(state: u8) -> Self {
        assert!(state < 32, "states are below 32");
        Self(1 << state)
    }

    /// Returns the set with another state.
    #[must_use]
    pub const fn and(self, state: u8) -> Self {
        Self(self.0 | Self::of(state).0)
    }

    /// Whether a state is in the set.
    pub const fn has(self, state: u8) -> bool {
        state < 32 && self.0 & (1 << state) != 0
    }
}

/// Which sessions a list shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Only rows in one of these states.
    pub states: StateMask,
    /// Only rows that are due at or before this time, in milliseconds since the Unix epoch.
    pub due_before_millis: Option<u64>,
}

impl Default for Filter {
    fn default() -> Self {
        Self { states: StateMask::ALL, due_before_millis: None }
    }
}

/// A request for a page of sessions.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// The tenant.
    pub namespace: Namespace,
    /// Only sessions with a greater id: the last one of the page before.
    pub after: Option<SessionId>,
    /// The most rows to return.
    pub limit: usize,
    /// Which sessions.
    pub filter: Filter,
}

/// One session in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowEntry {
    /// The session.
    pub session: SessionId,
    /// What is known of it.
    pub head: Head,
}

/// A page of sessions, in the order of their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The sessions.
    pub rows: Vec<RowEntry>,
    /// Where the next page begins; `None` if this is the last.
    pub next: Option<SessionId>,
}

/// The log as a whole cannot do it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogFault {
    /// A write or sync failed earlier; nothing is taken until the log is opened again.
    #[error("the log took a failed write and takes nothing more until it is opened again: {cause}")]
    Poisoned {
        /// What failed.
        cause: Arc<str>,
    },
    /// The disk is full: this write was not made, the log is intact, and a later one may succeed.
    #[error("no space is left for the log in {path}")]
    Full {
        /// The data directory.
        path: Arc<str>,
    },
    /// A read failed.
    #[error("reading {path} failed")]
    Read {
        /// The file.
        path: Arc<str>,
        /// What the system said.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// What is stored is not what was written.
    #[error("{path} is damaged at byte {offset}: {what}")]
    Damaged {
        /// The file.
        path: Arc<str>,
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        what: Arc<str>,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
    /// The store that holds the log did not answer. What was to be written may be found when the
    /// session is acquired again, or never.
    #[error("the store of the log does not answer: {cause}")]
    Unavailable {
        /// What was waited for.
        cause: Arc<str>,
    },
    /// Another process has the right to write the session, and lives.
    #[error("the session is written by the server at {at}")]
    Elsewhere {
        /// Where requests about it go.
        at: Arc<str>,
    },
}

/// Why a session could not be acquired.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AcquireError {
    /// The session was deleted; its id is not used again.
    #[error("the session was deleted")]
    Deleted,
    /// The log cannot do it.
    #[error(transparent)]
    Fault(#[from] LogFault),
}

/// Why an append was not made. Unless it is a fault, nothing was written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The position is taken or not reached yet.
    #[error("the next position is {next}, not {expected}")]
    WrongSeq {
        /// What the writer expected.
        expected: Seq,
        /// What it is.
        next: Seq,
    },
    /// Another writer has taken over, or the right was released.
    #[error("epoch {epoch} may not write any more")]
    Fenced {
        /// The epoch of the refused append.
        epoch: Epoch,
    },
    /// The session was deleted.
    #[error("the session was deleted")]
    Deleted,
    /// A limit of the log is exceeded.
    #[error("{what} is {bytes}, the limit is {limit}")]
    TooLarge {
        /// Which figure.
        what: &'static str,
        /// How large it is.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The log cannot do it. It is not known whether the append will be found after a reopening.
    #[error(transparent)]
    Fault(#[from] LogFault),
}

/// Why entries could not be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such session.
    #[error("there is no such session")]
    NotFound,
    /// The position was cut away.
    #[error("events before {first} are no longer kept")]
    Cut {
        /// The lowest position that can still be read.
        first: Seq,
    },
    /// The log cannot do it.
    #[error(transparent)]
    Fault(#[from] LogFault),
}

/// Why a branch was not made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BranchError {
    /// There is no such parent.
    #[error("there is no such session")]
    NotFound,
    /// The parent has no such position.
    #[error("position {at} is not within {first} to {last}")]
    OutOfRange {
        /// What was asked for.
        at: Seq,
        /// The lowest position that can be branched at.
        first: Seq,
        /// The highest.
        last: Seq,
    },
    /// The child's id is in use.
    #[error("session {child} exists already")]
    Exists {
        /// The id.
        child: SessionId,
    },
    /// The row exceeds a limit of the log.
    #[error("{what} is {bytes}, the limit is {limit}")]
    TooLarge {
        /// Which figure.
        what: &'static str,
        /// How large it is.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The log cannot do it.
    #[error(transparent)]
    Fault(#[from] LogFault),
}

/// Why a cut was not made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CutError {
    /// There is no such session.
    #[error("there is no such session")]
    NotFound,
    /// No snapshot covers what would be lost.
    #[error("no snapshot covers the events before {below}")]
    Uncovered {
        /// What was asked for.
        below: Seq,
    },
    /// The log cannot do it.
    #[error(transparent)]
    Fault(#[from] LogFault),
}

/// Why a session was not deleted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DeleteError {
    /// There is no such session.
    #[error("there is no such session")]
    NotFound,
    /// The log cannot do it.
    #[error(transparent)]
    Fault(#[from] LogFault),
}
