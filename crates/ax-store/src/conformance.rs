//! The suite that every backend runs. Each function shows the promise of the same number in the
//! law of [`Blobs`], in a namespace of its own, and panics if it is broken.

use crate::{Blobs, GetError, PART_BYTES, PutError, Usage};
use ax_core::id::Namespace;
use ax_core::time::Timestamp;
use bytes::Bytes;
use futures::stream::{self, TryStreamExt};
use std::io;

fn space(name: &str) -> Namespace {
    Namespace::new(name).expect("the suite's names are good")
}

/// A content of `bytes` bytes that does not repeat itself, in pieces of `piece` bytes.
fn long_content(bytes: usize, piece: usize) -> Vec<Bytes> {
    let mut content = vec![0; bytes];
    blake3::Hasher::new().finalize_xof().fill(&mut content);
    content.chunks(piece).map(Bytes::copy_from_slice).collect()
}

/// 1. What is read is what was put, whichever way it was put and read, at every awkward length.
pub async fn same(blobs: &Blobs) {
    let space = space("same");
    for bytes in [0, 1, 65_536, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES] {
        let pieces = long_content(bytes, 100_000);
        let whole = Bytes::from(pieces.concat());
        let streamed = stream::iter(pieces.clone().into_iter().map(io::Result::Ok));
        let streamed = blobs.put(&space, streamed, u64::MAX).await.expect("a put");
        let at_once = blobs.put_bytes(&space, whole.clone()).await.expect("a put");
        let read = blobs.put_reader(&space, &whole[..], u64::MAX).await.expect("a put");
        assert!(streamed == at_once && at_once == read, "one content has one name");
        assert_eq!(streamed.bytes, bytes as u64);
        let got = blobs.get_bytes(&space, &streamed.id, bytes as u64).await.expect("a get");
        assert!(got == whole, "{bytes} bytes come back");
        let stat = blobs.stat(&space, &streamed.id).await.expect("a stat").expect("it is there");
        assert_eq!((stat.id, stat.bytes), (streamed.id, bytes as u64));
    }
}

/// 2. The same content is kept and counted once.
pub async fn once(blobs: &Blobs) {
    let space = space("once");
    for _ in 0..3 {
        blobs.put_bytes(&space, "twelve bytes".into()).await.expect("a put");
    }
    blobs.put_bytes(&space, "four".into()).await.expect("a put");
    let usage = blobs.usage(&space).await.expect("a count");
    assert_eq!(usage, Usage { count: 2, bytes: 16 });
    let listed: Vec<_> = blobs.list(&space).try_collect().await.expect("a listing");
    assert_eq!(listed.len(), 2);
}

/// 3. A blob of one namespace is not in another.
pub async fn tenants(blobs: &Blobs) {
    let (mine, yours) = (space("tenant-a"), space("tenant-b"));
    let blob = blobs.put_bytes(&mine, "mine".into()).await.expect("a put");
    let got = blobs.get_bytes(&yours, &blob.id, 100).await;
    assert!(matches!(got, Err(GetError::Missing { id }) if id == blob.id));
    assert_eq!(blobs.stat(&yours, &blob.id).await.expect("a stat"), None);
    assert_eq!(blobs.usage(&yours).await.expect("a count"), Usage::default());
    blobs.put_bytes(&yours, "mine".into()).await.expect("a put");
    blobs.collect(&yours, Timestamp::NEVER, 0, |_| false).await.expect("a collection");
    assert_eq!(blobs.usage(&mine).await.expect("a count"), Usage { count: 1, bytes: 4 });
    assert_eq!(blobs.usage(&yours).await.expect("a count"), Usage::default());
    let known = blobs.namespaces().await.expect("the namespaces");
    assert!(known.contains(&mine), "a namespace with a blob is known");
}

/// 4. A content that breaks off, or is too large, leaves nothing to be seen.
pub async fn whole(blobs: &Blobs) {
    let space = space("whole");
    for parts in [0, 3] {
        let pieces = long_content(parts * PART_BYTES + 10, PART_BYTES / 2);
        let broken = || io::Error::from(io::ErrorKind::ConnectionReset);
        let content = pieces.clone().into_iter().map(Ok).chain([Err(broken())]);
        let result = blobs.put(&space, stream::iter(content), u64::MAX).await;
        assert!(matches!(result, Err(PutError::Content { .. })), "{result:?}");
        let bytes_max = (parts * PART_BYTES + 9) as u64;
        let content = stream::iter(pieces.into_iter().map(io::Result::Ok));
        let result = blobs.put(&space, content, bytes_max).await;
        assert!(matches!(result, Err(PutError::TooLarge { .. })), "{result:?}");
    }
    assert_eq!(blobs.usage(&space).await.expect("a count"), Usage::default());
    let collection = blobs.collect(&space, Timestamp::NEVER, 0, |_| false).await;
    assert_eq!(collection.expect("a collection").removed_count, 0);
}

