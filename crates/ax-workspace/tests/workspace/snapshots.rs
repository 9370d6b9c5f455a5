//! Workspaces are kept and come back, and what did not change costs nothing.

use crate::world::{World, age, name, noise, view};
use ax_core::id::Namespace;
use ax_workspace::{Change, Changed, Kind, ReadError, SnapshotError, diff, list, read};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

/// A workspace with one of each.
fn fill(world: &World) {
    let at = world.place("w").dir;
    fs::create_dir_all(at.join("src/deep/er")).unwrap();
    fs::create_dir(at.join("empty")).unwrap();
    fs::write(at.join("src/main.rs"), "fn main() {}").unwrap();
    fs::write(at.join("src/deep/er/a"), "").unwrap();
    fs::write(at.join("large"), noise(1, 3_000_000)).unwrap();
    fs::write(at.join(name(b"no\xfftext\n")), "x").unwrap();
    fs::write(at.join("run.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(at.join("run.sh"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(at.join("src/main.rs"), at.join("copy.rs")).unwrap();
    symlink("../../outside", at.join("src/link")).unwrap();
    symlink("nowhere", at.join("dangling")).unwrap();
}

#[tokio::test]
async fn a_workspace_comes_back_as_it_was() {
    let world = World::new();
    fill(&world);
    let taken = world.save("w", None).await;
    assert_eq!((taken.totals.files, taken.totals.dirs, taken.totals.links), (6, 4, 2));
    world.restore("copy", &taken).await;
    let (mut was, is) = (view(&world.path("w")), view(&world.path("copy")));
    let run = was.get_mut(&b"/run.sh"[..]).unwrap();
    assert!(run.starts_with("file 4755"), "{run}");
    *run = run.replace("file 4755", "file 755");
    assert_eq!(is, was);
}

#[tokio::test]
async fn what_did_not_change_is_neither_read_nor_written() {
    let world = World::new();
    let at = world.place("w").dir;
    for n in 0..2_000 {
        let dir = at.join(format!("d{}", n / 100));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("f{n}")), format!("content of {n}")).unwrap();
    }
    age(&world);
    let first = world.save("w", None).await;
    assert_eq!(first.stats.files_read, 2_000);
    assert_eq!(first.stats.blobs_written, 1, "small files share a blob");
    let same = world.save("w", Some(first.root)).await;
    assert_eq!((same.root, same.stats.files_read, same.stats.blobs_written), (first.root, 0, 0));
    fs::write(at.join("d3/f301"), "another content").unwrap();
    age(&world);
    let second = world.save("w", Some(first.root)).await;
    assert_eq!((second.stats.files_read, second.stats.bytes_read), (1, 15));
    assert_eq!(second.stats.blobs_written, 1);
    assert!(second.stats.bytes_written < 10_000, "{:?}", second.stats);
    world.restore("copy", &second).await;
    assert_eq!(view(&world.path("copy")), view(&at));
    let back = world.restore("copy", &first).await;
    assert_eq!((back.files_written, back.bytes_written), (1, 14));
    assert_eq!(fs::read_to_string(world.path("copy/d3/f301")).unwrap(), "content of 301");
    let next = world.save("copy", Some(first.root)).await;
    assert_eq!(next.root, first.root);
    assert!(next.stats.files_read < 2_000, "what was restored long ago need not be read");
}

#[tokio::test]
async fn a_large_file_costs_what_changed_in_it() {
    let world = World::new();
    let at = world.place("w").dir;
    let mut content = noise(2, 20_000_000);
    fs::write(at.join("large"), &content).unwrap();
    let first = world.save("w", None).await;
    assert!(first.stats.bytes_written > 20_000_000);
    content.splice(10_000_000..10_000_000, *b"a few bytes more");
    fs::write(at.join("large"), &content).unwrap();
    let second = world.save("w", Some(first.root)).await;
    assert!(second.stats.bytes_written < 3_000_000, "{:?}", second.stats);
    world.restore("copy", &second).await;
    assert!(fs::read(world.path("copy/large")).unwrap() == content);
}

