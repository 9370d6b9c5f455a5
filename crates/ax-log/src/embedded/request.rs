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
    Branch(Branch, Reply<(), BranchError>),
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

/// An answer that may be given when the block is durable.
#[derive(Debug)]
pub(super) enum Done {
    Append(AppendReply, Box<Append>, Seq),
    Acquire(Reply<Lease, AcquireError>, SessionKey, Lease),
    Branch(Reply<(), BranchError>),
    Cut(Reply<(), CutError>),
    Delete(Reply<(), DeleteError>),
}

impl Done {
    /// Says that it is done. Returns a right to write that nobody waits for any more.
    pub(super) fn tell(self) -> Option<(SessionKey, Epoch)> {
        match self {
            Self::Append(reply, append, seq) => drop(reply.send((append, Ok(seq)))),
            Self::Acquire(reply, key, lease) => {
                let epoch = lease.epoch;
                return reply.send(Ok(lease)).err().map(|_| (key, epoch));
            }
            Self::Branch(reply) => drop(reply.send(Ok(()))),
            Self::Cut(reply) => drop(reply.send(Ok(()))),
            Self::Delete(reply) => drop(reply.send(Ok(()))),
        }
        None
    }

    /// Says that it could not be done. Returns a right to write that nobody got to know of.
    pub(super) fn refuse(self, fault: LogFault) -> Option<(SessionKey, Epoch)> {
        match self {
            Self::Append(reply, append, _) => drop(reply.send((append, Err(fault.into())))),
            Self::Acquire(reply, key, lease) => {
                drop(reply.send(Err(fault.into())));
                return Some((key, lease.epoch));
            }
            Self::Branch(reply) => drop(reply.send(Err(fault.into()))),
            Self::Cut(reply) => drop(reply.send(Err(fault.into()))),
            Self::Delete(reply) => drop(reply.send(Err(fault.into()))),
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
