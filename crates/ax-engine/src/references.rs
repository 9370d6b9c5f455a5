//! Which blobs events refer to: what keeps them, and what an archive must carry.
//!
//! A collection reads the events of a namespace while others write, branch and delete. Nobody waits
//! for it. What it may miss is told to it instead:
//!
//! - An event names a blob that was put just now, which is young and stays, or one that was there
//!   before, which is [held](References::hold) from before it is looked up until the event is
//!   durable.
//! - A branch refers to what its parent does. Read is whichever of the two is still there; who
//!   deletes a session that was not read yet reads it [first](References::leave).

use ax_core::id::{Namespace, SessionId, SessionKey};
use ax_core::session::{BlobRef, Body, Event, Kind, Outcome, Part};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

type Hash = [u8; 32];

/// What collections must know beyond what they read, by namespace.
#[derive(Debug, Default)]
pub(crate) struct References(Mutex<BTreeMap<Namespace, Spared>>);

/// What a collection of one namespace must know.
#[derive(Debug, Default)]
struct Spared {
    /// Blobs that are about to be referred to, and by how many.
    held: BTreeMap<Hash, usize>,
    /// Held for reading by deletions that began before the collection did.
    leaving: Arc<RwLock<()>>,
    collection: Option<Found>,
}

/// What a collection has found so far.
#[derive(Debug, Default)]
struct Found {
    blobs: BTreeSet<Hash>,
    /// The last session that was read, in the order in which they are.
    read_to: Option<SessionId>,
    /// Something could not be read: it may have referred to anything.
    is_void: bool,
}

impl References {
    fn with<T>(&self, namespace: &Namespace, what: impl FnOnce(&mut Spared) -> T) -> T {
        what(self.lock().entry(namespace.clone()).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Namespace, Spared>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps blobs from being collected for as long as what is returned lives. Hold them first,
    /// then see whether they are there.
    pub(crate) fn hold(self: &Arc<Self>, namespace: &Namespace, blobs: &[BlobRef]) -> Held {
        let (references, namespace) = (Arc::clone(self), namespace.clone());
        let blobs: Vec<_> = blobs.iter().map(|blob| blob.hash).collect();
        self.with(&namespace, |spared| {
            for blob in &blobs {
                *spared.held.entry(*blob).or_default() += 1;
            }
            if let Some(found) = &mut spared.collection {
                found.blobs.extend(&blobs);
            }
        });
        Held { references, namespace, blobs }
    }

    /// Says that a session is being deleted, for as long as what is returned lives, and whether
    /// its references have to be [added](Self::add) first.
    pub(crate) fn leave(&self, key: &SessionKey) -> (OwnedRwLockReadGuard<()>, bool) {
        self.with(&key.namespace, |spared| {
            let leaving = Arc::clone(&spared.leaving).try_read_owned();
            let leaving = leaving.expect("a collection replaces it before it waits for it");
            let found = spared.collection.as_ref();
            let unread = found.is_some_and(|found| found.read_to < Some(key.session));
            (leaving, unread)
        })
    }

    /// Adds what is referred to; `None` if that cannot be known.
    pub(crate) fn add(&self, namespace: &Namespace, blobs: Option<Vec<BlobRef>>) {
        self.with(namespace, |spared| match (&mut spared.collection, blobs) {
            (Some(found), Some(blobs)) => found.blobs.extend(blobs.iter().map(|blob| blob.hash)),
            (Some(found), None) => found.is_void = true,
            (None, _) => {}
        });
    }

    /// Begins a collection; one at a time in a namespace.
    pub(crate) async fn begin(&self, namespace: &Namespace) -> Collecting<'_> {
        let left = self.with(namespace, |spared| {
            let blobs = spared.held.keys().copied().collect();
            spared.collection = Some(Found { blobs, ..Found::default() });
            std::mem::take(&mut spared.leaving)
        });
        let collecting = Collecting { references: self, namespace: namespace.clone() };
        // Whoever deletes from here on knows of the collection.
        drop(left.write().await);
        collecting
    }
}

/// A collection that is under way.
#[derive(Debug)]
pub(crate) struct Collecting<'a> {
    references: &'a References,
    namespace: Namespace,
}

impl Collecting<'_> {
    fn found<T>(&self, what: impl FnOnce(&mut Found) -> T) -> T {
        self.references.with(&self.namespace, |spared| {
            what(spared.collection.as_mut().expect("it is under way"))
        })
    }

    /// A session was read.
    pub(crate) fn has_read(&self, session: SessionId) {
        self.found(|found| found.read_to = Some(session));
    }

    /// Whether something refers to a blob, or may.
    pub(crate) fn refers_to(&self, blob: &Hash) -> bool {
        self.found(|found| found.is_void || found.blobs.contains(blob))
    }
}

impl Drop for Collecting<'_> {
    fn drop(&mut self) {
        self.references.with(&self.namespace, |spared| spared.collection = None);
    }
}

/// Blobs that are not collected for as long as this lives.
#[derive(Debug)]
pub(crate) struct Held {
    references: Arc<References>,
    namespace: Namespace,
    blobs: Vec<Hash>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.references.with(&self.namespace, |spared| {
            for blob in &self.blobs {
                let count = spared.held.get_mut(blob).expect("it is held");
                *count -= 1;
                if *count == 0 {
                    spared.held.remove(blob);
                }
            }
        });
    }
}

/// Returns the blobs that an event refers to.
pub(crate) fn blobs_of(event: &Event) -> Vec<BlobRef> {
    let mut blobs = Vec::new();
    let mut body = |body: &Body| {
        if let Body::Blob(blob) = body {
            blobs.push(*blob);
        }
    };
    let parts = |parts: &[Part], body: &mut dyn FnMut(&Body)| {
        for part in parts {
            body(&part.body);
        }
    };
    match &event.kind {
        Kind::InputReceived { parts: given, .. }
        | Kind::OutputMessage { parts: given, .. }
        | Kind::RecordWritten { parts: given, .. } => {
            parts(given, &mut body);
        }
        Kind::ExecutionEnded { outcome: Outcome::Completed { result: Some(result) }, .. }
        | Kind::StepCompleted { result, .. } => body(result),
        Kind::StepStarted { request: Some(request), .. } => body(request),
        Kind::AskRaised { details: Some(details), .. } => body(details),
        Kind::WorkspaceSaved { saved, .. } => {
            blobs.push(saved.snapshot);
            blobs.extend(&saved.blobs);
        }
        Kind::SignalReceived { payload, .. } => body(payload),
        Kind::Note { data, .. } => body(data),
        _ => {}
    }
    blobs
}
