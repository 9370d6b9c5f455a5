//! Removing what nothing refers to.

use crate::blobs::{Blobs, modified_at};
use crate::error::{StoreError, failed};
use crate::id::BlobId;
use crate::layout::{self, Place};
use crate::local::LeftoverOf;
use ax_core::id::Namespace;
use ax_core::time::Timestamp;
use futures::stream::TryStreamExt;
use object_store::ObjectStoreExt;

/// How long a blob is young after it was put, unless the caller says otherwise: one hour.
pub const GRACE_MILLIS_DEFAULT: u64 = 3_600_000;

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collection {
    /// Blobs that are referred to.
    pub live_count: u64,
    /// Blobs that are not, but too young to be sure.
    pub young_count: u64,
    /// Blobs that were removed.
    pub removed_count: u64,
    /// The sum of their lengths, in bytes.
    pub removed_bytes: u64,
    /// Abandoned uploads and files of dead processes that were removed.
    pub leftover_count: u64,
}

/// The line between young and old.
#[derive(Clone, Copy, Debug)]
struct Age {
    as_of: Timestamp,
    grace_millis: u64,
}

impl Age {
    fn is_old(self, modified_at: Timestamp) -> bool {
        modified_at.plus_millis(self.grace_millis) <= self.as_of
    }
}

impl Blobs {
    /// Removes the blobs of a namespace that are not `live` and were last put `grace_millis` or
    /// longer before `as_of`, and what dead processes left behind.
    ///
    /// `as_of` is when the caller *began* to read the references, by the clock of the store; what
    /// was put after that is never removed, however long the reading took. `grace_millis` must be
    /// longer than any caller takes from a `put` to the durable event that refers to it. `live` is
    /// asked again just before a removal, which no [`Blobs::stat`] of the blob runs beside.
    /// [`Timestamp::NEVER`] as `as_of` makes every blob old, which only tests want.
    ///
    /// May be stopped, or die, at any point: what it did not remove the next one does.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] if the store fails. What was removed until then was to be removed.
    pub async fn collect(
        &self,
        namespace: &Namespace,
        as_of: Timestamp,
        grace_millis: u64,
        live: impl Fn(&BlobId) -> bool,
    ) -> Result<Collection, StoreError> {
        let age = Age { as_of, grace_millis };
        let mut collection = Collection::default();
        let mut places = self.places(namespace);
        while let Some((place, meta)) = places.try_next().await? {
            match place {
                Place::Blob(id) if live(&id) => collection.live_count += 1,
                Place::Blob(id) => {
                    if !age.is_old(modified_at(&meta)) {
                        collection.young_count += 1;
                    } else if self.remove_if_dead(namespace, &id, age, &live).await? {
                        collection.removed_count += 1;
                        collection.removed_bytes += meta.size;
                    }
                }
                Place::Staging(name) => {
                    let abandoned = !self.inner.is_under_way(&name);
                    if abandoned && age.is_old(modified_at(&meta)) {
                        self.remove_object(&meta.location).await?;
                        collection.leftover_count += 1;
                    }
                }
                Place::Foreign => {}
            }
        }
        collection.leftover_count += self.sweep(namespace, age).await?;
        Ok(collection)
    }

    /// Removes a blob unless it was put again or has become live since it was listed; returns
    /// whether it did.
    async fn remove_if_dead(
        &self,
        namespace: &Namespace,
        id: &BlobId,
        age: Age,
        live: &impl Fn(&BlobId) -> bool,
    ) -> Result<bool, StoreError> {
        // Held over both steps: a put of the same content comes before the look, and makes the
        // blob young, or after the removal, and writes it anew.
        let _exclusive = self.inner.shard(id).write().await;
        match self.head(namespace, id).await? {
            Some(stat) if age.is_old(stat.modified_at) && !live(id) => {
                self.remove_object(&layout::blob(namespace, id)).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn remove_object(&self, path: &object_store::path::Path) -> Result<(), StoreError> {
        match self.inner.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(format!("remove {path}"))(error)),
        }
    }

    /// Removes the hidden files of a local directory that belong to no put of this process.
    async fn sweep(&self, namespace: &Namespace, age: Age) -> Result<u64, StoreError> {
        let Some(local) = &self.inner.local else { return Ok(0) };
        let mut count = 0;
        for leftover in local.leftovers(namespace).await? {
            if !age.is_old(leftover.modified_at) {
                continue;
            }
            let removed = match &leftover.of {
                LeftoverOf::Upload(name) if self.inner.is_under_way(name) => false,
                LeftoverOf::Upload(_) => local.remove(&leftover).await?,
                LeftoverOf::Blob(id) => {
                    // No put of this blob is under way while this is held; the file found may
                    // have been one's, which is then gone.
                    let _exclusive = self.inner.shard(id).write().await;
                    local.remove(&leftover).await?
                }
            };
            count += u64::from(removed);
        }
        Ok(count)
    }
}
