//! Taking an input in.

use crate::agents::Found;
use crate::api::{SessionRef, Submission, Submitted};
use crate::bodies::Bodies;
use crate::inner::Inner;
use crate::references::Held;
use crate::{Code, Error, branch};
use ax_core::id::{Namespace, Seq, SessionId, SessionKey};
use ax_core::session::{
    Accepted, Body, Caller, Digest, IdempotencyKey, Part, Request, SubmitPolicy,
};
use ax_store::BlobId;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Records an input, in a new session, an existing one, or a branch of it. Drops `next` once it has
/// its place.
pub(crate) async fn submit(
    inner: &Arc<Inner>,
    caller: Caller,
    namespace: &Namespace,
    submission: Submission,
    next: Option<oneshot::Sender<()>>,
) -> Result<Submitted, Error> {
    let session = target(inner, namespace, &submission);
    let key = SessionKey::new(namespace.clone(), session.id);
    let mut parts = submission.parts;
    let held = hold_named(inner, namespace, &mut parts).await?;
    let parts = Bodies::new(inner.blobs.clone()).spill_parts(&key, parts).await?;
    let create = create(inner, namespace, &key, &session, submission.agent.as_deref()).await?;
    let is_new = create.is_some();
    let digest = digest_of(&parts);
    let mut requests = Vec::new();
    requests.extend(create);
    if let Some(title) = submission.title.filter(|_| is_new) {
        requests.push(Request::Rename { title });
    }
    let policy = submission.policy;
    let branch = branch_of_key(&key, policy, submission.key.as_ref());
    let input = Request::Submit { key: submission.key, digest, parts, policy };
    // The same input sent twice at once: the second finds out what became of the first.
    let _turn = match &branch {
        Some(child) => Some(inner.keyed.take(child).await),
        None => None,
    };
    if let Some(child) = branch
        && inner.log.head(&child).await?.is_some()
    {
        return submit_to_branch(inner, caller, &child, input, held).await;
    }
    requests.push(input.clone());
    let answer = inner.hand(&key, caller.clone(), requests, held.clone())?;
    drop(next);
    let accepted = answer.await?;
    let created = is_new && matches!(accepted.first(), Some(Accepted::At(_)));
    let session = key.session;
    match accepted.last() {
        Some(Accepted::At(seq)) => {
            Ok(Submitted { session, seq: *seq, duplicate: false, created, branched: false })
        }
        Some(Accepted::Before(seq)) => {
            Ok(Submitted { session, seq: *seq, duplicate: true, created, branched: false })
        }
        Some(Accepted::Branch(at)) => branch_off(inner, caller, &key, *at, input, held).await,
        Some(Accepted::Nothing) | None => {
            Err(Error::new(Code::Internal, "an input came to nothing"))
        }
    }
}

/// Holds the blobs that an input names until it is durable, and takes their lengths from the store:
/// an event names only what is there.
pub(crate) async fn hold_named(
    inner: &Inner,
    namespace: &Namespace,
    parts: &mut [Part],
) -> Result<Option<Arc<Held>>, Error> {
    let named: Vec<_> = parts.iter().filter_map(|part| part.body.blob()).collect();
    if named.is_empty() {
        return Ok(None);
    }
    let held = inner.references.hold(namespace, &named);
    for part in parts {
        let Body::Blob(blob) = &mut part.body else { continue };
        let id = BlobId(blob.hash);
        let known = inner.blobs.stat(namespace, &id).await;
        let known = known.map_err(|error| {
            Error::new(Code::Read, format!("looking for {id} failed")).caused_by(&error)
        })?;
        let known = known.ok_or_else(|| {
            Error::new(Code::NoBlob, format!("there is no {id}"))
                .with_hint("send the content first")
        })?;
        blob.bytes = known.bytes;
    }
    Ok(Some(Arc::new(held)))
}

/// Which session an input is for. Without a name a key decides, so that sending it again does not
/// make another session.
fn target(inner: &Inner, namespace: &Namespace, submission: &Submission) -> SessionRef {
    if let Some(session) = &submission.session {
        return session.clone();
    }
    let id = match &submission.key {
        None => SessionId(inner.entropy.id()),
        Some(key) => derived("agentexecutor session of key v1", namespace, 0, key),
    };
    SessionRef { id, name: String::new() }
}

