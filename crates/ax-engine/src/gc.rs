//! Removes blobs that no event refers to any more.
//!
//! The references are the events themselves, counted when a collection begins: a count that is
//! derived cannot drift (see `docs/adr/0004-blobs.md`).

use crate::inner::Inner;
use crate::references::blobs_of;
use crate::{Code, Error, codec};
use ax_core::id::{Namespace, Seq, SessionKey};
use ax_core::time::Timestamp;
use ax_log::{Filter, ListQuery, ReadLimit};
use ax_store::{Collection, GRACE_MILLIS_DEFAULT};
use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

/// How long the engine rests between two looks at what was deleted.
const PAUSE: Duration = Duration::from_hours(1);
/// How many rows are read at a time.
const PAGE_ROWS: usize = 256;

/// Counts the references to each blob of a namespace.
async fn references(
    inner: &Inner,
    namespace: &Namespace,
) -> Result<BTreeMap<[u8; 32], u64>, Error> {
    let mut counts = BTreeMap::new();
    let mut after = None;
    loop {
        let (namespace, filter) = (namespace.clone(), Filter::default());
        let query = ListQuery { namespace: namespace.clone(), after, limit: PAGE_ROWS, filter };
        let page = inner.log.list(query).await?;
        for row in page.rows {
            let key = SessionKey::new(namespace.clone(), row.session);
            if key.session != crate::agents::SYSTEM_SESSION {
                count(inner, &key, row.head.first.prev(), &mut counts).await?;
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(counts);
        }
    }
}

async fn count(
    inner: &Inner,
    key: &SessionKey,
    mut after: Seq,
    counts: &mut BTreeMap<[u8; 32], u64>,
) -> Result<(), Error> {
    loop {
        let entries = match inner.log.read(key, after, ReadLimit::default()).await {
            Err(ax_log::ReadError::NotFound) => return Ok(()),
            read => read?,
        };
        let Some(last) = entries.last() else { return Ok(()) };
        after = last.seq;
        for entry in &entries {
            // What cannot be read may refer to anything: nothing is collected then.
            let event = codec::decode_event(&entry.payload).map_err(|error| {
                let what = format!("event {} of {key} cannot be read", entry.seq);
                Error::new(Code::Damaged, what).caused_by(&error)
            })?;
            for blob in blobs_of(&event) {
                *counts.entry(blob.hash).or_default() += 1;
            }
        }
    }
}

impl Inner {
    /// Removes the blobs of a namespace that nothing refers to and that are not young.
    pub(crate) async fn collect(
        &self,
        namespace: &Namespace,
        grace_millis: u64,
    ) -> Result<Collection, Error> {
        let as_of: Timestamp = self.clock.now();
        let counting = self.references.write().await;
        let counts = references(self, namespace).await?;
        drop(counting);
        let live = |id: &ax_store::BlobId| counts.contains_key(&id.0);
        let collected = self.blobs.collect(namespace, as_of, grace_millis, live).await;
        collected.map_err(|error| {
            Error::new(Code::Read, "the blobs cannot be collected").caused_by(&error)
        })
    }
}

/// Collects now and then, until the engine stops.
pub(crate) async fn run(inner: Weak<Inner>) {
    loop {
        let Some(engine) = inner.upgrade() else { return };
        let stopping = engine.stopping.clone();
        drop(engine);
        tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
        let Some(engine) = inner.upgrade() else { return };
        let namespaces = engine.log.namespaces().await.unwrap_or_default();
        for namespace in namespaces {
            // Of several servers on a store one collects.
            let list = SessionKey::new(namespace.clone(), crate::agents::SYSTEM_SESSION);
            if !engine.log.owns(&list) {
                continue;
            }
            match engine.collect(&namespace, GRACE_MILLIS_DEFAULT).await {
                Ok(done) => tracing::info!(%namespace, ?done, "collected blobs"),
                Err(error) => tracing::warn!(%namespace, %error, "no blobs were collected"),
            }
        }
    }
}
