//! Workspaces, blobs and moments that somebody chose badly on purpose.

use crate::world::{World, age, noise, view};
use ax_core::id::Namespace;
use ax_store::{BlobId, Blobs};
use ax_workspace::{ReadError, RestoreError, restore, unfinished};
use bytes::Bytes;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// So much noise is not compressed, nor is what comes after it.
const CONTENT_BYTES: usize = 4_000;

#[tokio::test]
async fn links_are_never_followed() {
    let world = World::new();
    let outside = world.path("outside");
    fs::create_dir_all(outside.join("d")).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let at = world.place("w").dir;
    symlink(&outside, at.join("dir")).unwrap();
    symlink(outside.join("secret"), at.join("file")).unwrap();
    let taken = world.save("w", None).await;
    assert_eq!((taken.totals.links, taken.totals.files, taken.totals.bytes), (2, 0, 0));
    // What a restore finds in its way may be links too.
    let other = world.place("other").dir;
    fs::create_dir(other.join("d")).unwrap();
    fs::write(other.join("secret"), "mine").unwrap();
    let wanted = world.save("other", None).await;
    fs::remove_dir(other.join("d")).unwrap();
    fs::remove_file(other.join("secret")).unwrap();
    symlink(outside.join("d"), other.join("d")).unwrap();
    symlink(outside.join("secret"), other.join("secret")).unwrap();
    symlink(outside.join("secret"), other.join(".ax-restoring")).unwrap();
    symlink(&outside, other.join("more")).unwrap();
    world.restore("other", &wanted).await;
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "secret");
    assert!(outside.join("d").is_dir());
    assert_eq!(fs::read_to_string(other.join("secret")).unwrap(), "mine");
    assert!(fs::symlink_metadata(other.join("d")).unwrap().is_dir());
    assert!(!other.join("more").exists());
}

#[tokio::test]
async fn a_restore_does_not_write_through_a_hard_link() {
    let world = World::new();
    let at = world.place("w").dir;
    fs::write(at.join("f"), "one").unwrap();
    let taken = world.save("w", None).await;
    let outside = world.path("outside");
    fs::write(&outside, "two").unwrap();
    fs::remove_file(at.join("f")).unwrap();
    fs::hard_link(&outside, at.join("f")).unwrap();
    world.restore("w", &taken).await;
    assert_eq!(fs::read_to_string(outside).unwrap(), "two");
    assert_eq!(fs::read_to_string(at.join("f")).unwrap(), "one");
}

#[tokio::test]
async fn what_is_no_file_is_left_out_and_counted() {
    let world = World::new();
    let at = world.place("w").dir;
    let _listener = UnixListener::bind(at.join("socket")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(at.join("pipe")).status().unwrap();
    assert!(made.success());
    fs::write(at.join("f"), "x").unwrap();
    let taken = world.save("w", None).await;
    assert_eq!((taken.stats.special, taken.totals.files), (2, 1));
}

#[test]
fn a_workspace_that_changes_all_the_time_can_be_kept() {
    let world = World::new();
    let at = world.place("w").dir;
    let outside = world.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("f"), "OUTSIDE").unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                drop(fs::remove_dir_all(at.join("d")));
                drop(fs::remove_file(at.join("d")));
                if n % 2 == 0 {
                    fs::create_dir(at.join("d")).unwrap();
                    fs::write(at.join("d/f"), "inside").unwrap();
                } else {
                    symlink(&outside, at.join("d")).unwrap();
                }
                fs::write(at.join("torn"), noise(n, 200_000)).unwrap();
            }
        });
        let _stop = Stop(&stop);
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        runtime.block_on(async {
            let mut previous = None;
            for n in 0..100 {
                let taken = world.save("w", previous).await;
                world.restore(&format!("copy{}", n % 2), &taken).await;
                let copy = world.path(&format!("copy{}", n % 2));
                if let Ok(about) = fs::symlink_metadata(copy.join("d"))
                    && about.is_dir()
                    && let Ok(content) = fs::read_to_string(copy.join("d/f"))
                {
                    assert_ne!(content, "OUTSIDE");
                }
                previous = Some(taken.root);
            }
        });
    });
}

/// Ends the other thread, also if this one fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_damaged_or_missing_blob_is_named_and_nothing_is_changed() {
    let mut world = World::new();
    let dir = tempfile::tempdir().unwrap();
    world.blobs = Blobs::local(dir.path()).unwrap();
    let at = world.place("w").dir;
    fs::write(at.join("f"), noise(1, 1000)).unwrap();
    let taken = world.save("w", None).await;
    let hex = taken.root.id.to_string().replace("blob_", "");
    let file = dir.path().join("v1/default").join(&hex[..2]).join(&hex);
    let good = fs::read(&file).unwrap();
    let place = world.place("copy");
    fs::write(place.dir.join("mine"), "x").unwrap();
    for damage in [Some(10), Some(good.len() - 1), None] {
        match damage {
            Some(at) => {
                let mut bad = good.clone();
                bad[at] ^= 1;
                fs::write(&file, bad).unwrap();
            }
            None => fs::remove_file(&file).unwrap(),
        }
        let (namespace, id) = (Namespace::default(), taken.root.id);
        let failed = restore(&world.blobs, &namespace, &place, &id, &world.options).await;
        assert!(matches!(failed, Err(RestoreError::Read(ReadError::Blob(_)))), "{failed:?}");
        assert_eq!(fs::read_to_string(place.dir.join("mine")).unwrap(), "x");
        assert_eq!(unfinished(&place).unwrap(), None);
    }
    // The workspace is still there, and can be kept anew.
    fs::remove_dir_all(world.path("w.state")).unwrap();
    let anew = world.save("w", Some(taken.root)).await;
    assert_eq!(anew.stats.blobs_written, 1);
    world.restore("copy", &anew).await;
}

