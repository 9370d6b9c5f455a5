//! Making branches.

use crate::api::{BranchMade, BranchPlan, SessionRef};
use crate::bodies::Bodies;
use crate::inner::Inner;
use crate::transcript::Reader;
use crate::{Code, Error};
use ax_core::id::{Namespace, Seq, SessionId, SessionKey};
use ax_core::session::{Caller, Kind, Request};
use std::sync::Arc;

/// How many branches can be made at once.
const COUNT_MAX: u32 = 256;

/// Makes the branches of a plan.
pub(crate) async fn branch(
    inner: &Arc<Inner>,
    caller: Caller,
    namespace: &Namespace,
    session: &SessionRef,
    plan: BranchPlan,
) -> Result<BranchMade, Error> {
    let parent = SessionKey::new(namespace.clone(), session.id);
    let count = plan.count.max(1);
    if count > COUNT_MAX || plan.names.len() > count as usize {
        let what = format!("{count} branches with {} names are asked for", plan.names.len());
        let hint = format!("at most {COUNT_MAX} at once, each with at most one name");
        return Err(Error::new(Code::TooLarge, what).with_hint(hint));
    }
    let head = inner.log.head(&parent).await?;
    let head = head.ok_or_else(|| {
        Error::new(Code::NoSession, format!("there is no session {}", parent.session))
    })?;
    let at = match (&plan.checkpoint, plan.at) {
        (Some(name), None) => checkpoint(inner, &parent, name, head.last).await?,
        (None, at) => at.unwrap_or(head.last),
        (Some(_), Some(_)) => {
            return Err(Error::invalid("a branch begins at a position or a checkpoint, not both"));
        }
    };
    if at < head.first || at > head.last {
        let what = format!("position {at} is not within {} to {}", head.first, head.last);
        return Err(Error::new(Code::OutOfRange, what));
    }
    let mut names = plan.names.iter();
    let mut sessions = Vec::new();
    for _ in 0..count {
        let name = names.next();
        let child = match name {
            Some(name) => SessionRef::parse(namespace, name)?.id,
            None => SessionId(inner.entropy.id()),
        };
        make(inner, caller.clone(), &parent, at, child, plan.carry_on).await?;
        if let Some(title) = name.cloned() {
            let key = SessionKey::new(namespace.clone(), child);
            inner.ask(&key, caller.clone(), vec![Request::Rename { title }]).await?;
        }
        sessions.push(child);
    }
    Ok(BranchMade { sessions, at })
}

/// Makes one branch, and lets it go of what its parent had promised.
pub(crate) async fn make(
    inner: &Arc<Inner>,
    caller: Caller,
    parent: &SessionKey,
    at: Seq,
    child: SessionId,
    carry_on: bool,
) -> Result<(), Error> {
    let head = inner.log.head(parent).await?;
    let row = head.map(|head| head.row).unwrap_or_default();
    let row = ax_log::Row {
        state: crate::WaitState::Ready as u8,
        due_millis: None,
        updated_millis: inner.clock.now().millis,
        data: row.data,
    };
    let counted = inner.references.read().await;
    inner.log.branch(parent, at, child, row).await?;
    drop(counted);
    let key = SessionKey::new(parent.namespace.clone(), child);
    let seed = inner.entropy.number();
    let request = Request::Branch { parent: parent.session, at, carry_on, seed };
    inner.ask(&key, caller, vec![request]).await.map(drop)
}

/// Finds the newest checkpoint of a name.
async fn checkpoint(
    inner: &Inner,
    parent: &SessionKey,
    wanted: &str,
    last: Seq,
) -> Result<Seq, Error> {
    let bodies = Bodies::new(inner.blobs.clone());
    let reader = Reader { log: inner.log.as_ref(), bodies: &bodies, key: parent };
    let mut found = None;
    let each = |seq, event: ax_core::session::Event| {
        if matches!(&event.kind, Kind::CheckpointCreated { name, .. } if name == wanted) {
            found = Some(seq);
        }
    };
    reader.scan(Seq::ZERO, last, each).await?;
    found.ok_or_else(|| {
        Error::new(Code::OutOfRange, format!("the session has no checkpoint {wanted:?}"))
    })
}
