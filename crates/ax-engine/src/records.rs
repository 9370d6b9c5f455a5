//! Records: what a framework that runs elsewhere keeps in a session.
//!
//! They are entries of the session's log, so whoever reads them reads them in order, and whoever
//! writes them is fenced. A collection has a newest record that stands for all before it, where
//! reading begins: opening costs what is alive, not what there was.

use crate::api::{NewRecord, RecordPage, SessionRef, Submitted};
use crate::bodies::Bodies;
use crate::inner::Inner;
use crate::submit::{create, digest_of, hold_named};
use crate::{Code, Error, codec, session};
use ax_core::id::{Namespace, Seq, SessionKey};
use ax_core::session::{Accepted, Caller, Collection, Digest, Kind, Part, Request};
use ax_log::ReadLimit;
use std::sync::Arc;
use tokio::sync::oneshot;

/// The most bytes of records that are read at once.
const PAGE_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Writes a record.
pub(crate) async fn write(
    inner: &Arc<Inner>,
    caller: Caller,
    namespace: &Namespace,
    session: &SessionRef,
    record: NewRecord,
) -> Result<Submitted, Error> {
    let key = SessionKey::new(namespace.clone(), session.id);
    let NewRecord { agent, collection, key: name, mut parts, replaces, after } = record;
    let held = hold_named(inner, namespace, &mut parts).await?;
    let parts = Bodies::new(inner.blobs.clone()).spill_parts(&key, parts).await?;
    let create = create(inner, namespace, &key, session, agent.as_deref()).await?;
    let is_new = create.is_some();
    let digest = digest(&collection, replaces, &parts);
    let mut requests: Vec<_> = create.into_iter().collect();
    requests.push(Request::Record { collection, key: name, digest, parts, replaces, after });
    let accepted = inner.ask_with(&key, caller, requests, held).await?;
    let created = is_new && matches!(accepted.first(), Some(Accepted::At(_)));
    let (seq, duplicate) = match accepted.last() {
        Some(Accepted::At(seq)) => (*seq, false),
        Some(Accepted::Before(seq)) => (*seq, true),
        _ => return Err(Error::new(Code::Internal, "a record came to nothing")),
    };
    Ok(Submitted { session: key.session, seq, duplicate, created, branched: false })
}

/// Reads records of a collection after a position, from the newest one that stands for all before.
pub(crate) async fn read(
    inner: &Arc<Inner>,
    namespace: &Namespace,
    session: &SessionRef,
    name: &str,
    after: Seq,
    limit: usize,
) -> Result<RecordPage, Error> {
    let key = SessionKey::new(namespace.clone(), session.id);
    let collection = find(inner, &key, name).await?;
    let mut after = after.max(collection.base.prev());
    let (mut events, mut bytes) = (Vec::new(), 0);
    while after < collection.last {
        let entries = inner.log.read(&key, after, ReadLimit::default()).await?;
        let Some(newest) = entries.last() else { break };
        after = newest.seq;
        for entry in entries {
            if !is_of(name, &entry.payload)? {
                continue;
            }
            bytes += entry.payload.len();
            let is_full = events.len() == limit || bytes > PAGE_BYTES_MAX;
            if entry.seq > collection.last || (is_full && !events.is_empty()) {
                return Ok(RecordPage { events, collection });
            }
            events.push((entry.seq, entry.payload));
        }
    }
    Ok(RecordPage { events, collection })
}

fn is_of(name: &str, payload: &[u8]) -> Result<bool, Error> {
    let event = codec::decode_event(payload)
        .map_err(|error| Error::new(Code::Damaged, "an event cannot be read").caused_by(&error))?;
    Ok(matches!(event.kind, Kind::RecordWritten { collection, .. } if collection == name))
}

/// Finds a collection, in the state of the session if it is awake.
async fn find(inner: &Inner, key: &SessionKey, name: &str) -> Result<Collection, Error> {
    let (sender, receiver) = oneshot::channel();
    let command = session::Command::Collection(name.to_owned(), sender);
    if inner.registry.send_if_awake(key, command).is_ok()
        && let Ok(found) = receiver.await
    {
        return found;
    }
    let (session, _) = session::read_only(inner, key).await?;
    Ok(session.state().collections.get(name).copied().unwrap_or_default())
}

/// Hashes a record, so that the same key with other content is noticed.
fn digest(collection: &str, replaces: bool, parts: &[Part]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("agentexecutor record v1");
    hasher.update(&[u8::from(replaces)]).update(&digest_of(parts).0);
    hasher.update(collection.as_bytes());
    Digest(*hasher.finalize().as_bytes())
}
