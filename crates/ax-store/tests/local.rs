//! What only a local directory has: files, and what dead processes leave in them.

#![expect(clippy::unwrap_used, reason = "a test")]

use ax_core::id::Namespace;
use ax_core::time::Timestamp;
use ax_store::{BlobId, Blobs, OpenError, PART_BYTES};
use bytes::Bytes;
use futures::stream;
use std::fs;
use std::path::{Path, PathBuf};

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[tokio::test]
async fn a_blob_is_one_plain_file_under_its_hash() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::local(dir.path()).unwrap();
    let blob = blobs.put_bytes(&Namespace::default(), "hello".into()).await.unwrap();
    let hex = blob.id.to_string().strip_prefix("blob_").unwrap().to_owned();
    let path = dir.path().join("v1/default").join(&hex[..2]).join(&hex);
    assert_eq!(fs::read(&path).unwrap(), b"hello");
    assert_eq!(files(dir.path()), [path]);
    let again = Blobs::local(dir.path()).unwrap();
    assert_eq!(again.get_bytes(&Namespace::default(), &blob.id, 5).await.unwrap(), "hello");
}

#[tokio::test]
async fn an_upload_that_is_dropped_leaves_nothing_to_be_seen() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::local(dir.path()).unwrap();
    let space = Namespace::default();
    let (pieces, content) = futures::channel::mpsc::unbounded();
    for _ in 0..3 {
        pieces.unbounded_send(Ok(Bytes::from(vec![7; PART_BYTES]))).unwrap();
    }
    let mut put = Box::pin(blobs.put(&space, content, u64::MAX));
    while files(dir.path()).is_empty() {
        assert!(futures::poll!(&mut put).is_pending());
        tokio::task::yield_now().await;
    }
    assert_eq!(blobs.usage(&space).await.unwrap().count, 0);
    let under_way = blobs.collect(&space, Timestamp::NEVER, 0, |_| false).await.unwrap();
    assert_eq!(under_way.leftover_count, 0, "an upload under way is safe");
    assert_eq!(files(dir.path()).len(), 1);
    drop(put);
    blobs.collect(&space, Timestamp::NEVER, 0, |_| false).await.unwrap();
    assert_eq!(files(dir.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn what_a_dead_process_left_is_removed_when_it_is_old() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::local(dir.path()).unwrap();
    let space = Namespace::default();
    let kept = blobs.put_bytes(&space, "kept".into()).await.unwrap();
    let hex = BlobId::of(b"never finished").to_string()[5..].to_owned();
    let root = dir.path().join("v1/default");
    let left = [
        root.join(&hex[..2]).join(format!("{hex}#1")),
        root.join("staging/00000000deadbeef-0#1"),
        root.join("staging/00000000deadbeef-1"),
    ];
    let foreign = [root.join("notes.txt"), root.join("00/notes#txt")];
    for path in left.iter().chain(&foreign) {
        fs::write(path, "half of").unwrap();
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = Timestamp::from_millis(u64::try_from(now.as_millis()).unwrap());
    let young = blobs.collect(&space, now, 60_000, |_| false).await.unwrap();
    assert_eq!((young.leftover_count, young.young_count), (0, 1));
    let old = blobs.collect(&space, Timestamp::NEVER, 60_000, |id| *id == kept.id).await.unwrap();
    assert_eq!((old.leftover_count, old.live_count, old.removed_count), (3, 1, 0));
    assert!(left.iter().all(|path| !path.exists()));
    assert!(foreign.iter().all(|path| path.exists()), "what is not ours is not touched");
    assert_eq!(blobs.verify_all(&space).await.unwrap().foreign_count, 2);
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Blobs::local(&file.join("blobs")).unwrap_err();
    assert!(matches!(&error, OpenError::Directory { path, .. } if path.starts_with(&file)));
}

#[tokio::test]
async fn a_store_is_opened_by_its_url() {
    let dir = tempfile::tempdir().unwrap();
    let none: [(&str, &str); 0] = [];
    let url = format!("file://{}", dir.path().display());
    let blobs = Blobs::from_url(&url, none).unwrap();
    let blob = blobs.put_bytes(&Namespace::default(), "x".into()).await.unwrap();
    let same = Blobs::local(dir.path()).unwrap();
    assert!(same.stat(&Namespace::default(), &blob.id).await.unwrap().is_some());
    assert!(Blobs::from_url("memory:", none).is_ok());
    for wrong in ["", "blobs", "ftp://host/blobs"] {
        assert!(Blobs::from_url(wrong, none).is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn a_large_content_needs_little_memory() {
    const BYTES: usize = 192 << 20;
    const GROWTH_MAX: u64 = 64 << 20;
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::local(dir.path()).unwrap();
    let space = Namespace::default();
    let before = peak_memory();
    let pieces = (0..BYTES >> 20).map(|n| Ok(Bytes::from(vec![u8::try_from(n).unwrap(); 1 << 20])));
    let blob = blobs.put(&space, stream::iter(pieces), u64::MAX).await.unwrap();
    assert_eq!(blob.bytes, BYTES as u64);
    assert!(blobs.verify_all(&space).await.unwrap().damaged.is_empty());
    let growth = peak_memory() - before;
    assert!(growth < GROWTH_MAX, "{growth} bytes for {BYTES}");
}

/// The most memory this process had so far, in bytes (`VmHWM` of proc(5)).
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
