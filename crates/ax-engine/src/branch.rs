//! Making branches.

use crate::api::{BranchMade, BranchPlan, SessionRef};
use crate::bodies::Bodies;
use crate::inner::Inner;
use crate::transcript::Reader;
use crate::{Code, Error, SessionView, Status, WaitState, codec};
use ax_core::id::{Namespace, Seq, SessionId, SessionKey};
use ax_core::session::{Caller, Kind, Request, Usage};
use ax_log::{BranchError, Row};
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
    let row = first_row(inner, parent).await?;
    let key = SessionKey::new(parent.namespace.clone(), child);
    match inner.log.branch(parent, at, child, row).await {
        // It was made before, and nobody has heard of it: what is asked for now is what becomes
        // of it.
        Err(BranchError::Exists { .. }) if is_unborn(inner, &key, parent, at).await? => {}
        made => made?,
    }
    let seed = inner.entropy.number();
    let request = Request::Branch { parent: parent.session, at, carry_on, seed };
    inner.ask(&key, caller, vec![request]).await.map(drop)
}

/// The row of a branch to which nothing has happened yet: it waits for nothing.
async fn first_row(inner: &Inner, parent: &SessionKey) -> Result<Row, Error> {
    let now = inner.clock.now();
    let head = inner.log.head(parent).await?;
    let view = head.and_then(|head| codec::decode_row(parent.session, &head).ok());
    let data = view.map(|view| {
        let (name, status, usage) = (String::new(), Status::default(), Usage::default());
        codec::encode_row(&SessionView { name, status, usage, created_at: now, ..view })
    });
    Ok(Row {
        state: WaitState::Ready as u8,
        due_millis: None,
        updated_millis: now.millis,
        data: data.unwrap_or_default(),
    })
}

/// Whether a session is a branch of this parent to which nothing has happened yet.
async fn is_unborn(
    inner: &Inner,
    child: &SessionKey,
    parent: &SessionKey,
    at: Seq,
) -> Result<bool, Error> {
    let head = inner.log.head(child).await?;
    Ok(head.is_some_and(|head| head.last == at && head.parent == Some((parent.session, at))))
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