fn derived(context: &str, namespace: &Namespace, parent: u128, key: &IdempotencyKey) -> SessionId {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(namespace.as_str().as_bytes()).update(&[0]);
    hasher.update(&parent.to_be_bytes()).update(key.as_str().as_bytes());
    let mut half = [0; 16];
    half.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    SessionId(u128::from_be_bytes(half))
}

/// The request that creates the session, if it is new or an agent is named.
pub(crate) async fn create(
    inner: &Arc<Inner>,
    namespace: &Namespace,
    key: &SessionKey,
    session: &SessionRef,
    agent: Option<&str>,
) -> Result<Option<Request>, Error> {
    let Some(agent) = agent else {
        let known = inner.must_exist(key).await;
        return known.map(|()| None).map_err(|error| {
            error.with_hint("name an agent to create it: `ax run --agent AGENT --session NAME …`")
        });
    };
    let Found { agent: wanted, manifest, .. } = inner.agents.find(namespace, agent).await?;
    // A version that is named is found when its agent is deleted, too: for sessions that have it.
    if agent.contains('@')
        && inner.log.head(key).await?.is_none()
        && inner.agents.is_deleted(namespace, &wanted.name).await?
    {
        return Err(Error::new(Code::NoAgent, format!("the agent {:?} was deleted", wanted.name)));
    }
    Ok(Some(Request::Create {
        name: session.name.clone(),
        agent: wanted,
        limits: manifest.limits,
        sandbox: manifest.isolation().to_string(),
        seed: inner.entropy.number(),
    }))
}

/// An input that must not wait goes to a branch from before what is under way.
async fn branch_off(
    inner: &Arc<Inner>,
    caller: Caller,
    parent: &SessionKey,
    at: Seq,
    input: Request,
    held: Option<Arc<Held>>,
) -> Result<Submitted, Error> {
    let named = match &input {
        Request::Submit { key, .. } => branch_of_key(parent, None, key.as_ref()),
        _ => None,
    };
    let is_named = named.is_some();
    let unnamed = || SessionKey::new(parent.namespace.clone(), SessionId(inner.entropy.id()));
    let child = named.unwrap_or_else(unnamed);
    match branch::make(inner, caller.clone(), parent, at, child.session, false).await {
        Err(error) if error.code == Code::Exists && is_named => {}
        made => made?,
    }
    submit_to_branch(inner, caller, &child, input, held).await
}

/// The branch that an input with a key goes to if it goes to one. An input that went there once
/// goes there again when it is sent again, whatever is under way in the parent by then.
fn branch_of_key(
    parent: &SessionKey,
    policy: Option<SubmitPolicy>,
    key: Option<&IdempotencyKey>,
) -> Option<SessionKey> {
    let key = key.filter(|_| matches!(policy, None | Some(SubmitPolicy::Branch)))?;
    let context = "agentexecutor branch of key v1";
    let child = derived(context, &parent.namespace, parent.session.0, key);
    Some(SessionKey::new(parent.namespace.clone(), child))
}

async fn submit_to_branch(
    inner: &Arc<Inner>,
    caller: Caller,
    child: &SessionKey,
    input: Request,
    held: Option<Arc<Held>>,
) -> Result<Submitted, Error> {
    let Request::Submit { key, digest, parts, .. } = input else {
        unreachable!("only an input is submitted");
    };
    let policy = Some(SubmitPolicy::Enqueue);
    let request = Request::Submit { key, digest, parts, policy };
    let accepted = inner.ask_with(child, caller, vec![request], held).await?;
    let (seq, duplicate) = match accepted.last() {
        Some(Accepted::At(seq)) => (*seq, false),
        Some(Accepted::Before(seq)) => (*seq, true),
        _ => return Err(Error::new(Code::Internal, "an input of a branch came to nothing")),
    };
    let session = child.session;
    Ok(Submitted { session, seq, duplicate, created: false, branched: true })
}

/// Hashes an input, so that the same key with other content is noticed.
pub(crate) fn digest_of(parts: &[Part]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        for text in [part.media_type.as_str(), part.name.as_str()] {
            hasher.update(&(text.len() as u64).to_be_bytes()).update(text.as_bytes());
        }
        let hash = match &part.body {
            Body::Text(text) => *blake3::hash(text.as_bytes()).as_bytes(),
            Body::Blob(blob) => blob.hash,
        };
        hasher.update(&[part.kind as u8]).update(&hash);
    }
    Digest(*hasher.finalize().as_bytes())
}
