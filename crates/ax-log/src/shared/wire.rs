//! What goes between a process and the store that it shares with others: statements and answers.
//!
//! Each statement is one transaction of the store: carried out whole, or not at all. On the way it
//! may be late, come twice, or be lost, and so may its answer. A database backend gives each of
//! them a text in its language; the in-memory store is [`super::SharedStore`].

use std::fmt::Debug;
use std::sync::Arc;

use ax_core::id::{Namespace, Seq, SessionId, SessionKey};
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use crate::types::{
    BranchError, CutError, DeleteError, Entry, Head, ListQuery, LogFault, Page, ReadError,
    ReadLimit, Row, Snapshot,
};

/// A process that shares a store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// Random, and new with each opening: a process that comes back is another one.
    pub id: u128,
    /// Where other processes forward requests to.
    pub address: Arc<str>,
}

/// The right to write the sessions of a shard: its epoch is higher with each time it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The shard.
    pub shard: u32,
    /// Its epoch.
    pub epoch: u64,
}

/// What one append keeps, as a part of a batch.
#[derive(Clone, Debug)]
pub struct Write {
    /// The session.
    pub key: SessionKey,
    /// The position of the first entry; the primary key sees to it that it is free.
    pub expected: Seq,
    /// The payloads.
    pub entries: Vec<Bytes>,
    /// The new row.
    pub row: Option<Row>,
    /// A snapshot after the last entry.
    pub snapshot: Option<Bytes>,
}

/// One transaction.
#[derive(Clone, Debug)]
pub enum Statement {
    /// Shows who has which shard.
    Look,
    /// Says that a process lives, and renews those of its leases that have not lapsed by the clock
    /// of the store, each under its epoch. Shows who has which shard.
    Beat {
        /// The process.
        owner: Owner,
        /// How long the leases are from now on, in milliseconds.
        lease_millis: u64,
        /// What it holds.
        held: Vec<Claim>,
    },
    /// Takes shards that are free, lapsed or its own, by compare-and-set: a shard whose epoch is
    /// still the one that was seen gets the next one. Shows who has which shard.
    Take {
        /// The process.
        owner: Owner,
        /// How long the leases are, in milliseconds.
        lease_millis: u64,
        /// The shards, with the epochs that were seen.
        seen: Vec<Claim>,
    },
    /// Gives leases back.
    Give {
        /// What is given back, each under its epoch.
        held: Vec<Claim>,
    },
    /// Appends a batch under the epoch of its shard. The store takes each number of an epoch once
    /// and in order, so that a batch may be sent again.
    Append {
        /// The right to do so.
        claim: Claim,
        /// The number of the batch within the epoch: 1, 2, 3, …
        number: u64,
        /// What is to be kept: all of it, or nothing.
        writes: Vec<Write>,
    },
    /// Deletes a session.
    Delete {
        /// The right to do so.
        claim: Claim,
        /// The session.
        key: SessionKey,
    },
    /// Cuts a session.
    Cut {
        /// The right to do so.
        claim: Claim,
        /// The session.
        key: SessionKey,
        /// The lowest position that is kept.
        below: Seq,
    },
    /// Makes a branch. Needs no lease: the primary key keeps the child's id from being used twice.
    Branch {
        /// The parent.
        parent: SessionKey,
        /// The last position that is shared.
        at: Seq,
        /// The child.
        child: SessionId,
        /// The child's row.
        row: Row,
    },
    /// Shows a session.
    Head {
        /// The session.
        key: SessionKey,
    },
    /// Reads entries.
    Read {
        /// The session.
        key: SessionKey,
        /// The position before the first.
        after: Seq,
        /// How many.
        limit: ReadLimit,
    },
    /// Reads a snapshot.
    Snapshot {
        /// The session.
        key: SessionKey,
        /// The position that it must not be after.
        at: Seq,
    },
    /// Lists sessions.
    List(ListQuery),
    /// Lists namespaces.
    Namespaces,
}

/// Who has which shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The shards, in order. Their number is fixed when the store is made.
    pub shards: Vec<ShardRow>,
    /// How many processes live.
    pub owners: usize,
}

/// A shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRow {
    /// The epoch under which it was taken last.
    pub epoch: u64,
    /// Who has it; `None` if the lease has lapsed by the clock of the store.
    pub owner: Option<Owner>,
}

/// What a statement came to.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Of `Look`, `Beat` and `Take`.
    Table(Table),
    /// Of `Append`: it is durable, now or since it came before.
    Appended,
    /// The epoch of the shard is another one now: nothing was changed.
    Fenced,
    /// Of `Append`: one of the writes cannot be made, so that none was.
    Refused {
        /// Which one.
        index: usize,
        /// The session's next position; `None` if it is deleted.
        next: Option<Seq>,
    },
    /// Of `Give`.
    Given,
    /// Of `Delete`.
    Deleted(Result<(), DeleteError>),
    /// Of `Cut`.
    Cut(Result<(), CutError>),
    /// Of `Branch`.
    Branched(Result<(), BranchError>),
    /// Of `Head`: what is known, and whether the session was deleted.
    Head(Option<Head>, bool),
    /// Of `Read`.
    Entries(Result<Vec<Entry>, ReadError>),
    /// Of `Snapshot`.
    Snapshot(Option<Snapshot>),
    /// Of `List`.
    Page(Page),
    /// Of `Namespaces`.
    Namespaces(Vec<Namespace>),
}

/// A session has moved: told after it can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The session.
    pub key: SessionKey,
    /// Its last position.
    pub last: Seq,
    /// It was deleted.
    pub deleted: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Broken {
    /// The connection was lost: the statement was carried out, or was not, or still will be.
    #[error("the connection to the store was lost")]
    Lost,
    /// The store cannot do it, and has changed nothing.
    #[error(transparent)]
    Fault(LogFault),
}

/// The connection of one process to the store.
pub trait Wire: Debug + Send + Sync + 'static {
    /// Sends a statement and waits for its answer.
    fn send(&self, statement: Statement) -> BoxFuture<'_, Result<Answer, Broken>>;

    /// Listens to what moves from now on. The receiver ends when the connection is lost: what
    /// moved since is not told.
    fn listen(&self) -> mpsc::UnboundedReceiver<Notice>;
}