#[tokio::test]
async fn a_file_that_changed_at_the_same_moment_is_read_again() {
    let world = World::new();
    let file = world.place("w").dir.join("f");
    let mut previous = None;
    for n in 0..50 {
        // The same length, and often the same time.
        fs::write(&file, format!("{n:04}")).unwrap();
        let taken = world.save("w", previous).await;
        let mut reader =
            read(&world.blobs, &Namespace::default(), &taken.root.id, b"f").await.unwrap();
        assert_eq!(reader.next().await.unwrap().unwrap(), format!("{n:04}"));
        previous = Some(taken.root);
    }
}

#[tokio::test]
async fn a_lost_or_torn_index_costs_reading_and_nothing_else() {
    let world = World::new();
    fill(&world);
    age(&world);
    let first = world.save("w", None).await;
    let index = world.path("w.state/index");
    let mut bytes = fs::read(&index).unwrap();
    bytes.truncate(bytes.len() / 2);
    fs::write(&index, &bytes).unwrap();
    let again = world.save("w", Some(first.root)).await;
    assert_eq!(again.root, first.root);
    assert_eq!((again.stats.files_read, again.stats.blobs_written), (6, 0));
    fs::remove_dir_all(world.path("w.state")).unwrap();
    assert_eq!(world.save("w", Some(first.root)).await.root, first.root);
}

