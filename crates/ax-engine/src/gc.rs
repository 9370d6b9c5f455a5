//! Removes blobs that no event refers to any more.
//!
//! The references are the events themselves, read when a collection begins: what is derived cannot
//! drift (see `docs/adr/0004-blobs.md`). Sessions go on meanwhile: see [`crate::references`].

use crate::inner::Inner;
use crate::references::{Collecting, blobs_of};
use crate::{Code, Error, codec};
use ax_core::id::{Namespace, Seq, SessionKey};
use ax_core::session::BlobRef;
use ax_core::time::Timestamp;
use ax_log::{Filter, ListQuery, ReadLimit};
use ax_store::{Collection, GRACE_MILLIS_DEFAULT};
use std::sync::Weak;
use std::time::Duration;

/// How long the engine rests between two looks at what was deleted.
const PAUSE: Duration = Duration::from_hours(1);
/// How many rows are read at a time.
const PAGE_ROWS: usize = 256;

/// Reads what the sessions of a namespace refer to, one session after the other.
async fn read_all(
    inner: &Inner,
    namespace: &Namespace,
    collecting: &Collecting<'_>,
) -> Result<(), Error> {
    let mut after = None;
    loop {
        let (namespace, filter) = (namespace.clone(), Filter::default());
        let query = ListQuery { namespace: namespace.clone(), after, limit: PAGE_ROWS, filter };
        let page = inner.log.list(query).await?;
        for row in page.rows {
            let key = SessionKey::new(namespace.clone(), row.session);
            if key.session != crate::agents::SYSTEM_SESSION {
                let each = |blobs| inner.references.add(&namespace, Some(blobs));
                read(inner, &key, row.head.first.prev(), each).await?;
            }
            collecting.has_read(key.session);
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Hands over what a session refers to, piece by piece.
async fn read(
    inner: &Inner,
    key: &SessionKey,
    mut after: Seq,
    each: impl Fn(Vec<BlobRef>),
) -> Result<(), Error> {
    loop {
        let entries = match inner.log.read(key, after, ReadLimit::default()).await {
            Err(ax_log::ReadError::NotFound) => return Ok(()),
            read => read?,
        };
        let Some(last) = entries.last() else { return Ok(()) };
        after = last.seq;
        let mut blobs = Vec::new();
        for entry in &entries {
            // What cannot be read may refer to anything: nothing is collected then.
            let event = codec::decode_event(&entry.payload).map_err(|error| {
                let what = format!("event {} of {key} cannot be read", entry.seq);
                Error::new(Code::Damaged, what).caused_by(&error)
            })?;
            blobs.extend(blobs_of(&event));
        }
        each(blobs);
    }
}

impl Inner {
    /// Removes the blobs of a namespace that nothing refers to and that are not young.
    pub(crate) async fn collect(
        &self,
        namespace: &Namespace,
        grace_millis: u64,
    ) -> Result<Collection, Error> {
        let one = SessionKey::new(namespace.clone(), crate::agents::SYSTEM_SESSION);
        let _turn = self.collections.take(&one).await;
        let as_of: Timestamp = self.clock.now();
        let collecting = self.references.begin(namespace).await;
        read_all(self, namespace, &collecting).await?;
        let live = |id: &ax_store::BlobId| collecting.refers_to(&id.0);
        let collected = self.blobs.collect(namespace, as_of, grace_millis, live).await;
        collected.map_err(|error| {
            Error::new(Code::Read, "the blobs cannot be collected").caused_by(&error)
        })
    }

    /// Lets the log go of a session. What it refers to may have become a branch's.
    pub(crate) async fn let_go(&self, key: &SessionKey) -> Result<(), Error> {
        let (_leaving, is_unread) = self.references.leave(key);
        if is_unread && let Some(head) = self.log.head(key).await? {
            let each = |blobs| self.references.add(&key.namespace, Some(blobs));
            if let Err(error) = read(self, key, head.first.prev(), each).await {
                tracing::warn!(session = %key, %error, "what is deleted cannot be read");
                self.references.add(&key.namespace, None);
            }
        }
        match self.log.delete(key).await {
            Ok(()) | Err(ax_log::DeleteError::NotFound) => Ok(()),
            Err(error) => Err(error.into()),
        }
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
