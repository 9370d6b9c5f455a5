//! What the committer is asked for, and how it answers.

use ax_core::id::{Epoch, Seq, SessionId, SessionKey};
use tokio::sync::oneshot;

use crate::types::{
    AcquireError, Append, AppendError, BranchError, CutError, DeleteError, Lease, LogFault, Row,
};

pub(super) type Reply<T, E> = oneshot::Sender<Result<T, E>>;

/// The answer to an append. What was asked goes back with it, so that it is freed by the thread
/// that allocated it.
pub(super) type AppendReply = oneshot::Sender<(Box<Append>, Result<Seq, AppendError>)>;

/// A request to the committer. They are carried out in the order in which they come.
#[derive(Debug)]
pub(super) enum Request {
    Append(Box<Append>, AppendReply),
    Acquire(SessionKey, Reply<Lease, AcquireError>),
    Release(SessionKey, Epoch),
    Branch(Box<Branch>, Reply<(), BranchError>),
    Cut(SessionKey, Seq, Reply<(), CutError>),
    Delete(SessionKey, Reply<(), DeleteError>),
    Close(Reply<(), LogFault>),
}

/// The request for a branch.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) parent: SessionKey,
    pub(super) at: Seq,
    pub(super) child: SessionId,
    pub(super) row: Row,
}

/// What became of a request for the right to write. It is kept apart, so that answers are small.
#[derive(Debug)]
pub(super) struct Acquired {
    pub(super) key: SessionKey,
    pub(super) made: Result<Lease, AcquireError>,
}

/// An answer that may be given when everything that it rests on is durable; also a refusal.
#[derive(Debug)]
pub(super) enum Done {
    Append(AppendReply, Box<Append>, Result<Seq, AppendError>),
    Acquire(Reply<Lease, AcquireError>, Box<Acquired>),
    Branch(Reply<(), BranchError>, Result<(), BranchError>),
    Cut(Reply<(), CutError>, Result<(), CutError>),
    Delete(Reply<(), DeleteError>, Result<(), DeleteError>),
}

impl Done {
    /// Gives the answer. Returns a right to write that nobody waits for any more.
    pub(super) fn tell(self) -> Option<(SessionKey, Epoch)> {
        match self {
            Self::Append(reply, append, made) => drop(reply.send((append, made))),
            Self::Acquire(reply, acquired) => {
                let Acquired { key, made } = *acquired;
                let lease = reply.send(made).err()?.ok()?;
                return Some((key, lease.epoch));
            }
            Self::Branch(reply, made) => drop(reply.send(made)),
            Self::Cut(reply, made) => drop(reply.send(made)),
            Self::Delete(reply, made) => drop(reply.send(made)),
        }
        None
    }

    /// Says that it could not be done. Returns a right to write that nobody got to know of.
    pub(super) fn refuse(self, fault: LogFault) -> Option<(SessionKey, Epoch)> {
        match self {
            Self::Append(reply, append, _) => drop(reply.send((append, Err(fault.into())))),
            Self::Acquire(reply, acquired) => {
                let Acquired { key, made } = *acquired;
                drop(reply.send(Err(fault.into())));
                return made.ok().map(|lease| (key, lease.epoch));
            }
            Self::Branch(reply, _) => drop(reply.send(Err(fault.into()))),
            Self::Cut(reply, _) => drop(reply.send(Err(fault.into()))),
            Self::Delete(reply, _) => drop(reply.send(Err(fault.into()))),
        }
        None
    }
}

impl Request {
    /// Answers that the log cannot do it.
    pub(super) fn refuse(self, fault: LogFault) {
        match self {
            Self::Append(append, reply) => drop(reply.send((append, Err(fault.into())))),
            Self::Acquire(_, reply) => drop(reply.send(Err(fault.into()))),
            Self::Release(..) => {}
            Self::Branch(_, reply) => drop(reply.send(Err(fault.into()))),
            Self::Cut(_, _, reply) => drop(reply.send(Err(fault.into()))),
            Self::Delete(_, reply) => drop(reply.send(Err(fault.into()))),
            Self::Close(reply) => drop(reply.send(Err(fault))),
        }
    }
}