#[tokio::test]
async fn a_rewind_removes_writes_and_leaves_what_is_the_runtimes() {
    let world = World::new();
    fill(&world);
    let at = world.place("w").dir;
    let taken = world.save("w", None).await;
    let was = view(&at);
    fs::remove_file(at.join("dangling")).unwrap();
    fs::create_dir(at.join("dangling")).unwrap();
    fs::write(at.join("dangling/f"), "x").unwrap();
    fs::remove_dir_all(at.join("src/deep")).unwrap();
    symlink("..", at.join("src/deep")).unwrap();
    fs::set_permissions(at.join("empty"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::write(at.join("run.sh"), "changed").unwrap();
    fs::create_dir_all(at.join(".ax/blobs")).unwrap();
    fs::write(at.join(".ax/blobs/kept"), "x").unwrap();
    fs::write(at.join(".ax/other"), "x").unwrap();
    world.restore("w", &taken).await;
    assert_eq!(world.save("w", Some(taken.root)).await.totals, taken.totals);
    let mut is = view(&at);
    is.retain(|path, _| !path.starts_with(b"/.ax"));
    let mut was = was;
    let run = was.get_mut(&b"/run.sh"[..]).unwrap();
    *run = run.replace("file 4755", "file 755");
    assert_eq!(is, was);
}

#[tokio::test]
async fn packs_of_which_little_is_used_are_left() {
    let world = World::new();
    let at = world.place("w").dir;
    for n in 0..40 {
        fs::write(at.join(format!("f{n}")), noise(n, 60_000)).unwrap();
    }
    age(&world);
    let first = world.save("w", None).await;
    let large = first.written[0];
    for n in 1..40 {
        fs::remove_file(at.join(format!("f{n}"))).unwrap();
    }
    let second = world.save("w", Some(first.root)).await;
    let third = world.save("w", Some(second.root)).await;
    assert_eq!(third.stats.files_read, 1, "what is left in it is read again");
    // Whatever only the first snapshot needs may go.
    world
        .blobs
        .collect(&Namespace::default(), ax_core::time::Timestamp::NEVER, 0, |id| *id != large.id)
        .await
        .unwrap();
    world.restore("copy", &third).await;
    assert_eq!(view(&world.path("copy")), view(&at));
}

#[tokio::test]
async fn many_small_changes_do_not_make_many_packs() {
    let world = World::new();
    let at = world.place("w").dir;
    let mut previous = None;
    let mut most = 0;
    for n in 0..200_u64 {
        fs::create_dir_all(at.join(format!("d{n}"))).unwrap();
        fs::write(at.join(format!("d{n}/f")), noise(n, 500)).unwrap();
        age(&world);
        let taken = world.save("w", previous).await;
        most = most.max(taken.stats.files_read);
        previous = Some(taken.root);
    }
    assert!(most > 50, "small packs were joined: {most}");
    let index = fs::metadata(world.path("w.state/index")).unwrap().len();
    assert!(index < 200 * 300 + 70 * 36, "{index}");
}

#[tokio::test]
async fn what_is_too_much_is_refused_with_its_reason() {
    let mut world = World::new();
    fill(&world);
    let check = async |world: &World| match world.try_save("w", None).await {
        Err(SnapshotError::Limit { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    world.options.limits.entries = 3;
    assert_eq!(check(&world).await, "files");
    world.options.limits = Default::default();
    world.options.limits.bytes = 1_000_000;
    assert_eq!(check(&world).await, "bytes");
    world.options.limits = Default::default();
    world.options.limits.depth = 2;
    assert_eq!(check(&world).await, "levels");
    world.options.limits.depth = 3;
    world.options.limits.entries = 12;
    world.options.limits.bytes = 3_000_000 + 12 + 12 + 1 + 10;
    world.save("w", None).await;
}

#[tokio::test]
async fn files_are_listed_read_and_compared_without_restoring() {
    let world = World::new();
    fill(&world);
    let (namespace, blobs) = (Namespace::default(), &world.blobs);
    let first = world.save("w", None).await;
    let listed = list(blobs, &namespace, &first.root.id, b"src").await.unwrap();
    let names: Vec<_> = listed.iter().map(|one| (&one.name[..], one.kind, one.bytes)).collect();
    let link = (&b"link"[..], Kind::Link, 0);
    assert_eq!(names, [(&b"deep"[..], Kind::Dir, 0), link, (b"main.rs", Kind::File, 12)]);
    assert_eq!(listed[1].target, b"../../outside");
    let mut reader = read(blobs, &namespace, &first.root.id, b"large").await.unwrap();
    let mut content = Vec::new();
    while let Some(piece) = reader.next().await.unwrap() {
        content.extend_from_slice(&piece);
    }
    assert!(content == noise(1, 3_000_000));
    for path in [&b"src/link"[..], b"src", b"src/link/x"] {
        let refused = read(blobs, &namespace, &first.root.id, path).await.unwrap_err();
        assert!(matches!(refused, ReadError::Kind { .. }), "{refused:?}");
    }
    for path in [&b"../w/large"[..], b"none"] {
        let refused = read(blobs, &namespace, &first.root.id, path).await.unwrap_err();
        assert!(matches!(refused, ReadError::NoPath { .. }), "{refused:?}");
    }
    let at = world.place("w").dir;
    fs::write(at.join("src/main.rs"), "fn main() { }").unwrap();
    fs::remove_file(at.join("src/deep/er/a")).unwrap();
    fs::create_dir(at.join("new")).unwrap();
    fs::write(at.join("new/f"), "x").unwrap();
    fs::set_permissions(at.join("run.sh"), fs::Permissions::from_mode(0o600)).unwrap();
    let second = world.save("w", Some(first.root)).await;
    let ids = (&first.root.id, &second.root.id);
    let changes = diff(blobs, &namespace, ids, 100).await.unwrap();
    let of = |path: &[u8], what| Change { path: path.to_vec(), what };
    let expected = [
        of(b"copy.rs", Changed::Content),
        of(b"new", Changed::Added),
        of(b"new/f", Changed::Added),
        of(b"run.sh", Changed::Mode),
        of(b"src/deep/er/a", Changed::Removed),
        of(b"src/main.rs", Changed::Content),
    ];
    assert_eq!(changes, expected, "a hard link is a copy of the same content");
}