/// 5. A content much larger than a part comes and goes piece by piece.
pub async fn large(blobs: &Blobs) {
    let space = space("large");
    let bytes = 4 * PART_BYTES + 12_345;
    let pieces = long_content(bytes, 1 << 20);
    let content = stream::iter(pieces.clone().into_iter().map(io::Result::Ok));
    let blob = blobs.put(&space, content, bytes as u64).await.expect("a put");
    let mut stream = blobs.get(&space, &blob.id).await.expect("a get");
    assert_eq!(stream.bytes(), bytes as u64);
    let mut hasher = blake3::Hasher::new();
    while let Some(piece) = stream.try_next().await.expect("a piece") {
        hasher.update(&piece);
    }
    assert_eq!(*hasher.finalize().as_bytes(), blob.id.0);
    let limit = bytes as u64 - 1;
    let got = blobs.get_bytes(&space, &blob.id, limit).await;
    assert!(matches!(got, Err(GetError::TooLarge { .. })), "the limit holds");
}

/// 6. A collection removes what is neither live nor young.
pub async fn collected(blobs: &Blobs) {
    let space = space("collected");
    let live = blobs.put_bytes(&space, "live".into()).await.expect("a put");
    let dead = blobs.put_bytes(&space, "dead and old".into()).await.expect("a put");
    let born = blobs.stat(&space, &dead.id).await.expect("a stat").expect("it is there");
    let young_until = born.modified_at.plus_millis(60_000);
    let just_before = Timestamp::from_millis(young_until.millis - 1_000);
    let young = blobs.collect(&space, just_before, 60_000, |_| false).await;
    let young = young.expect("a collection");
    assert_eq!((young.young_count, young.removed_count), (2, 0), "grace is kept");

    let is_live = |id: &crate::BlobId| *id == live.id;
    let old = blobs.collect(&space, Timestamp::NEVER, 60_000, is_live).await;
    let old = old.expect("a collection");
    assert_eq!((old.live_count, old.removed_count, old.removed_bytes), (1, 1, 12));
    assert!(blobs.get_bytes(&space, &live.id, 100).await.is_ok());
    let gone = blobs.get_bytes(&space, &dead.id, 100).await;
    assert!(matches!(gone, Err(GetError::Missing { .. })));
    blobs.put_bytes(&space, "dead and old".into()).await.expect("what was removed can come back");
    assert!(blobs.get_bytes(&space, &dead.id, 100).await.is_ok());
}

/// 7. A content that is put while it is being collected is there afterwards.
pub async fn race(blobs: &Blobs) {
    let space = space("race");
    for round in 0..8 {
        let content = Bytes::from(format!("wanted again, {round}"));
        let blob = blobs.put_bytes(&space, content.clone()).await.expect("a put");
        let stat = blobs.stat(&space, &blob.id).await.expect("a stat").expect("it is there");
        // The clock of the store must have moved on, so that the next put is younger.
        let mut tick = stat;
        while tick.modified_at <= stat.modified_at {
            let other = blobs.put_bytes(&space, "tick".into()).await.expect("a put");
            tick = blobs.stat(&space, &other.id).await.expect("a stat").expect("it is there");
        }
        let collect = blobs.collect(&space, stat.modified_at, 0, |_| false);
        let (collected, put) =
            futures::future::join(collect, blobs.put_bytes(&space, content.clone())).await;
        collected.expect("a collection");
        put.expect("a put");
        let got = blobs.get_bytes(&space, &blob.id, 100).await.expect("it is there");
        assert_eq!(got, content);
    }
}

/// 8. Damage is found, named, and never given out whole. `damage` overwrites the object of a blob,
///    named by its namespace and 64 digits, with other bytes.
pub async fn verified(blobs: &Blobs, damage: impl AsyncFn(&Namespace, &str, Bytes)) {
    let space = space("verified");
    let content = Bytes::from(long_content(300_000, 300_000).concat());
    let good = blobs.put_bytes(&space, "good".into()).await.expect("a put");
    let mut flipped = content.to_vec();
    flipped[150_000] ^= 1;
    let longer = [&content[..], b"x"].concat();
    for wrong in [flipped, content[..299_999].to_vec(), longer, Vec::new()] {
        let blob = blobs.put_bytes(&space, content.clone()).await.expect("a put");
        damage(&space, &blob.id.hex(), wrong.clone().into()).await;
        let mut stream = blobs.get(&space, &blob.id).await.expect("it opens");
        let mut seen = 0;
        let error = loop {
            match stream.try_next().await {
                Ok(Some(piece)) => seen += piece.len(),
                Ok(None) => panic!("damage was given out as the content"),
                Err(error) => break error,
            }
        };
        assert!(seen < wrong.len().max(1), "the last piece is held back");
        let text = error.to_string();
        assert!(text.contains(&blob.id.to_string()) && text.contains("damaged"), "{text}");
        let found = blobs.verify_all(&space).await.expect("a check");
        assert_eq!((found.usage.count, found.damaged.len()), (2, 1));
        let named = matches!(&found.damaged[0], GetError::Damaged { id, .. } if *id == blob.id);
        assert!(named, "{:?}", found.damaged);
        assert!(blobs.get_bytes(&space, &good.id, 10).await.is_ok(), "others are read");
        blobs.put_bytes(&space, content.clone()).await.expect("a put heals it");
        assert!(blobs.verify_all(&space).await.expect("a check").damaged.is_empty());
    }
}
