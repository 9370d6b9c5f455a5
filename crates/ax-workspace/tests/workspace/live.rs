//! The files of a workspace as they are, in one that somebody works in with bad intent.

use crate::world::{World, noise};
use ax_workspace::{FileError, Kind, Place, live};
use bytes::Bytes;
use futures::stream;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const ANY: live::Write = live::Write { mode: 0o644, overwrite: true, bytes_max: 1 << 20 };
/// How long something may take that must not wait for anybody.
const PATIENCE: Duration = Duration::from_secs(20);

async fn read(dir: &Path, path: &str) -> Result<Vec<u8>, FileError> {
    let mut reader = live::read(dir, path.as_bytes()).await?;
    let mut content = Vec::new();
    while let Some(piece) = reader.next().await? {
        content.extend_from_slice(&piece);
    }
    Ok(content)
}

async fn write(
    place: &Place,
    path: &str,
    content: &str,
    how: live::Write,
) -> Result<u64, FileError> {
    let content = Bytes::copy_from_slice(content.as_bytes());
    live::write(place, path.as_bytes(), stream::iter([Ok(content)]), how).await
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[tokio::test]
async fn what_is_written_is_listed_and_read() {
    let world = World::new();
    let place = world.place("w");
    let content = noise(1, 700_000);
    let pieces: Vec<_> =
        content.chunks(90_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let how = live::Write { mode: 0o4751, ..ANY };
    let written = live::write(&place, b"a/./b//c", stream::iter(pieces), how).await.unwrap();
    assert_eq!(written, 700_000);
    assert_eq!(read(&place.dir, "a/b/c").await.unwrap(), content);
    let mode = fs::metadata(place.dir.join("a/b/c")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o751, "no set-id bit");
    symlink("c", place.dir.join("a/b/link")).unwrap();
    let _socket = UnixListener::bind(place.dir.join("a/b/socket")).unwrap();
    let found = live::list(&place.dir, b"a/b").await.unwrap();
    let found: Vec<_> = found.iter().map(|one| (&*one.name, one.kind, one.bytes)).collect();
    let expected: [(&[u8], _, _); 3] =
        [(b"c", Kind::File, 700_000), (b"link", Kind::Link, 0), (b"socket", Kind::Special, 0)];
    assert_eq!(found, expected);
    let one = live::list(&place.dir, b"a/b/link").await.unwrap();
    assert_eq!((one.len(), &*one[0].target), (1, &b"c"[..]));
    assert_eq!(live::list(&place.dir, b".").await.unwrap()[0].kind, Kind::Dir);
    // Nothing is left where files are made.
    assert_eq!(fs::read_dir(&place.beside).unwrap().count(), 0);
}

#[tokio::test]
async fn a_file_is_replaced_only_if_it_may_be() {
    let world = World::new();
    let place = world.place("w");
    let once = live::Write { overwrite: false, ..ANY };
    write(&place, "f", "one", once).await.unwrap();
    let refused = write(&place, "f", "two", once).await;
    assert!(matches!(refused, Err(FileError::Exists { .. })), "{refused:?}");
    assert_eq!(read(&place.dir, "f").await.unwrap(), b"one");
    write(&place, "f", "two", ANY).await.unwrap();
    assert_eq!(read(&place.dir, "f").await.unwrap(), b"two");
    fs::create_dir(place.dir.join("d")).unwrap();
    for path in ["d", "", "."] {
        let refused = write(&place, path, "x", ANY).await;
        assert!(matches!(refused, Err(FileError::Kind { found: "a directory", .. })), "{path}");
    }
    let refused = write(&place, "f/below", "x", ANY).await;
    assert!(matches!(refused, Err(FileError::Kind { found: "a file", .. })), "{refused:?}");
}

#[tokio::test]
async fn a_content_that_is_too_long_or_breaks_off_leaves_what_was() {
    let world = World::new();
    let place = world.place("w");
    write(&place, "f", "before", ANY).await.unwrap();
    let small = live::Write { bytes_max: 7, ..ANY };
    let refused = write(&place, "f", "12345678", small).await;
    assert!(matches!(refused, Err(FileError::Limit { max: 7, .. })), "{refused:?}");
    write(&place, "f", "1234567", small).await.unwrap();
    let pieces = [Ok(Bytes::from_static(b"half")), Err(io::Error::other("gone"))];
    let broken = live::write(&place, b"f", stream::iter(pieces), ANY).await;
    assert!(matches!(broken, Err(FileError::Content { .. })), "{broken:?}");
    assert_eq!(read(&place.dir, "f").await.unwrap(), b"1234567");
    let left = [&place.dir, &place.beside].map(|dir| fs::read_dir(dir).unwrap().count());
    assert_eq!(left, [1, 0]);
    // What a life before has left is removed by the next write.
    fs::write(place.beside.join("draft.1.1"), "left").unwrap();
    write(&place, "f", "x", ANY).await.unwrap();
    assert_eq!(fs::read_dir(&place.beside).unwrap().count(), 0);
}

#[tokio::test]
async fn on_another_file_system_a_file_is_made_where_it_will_be() {
    let world = World::new();
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let place = Place { beside: elsewhere.path().to_owned(), ..world.place("w") };
    write(&place, "d/f", "x", ANY).await.unwrap();
    let refused = write(&place, "d/f", "12345678", live::Write { bytes_max: 1, ..ANY }).await;
    assert!(refused.is_err());
    let names: Vec<_> = fs::read_dir(place.dir.join("d")).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
    // What a crash leaves of it is in no snapshot.
    fs::write(place.dir.join("d/.ax-restoring.1.1"), "left").unwrap();
    fs::write(place.dir.join("d/.ax-restoring-not"), "kept").unwrap();
    assert_eq!(world.save("w", None).await.totals.files, 2);
}

#[tokio::test]
async fn no_path_leads_out() {
    let world = World::new();
    let place = world.place("w");
    fs::write(world.path("outside"), "secret").unwrap();
    fs::create_dir(place.dir.join("d")).unwrap();
    let long = "x".repeat(256);
    let longer = "x/".repeat(2049);
    for path in ["../outside", "d/../../outside", "..", "/etc/passwd", "a\0b", &long, &longer] {
        let (at, dir) = (path.as_bytes(), &place.dir);
        let refusals = [
            live::list(dir, at).await.err(),
            live::read(dir, at).await.err(),
            live::remove(dir, at, true).await.err(),
            write(&place, path, "x", ANY).await.err(),
        ];
        for refusal in refusals {
            assert!(matches!(refusal, Some(FileError::BadPath { .. })), "{path}: {refusal:?}");
        }
    }
    // Control: the same file, named well and without leaving.
    assert_eq!(read(world.dir.path(), "outside").await.unwrap(), b"secret");
    // The longest name and bytes that are no text are names like any other.
    for name in [&[b'y'; 255][..], b"\xff\xfe \n"] {
        let content = stream::iter([Ok(Bytes::from_static(b"x"))]);
        live::write(&place, name, content, ANY).await.unwrap();
        assert_eq!(live::read(&place.dir, name).await.unwrap().bytes(), 1);
        assert_eq!(live::remove(&place.dir, name, false).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn links_are_never_followed() {
    let world = World::new();
    let place = world.place("w");
    let outside = world.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("f"), "secret").unwrap();
    symlink(&outside, place.dir.join("d")).unwrap();
    symlink(outside.join("f"), place.dir.join("l")).unwrap();
    for path in ["d/f", "l"] {
        let refused = read(&place.dir, path).await;
        assert!(matches!(refused, Err(FileError::Kind { found: "a link", .. })), "{refused:?}");
        // Control: the link does lead there.
        assert_eq!(fs::read_to_string(place.dir.join(path)).unwrap(), "secret");
    }
    for path in ["d/f", "d/new"] {
        assert!(write(&place, path, "bad", ANY).await.is_err());
        assert!(live::remove(&place.dir, path.as_bytes(), true).await.is_err());
        assert!(live::list(&place.dir, path.as_bytes()).await.is_err());
    }
    // A link itself is replaced and removed, not what it leads to.
    write(&place, "l", "mine", ANY).await.unwrap();
    assert_eq!(live::remove(&place.dir, b"d", true).await.unwrap(), 1);
    assert_eq!(fs::read_to_string(outside.join("f")).unwrap(), "secret");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[tokio::test]
async fn pipes_sockets_and_devices_keep_nobody_waiting() {
    let world = World::new();
    let place = world.place("w");
    fifo(&place.dir.join("pipe"));
    let _socket = UnixListener::bind(place.dir.join("socket")).unwrap();
    for (path, what) in [("pipe", "a pipe"), ("socket", "a socket")] {
        let refused = tokio::time::timeout(PATIENCE, read(&place.dir, path)).await.unwrap();
        assert!(matches!(refused, Err(FileError::Kind { found, .. }) if found == what));
        let below = format!("{path}/below");
        let refused = write(&place, &below, "x", ANY);
        assert!(tokio::time::timeout(PATIENCE, refused).await.unwrap().is_err());
    }
    tokio::time::timeout(PATIENCE, write(&place, "pipe", "x", ANY)).await.unwrap().unwrap();
    assert_eq!(read(&place.dir, "pipe").await.unwrap(), b"x");
    let refused = live::read(Path::new("/dev"), b"zero").await;
    assert!(matches!(refused, Err(FileError::Kind { found: "a device", .. })), "{refused:?}");
}

#[tokio::test]
async fn what_is_deep_or_closed_is_removed_and_a_full_directory_only_when_asked() {
    let world = World::new();
    let place = world.place("w");
    let mut at = place.dir.join("d");
    fs::create_dir(&at).unwrap();
    // Deeper than any path can say: made one in the other by a program that goes along.
    let script = "import os\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')";
    let made = Command::new("python3").args(["-c", script]).current_dir(&at).status().unwrap();
    assert!(made.success());
    at.push("closed");
    fs::create_dir(&at).unwrap();
    fs::write(at.join("f"), "x").unwrap();
    fs::set_permissions(&at, fs::Permissions::from_mode(0o0)).unwrap();
    fs::write(place.dir.join("d/.ax-removed.1"), "in the way").unwrap();
    let refused = live::remove(&place.dir, b"d", false).await;
    assert!(matches!(refused, Err(FileError::NotEmpty { .. })), "{refused:?}");
    assert_eq!(live::remove(&place.dir, b"d", true).await.unwrap(), 3001 + 3);
    assert!(!place.dir.join("d").exists());
    let none = live::remove(&place.dir, b"d", true).await;
    assert!(matches!(none, Err(FileError::NoPath { .. })), "{none:?}");
    let refused = live::remove(&place.dir, b"", true).await;
    assert!(matches!(refused, Err(FileError::BadPath { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_file_that_grows_ends_where_it_did_and_one_that_shrinks_is_said() {
    let world = World::new();
    let place = world.place("w");
    fs::write(place.dir.join("f"), vec![b'a'; 600_000]).unwrap();
    let mut reader = live::read(&place.dir, b"f").await.unwrap();
    fs::write(place.dir.join("f"), vec![b'a'; 900_000]).unwrap();
    let mut bytes = 0;
    while let Some(piece) = reader.next().await.unwrap() {
        bytes += piece.len();
    }
    assert_eq!(bytes, 600_000);
    let mut reader = live::read(&place.dir, b"f").await.unwrap();
    reader.next().await.unwrap();
    fs::write(place.dir.join("f"), "short").unwrap();
    let changed = reader.next().await;
    assert!(matches!(changed, Err(FileError::Changed { .. })), "{changed:?}");
}

/// Somebody swaps a directory for a link to one outside, all the time.
#[tokio::test(flavor = "multi_thread")]
async fn links_that_are_swapped_in_lead_nowhere() {
    let world = World::new();
    let place = world.place("w");
    let outside = world.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("f"), "OUTSIDE").unwrap();
    let (d, inside) = (place.dir.join("d"), place.dir.join("inside"));
    fs::create_dir(&d).unwrap();
    fs::write(d.join("f"), "inside").unwrap();
    symlink(&outside, &inside).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &d, CWD, &inside, RenameFlags::EXCHANGE).unwrap();
            }
        })
    };
    let (mut seen, mut through) = (0, 0);
    let mut rounds = 0;
    while (seen < 50 || through < 50) && rounds < 200_000 {
        rounds += 1;
        if let Ok(content) = read(&place.dir, "d/f").await {
            assert!(content == b"inside" || content == b"mine", "{content:?}");
            seen += 1;
        }
        // Control: who follows links does get there.
        through += u32::from(fs::read(place.dir.join("d/f")).is_ok_and(|it| it == b"OUTSIDE"));
        drop(write(&place, "d/f", "mine", ANY).await);
        drop(live::remove(&place.dir, b"d/new", true).await);
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    assert!(seen >= 50 && through >= 50, "{seen} and {through} in {rounds} rounds");
    assert_eq!(fs::read_to_string(outside.join("f")).unwrap(), "OUTSIDE");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}
