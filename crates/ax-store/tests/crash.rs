//! Dying at any step leaves nothing wrong, and a collection never takes what is being put.

#![expect(clippy::unwrap_used, reason = "a test")]

mod common;

use ax_core::id::Namespace;
use ax_core::time::Timestamp;
use ax_store::{Blob, Blobs, PART_BYTES};
use bytes::Bytes;
use common::{Plan, Planned};
use futures::stream;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

fn planned(inner: &Arc<dyn ObjectStore>, plan: Plan) -> (Blobs, Arc<Plan>) {
    let plan = Arc::new(plan);
    let store = Planned { inner: Arc::clone(inner), plan: Arc::clone(&plan) };
    (Blobs::new(Arc::new(store)), plan)
}

fn large() -> impl futures::Stream<Item = std::io::Result<Bytes>> + Send {
    stream::iter((0..3u8).map(|n| Ok(Bytes::from(vec![n; PART_BYTES - 7]))))
}

/// Puts and collects; returns what was acknowledged and is still wanted.
async fn work(blobs: &Blobs, space: &Namespace) -> Vec<Blob> {
    let mut wanted: Vec<Blob> = Vec::new();
    wanted.extend(blobs.put_bytes(space, "small".into()).await.ok());
    wanted.extend(blobs.put(space, large(), u64::MAX).await.ok());
    drop(blobs.put_bytes(space, "unwanted".into()).await);
    let live = |id: &ax_store::BlobId| wanted.iter().any(|blob| blob.id == *id);
    drop(blobs.collect(space, Timestamp::NEVER, 0, live).await);
    wanted.extend(blobs.put_bytes(space, "unwanted".into()).await.ok());
    wanted
}

async fn dies_at_every_step(open: impl Fn() -> Arc<dyn ObjectStore>) {
    let space = Namespace::default();
    let (blobs, plan) = planned(&open(), Plan::never_fails());
    assert_eq!(work(&blobs, &space).await.len(), 3);
    let steps = u64::MAX - plan.steps_left.load(Ordering::SeqCst);
    assert!(steps > 10, "{steps} steps");
    for (step, last_is_done) in (0..steps).flat_map(|step| [(step, false), (step, true)]) {
        let store = open();
        let steps_left = AtomicU64::new(step);
        let (dying, _) = planned(&store, Plan { steps_left, last_is_done, gate: None });
        let wanted = work(&dying, &space).await;
        drop(dying);

        let blobs = Blobs::new(store);
        let found = blobs.verify_all(&space).await.unwrap();
        assert!(found.damaged.is_empty(), "step {step}: {found:?}");
        for blob in &wanted {
            let stat = blobs.stat(&space, &blob.id).await.unwrap();
            assert_eq!(stat.map(|stat| stat.bytes), Some(blob.bytes), "step {step}");
        }
        let live = |id: &ax_store::BlobId| wanted.iter().any(|blob| blob.id == *id);
        blobs.collect(&space, Timestamp::NEVER, 0, live).await.unwrap();
        let usage = blobs.usage(&space).await.unwrap();
        assert_eq!(usage.count, wanted.len() as u64, "step {step}: the rest is collected");
        let nothing = blobs.collect(&space, Timestamp::NEVER, 0, live).await.unwrap();
        assert_eq!((nothing.leftover_count, nothing.removed_count), (0, 0), "step {step}");
    }
}

#[tokio::test]
async fn dying_at_any_step_in_memory_leaves_nothing_wrong() {
    dies_at_every_step(|| Arc::new(InMemory::new())).await;
}

#[tokio::test]
async fn dying_at_any_step_in_a_directory_leaves_nothing_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let number = AtomicU64::new(0);
    let open = || {
        let path = dir.path().join(number.fetch_add(1, Ordering::SeqCst).to_string());
        std::fs::create_dir(&path).unwrap();
        Arc::new(LocalFileSystem::new_with_prefix(path).unwrap()) as Arc<dyn ObjectStore>
    };
    dies_at_every_step(open).await;
}

#[tokio::test]
async fn a_put_of_what_is_being_removed_waits_and_stays() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let gate = Some((Notify::new(), Notify::new()));
    let (blobs, plan) = planned(&store, Plan { gate, ..Plan::never_fails() });
    let space = Namespace::default();
    let (reached, go_on) = plan.gate.as_ref().unwrap();
    let blob = blobs.put_bytes(&space, "again".into()).await.unwrap();

    let collector = tokio::spawn({
        let (blobs, space) = (blobs.clone(), space.clone());
        async move { blobs.collect(&space, Timestamp::NEVER, 0, |_| false).await.unwrap() }
    });
    reached.notified().await;
    // The collection has looked, found the blob old, and is about to remove it.
    let mut put = Box::pin(blobs.put_bytes(&space, "again".into()));
    for _ in 0..100 {
        assert!(futures::poll!(&mut put).is_pending(), "the put waits for the removal");
        tokio::task::yield_now().await;
    }
    go_on.notify_one();
    put.await.unwrap();
    assert_eq!(collector.await.unwrap().removed_count, 1);
    assert_eq!(blobs.get_bytes(&space, &blob.id, 5).await.unwrap(), "again");
}