#[tokio::test]
async fn blobs_that_somebody_made_up_are_refused() {
    let world = World::new();
    let namespace = Namespace::default();
    let at = world.place("w").dir;
    fs::write(at.join("name"), noise(1, CONTENT_BYTES)).unwrap();
    let taken = world.save("w", None).await;
    let good = world.blobs.get_bytes(&namespace, &taken.root.id, 1 << 20).await.unwrap();
    let refused = async |blob: Bytes| {
        let put = world.blobs.put_bytes(&namespace, blob).await.unwrap();
        // What is there already and right would not be read from the store.
        drop(fs::remove_dir_all(world.path("copy")));
        let place = world.place("copy");
        restore(&world.blobs, &namespace, &place, &put.id, &world.options).await
    };
    assert_eq!(good[5], 0, "it is not compressed");
    let content = 12 + 10..12 + CONTENT_BYTES - 10;
    for at in (0..good.len()).filter(|at| !content.contains(at)) {
        let mut bad = good.to_vec();
        bad[at] ^= 0x10;
        // The two spare bytes of the head, and the counts and spare bytes of the end, say nothing
        // of what is restored.
        let says_nothing = (6..8).contains(&at) || (good.len() - 44..good.len() - 4).contains(&at);
        assert_eq!(refused(bad.into()).await.is_ok(), says_nothing, "byte {at}");
    }
    for length in (0..good.len()).filter(|length| !content.contains(length)) {
        assert!(refused(good.slice(..length)).await.is_err(), "length {length}");
    }
    assert!(refused(Bytes::from_static(b"no snapshot")).await.is_err());
}

#[tokio::test]
async fn names_that_lead_elsewhere_are_refused() {
    let world = World::new();
    let namespace = Namespace::default();
    let at = world.place("w").dir;
    fs::write(at.join("ab"), noise(1, CONTENT_BYTES)).unwrap();
    let taken = world.save("w", None).await;
    let good = world.blobs.get_bytes(&namespace, &taken.root.id, 1 << 20).await.unwrap();
    for name in [*b"..", *b"/x", *b"a/", *b"a\0"] {
        let blob = with_name(&good, name);
        let put = world.blobs.put_bytes(&namespace, blob).await.unwrap();
        let place = world.place("copy");
        let failed = restore(&world.blobs, &namespace, &place, &put.id, &world.options).await;
        let Err(RestoreError::Read(ReadError::Malformed { reason, .. })) = failed else {
            panic!("{failed:?}");
        };
        assert_eq!(reason, "a name is none");
    }
    let blob = with_name(&good, *b"cd");
    let put = world.blobs.put_bytes(&namespace, blob).await.unwrap();
    restore(&world.blobs, &namespace, &world.place("copy"), &put.id, &world.options).await.unwrap();
    assert!(world.path("copy/cd").exists(), "the others were refused for their names");
}

/// Gives the one file of a snapshot another name, and makes all hashes right again. The layout is
/// that of `docs/formats/workspace.md`: head of 12 bytes, the content, the directory, 84 bytes of
/// root.
fn with_name(blob: &Bytes, name: [u8; 2]) -> Bytes {
    let mut bytes = blob.to_vec();
    let (begin, end) = (12 + CONTENT_BYTES, bytes.len() - 84);
    let found = bytes[begin..end].windows(2).position(|two| two == b"ab").unwrap() + begin;
    bytes[found..found + 2].copy_from_slice(&name);
    let hash = BlobId::of(&bytes[begin..end]).0;
    bytes[end..end + 32].copy_from_slice(&hash);
    bytes.into()
}

#[tokio::test]
async fn a_snapshot_of_a_busy_workspace_is_not_trusted_the_next_time() {
    let mut world = World::new();
    let at = world.place("w").dir;
    fs::write(at.join("f"), "x").unwrap();
    age(&world);
    world.options.busy = true;
    let first = world.save("w", None).await;
    world.options.busy = false;
    let second = world.save("w", Some(first.root)).await;
    assert_eq!((second.stats.files_read, second.root), (1, first.root));
    let third = world.save("w", Some(first.root)).await;
    assert_eq!(third.stats.files_read, 0);
    assert_eq!(view(&at).len(), 1);
}
