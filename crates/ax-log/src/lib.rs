//! The event log: one totally ordered, fenced, durable sequence of entries a session.
//!
//! What an entry *means* is not known here: its payload is opaque bytes, encoded by `ax-engine`.
//! The log is not a database either: it finds things by session and position, and by the small
//! [`Row`] that each session has, and by nothing else.
//!
//! Start with [`EventLog`], whose documentation is the law that every backend keeps.
//! [`MemoryLog`] is the model of it, [`EmbeddedLog`] the durable one in a data directory, and
//! [`SharedLog`] one of several processes' handles to a store that they share.

pub mod conformance;
pub mod embedded;
mod limits;
mod memory;
pub mod shared;
mod tables;
pub mod types;
mod watchers;

pub use embedded::{EmbeddedLog, OpenError, Options, fsck};
pub use memory::MemoryLog;
pub use shared::{SharedLog, SharedStore};
pub use types::{
    AcquireError, Append, AppendError, BranchError, CutError, DeleteError, Entry, Fence, Filter,
    Grants, Head, HeadState, HeadWatch, Lease, ListQuery, LogFault, Page, ReadError, ReadLimit,
    Row, RowEntry, Snapshot, StateMask,
};

use ax_core::id::{Epoch, Namespace, Seq, SessionId, SessionKey};
use futures::future::BoxFuture;
use std::fmt::Debug;

/// The log of every session of a store.
///
/// # Law
///
/// Each promise has a conformance test of the same number in [`conformance`].
///
/// 1. **Durable.** When `append` returns `Ok`, its entries survive the death of the process and the
///    loss of power. Readers, watchers and rows show durable entries only.
/// 2. **Atomic.** The entries, the row and the snapshot of one `append` are all there or none is.
/// 3. **Ordered.** Positions of a session are 1, 2, 3, … without gaps; an entry never changes.
/// 4. **Conditional.** An append whose `expected` is not the next position changes nothing.
/// 5. **Fenced.** `acquire` gives an epoch above every one given before for this session, also over
///    restarts. From then on an append with a lower one, or with one that was released, is refused.
/// 6. **Live.** A watcher sees the head move after the entries can be read, without polling.
/// 7. **Branch.** A branch reads as its parent up to `at`, then as itself; its first own entry is
///    at `at + 1`. Making one costs one durable write, whatever the length or depth of the history.
///    The parent never notices. Branches of branches read through any depth.
/// 8. **Delete.** A deleted session is gone from `read`, `head` and `list` and cannot be acquired,
///    but its branches still read what they share with it. Its id is never used again.
/// 9. **Cut.** After `cut(below)` positions under `below` may be gone: a read that begins there
///    says so. What a branch shares is kept for the branch.
/// 10. **List.** Pages follow the order of session ids in the namespace, under a cursor that stays
///     valid whatever is added or removed.
/// 11. **Tenants.** The same session id in two namespaces is two sessions.
/// 12. **Poisoned.** After a failed write or sync, also one in the background, every later append
///     fails with [`LogFault::Poisoned`] until the log is opened again. Reads of durable entries go
///     on. A disk that is full is no failure: nothing was promised then.
///     A store that can be asked what became of a write is asked instead, see 15.
/// 13. **Leased.** Where several processes share a store, one of them at a time can acquire a
///     session; the others are told who it is ([`LogFault::Elsewhere`]), and read and watch what it
///     writes. When its lease has lapsed by the store's clock, or was given back, another can: with
///     an epoch above all before, and from then on the *store* refuses what the old one writes,
///     however late it comes. A lease that has lapsed is never renewed. Backends of one process
///     have nothing to keep here.
/// 14. **Fences fall first.** [`EventLog::fence`] stands only while no other process can have
///     acquired the session, and falls earlier by a margin, by the writer's own clock and without
///     asking anybody. What is done for a session is done while its fence stands.
/// 15. **Settled.** An append whose outcome is not known is carried to its end by the log itself
///     while the lease lasts. If that fails too the append fails with [`LogFault::Unavailable`];
///     its entries are then all there when the session is acquired the next time, or never.
///
/// # Cancellation
///
/// Dropping the future of an `append` does not take the append back: it may still become durable.
pub trait EventLog: Debug + Send + Sync + 'static {
    /// Takes the right to write a session, and with it away from whoever had it.
    ///
    /// A session that does not exist yet is acquired just so: its `next` is 1.
    fn acquire<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Lease, AcquireError>>;

    /// Gives the right back, so that the log needs no memory for the sleeping session.
    ///
    /// Does nothing if `epoch` is not the current one.
    fn release(&self, key: &SessionKey, epoch: Epoch);

    /// Appends entries, and with them the session's new row and a snapshot, if given.
    ///
    /// Returns the position of the last entry of the session.
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Seq, AppendError>>;

    /// Reads entries after `after`, in order, until the head or the limit.
    ///
    /// At least one entry is returned if there is one, also if it is over `limit.bytes`.
    fn read<'a>(
        &'a self,
        key: &'a SessionKey,
        after: Seq,
        limit: ReadLimit,
    ) -> BoxFuture<'a, Result<Vec<Entry>, ReadError>>;

    /// Returns what is known of a session; `None` if it does not exist or was deleted.
    fn head<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Head>, LogFault>>;

    /// Returns the newest snapshot at or before `at`; also one from before a branch point.
    fn snapshot<'a>(
        &'a self,
        key: &'a SessionKey,
        at: Seq,
    ) -> BoxFuture<'a, Result<Option<Snapshot>, LogFault>>;

    /// Watches the durable head of a session, which need not exist yet.
    fn watch<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<HeadWatch, LogFault>>;

    /// Makes `child` a branch of `parent`, which shares everything up to and with `at`.
    fn branch<'a>(
        &'a self,
        parent: &'a SessionKey,
        at: Seq,
        child: SessionId,
        row: Row,
    ) -> BoxFuture<'a, Result<(), BranchError>>;

    /// Lets go of the positions under `below`.
    fn cut<'a>(&'a self, key: &'a SessionKey, below: Seq) -> BoxFuture<'a, Result<(), CutError>>;

    /// Deletes a session. Whoever had the right to write loses it.
    fn delete<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<(), DeleteError>>;

    /// Lists the sessions of a namespace that pass the filter.
    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Page, LogFault>>;

    /// Lists the namespaces that have ever had a session.
    fn namespaces(&self) -> BoxFuture<'_, Result<Vec<Namespace>, LogFault>>;

    /// Returns what says whether the right to write a session still stands, for the epoch that
    /// [`Self::acquire`] gave.
    fn fence(&self, _key: &SessionKey, _epoch: Epoch) -> Fence {
        Fence::lasting()
    }

    /// Whether this process is the one to wake a session that sleeps.
    fn owns(&self, _key: &SessionKey) -> bool {
        true
    }

    /// Tells when sessions have come to this process: what a crash of another has cut short is to
    /// be taken up then.
    fn grants(&self) -> Grants {
        Grants::none()
    }

    /// Returns why nothing more is taken, if so. It is final: the log has to be opened anew.
    fn fault(&self) -> Option<LogFault>;

    /// Finishes what is under way and closes the log; later calls fail.
    fn close(&self) -> BoxFuture<'_, Result<(), LogFault>>;
}
