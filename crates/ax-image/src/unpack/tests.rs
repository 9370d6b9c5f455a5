use super::*;
use crate::test_support::Archive;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fgetxattr, openat, statat};
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use tempfile::TempDir;

fn unpacked(archive: Archive) -> (TempDir, Result<Unpacked, Error>) {
    unpacked_within(archive, &Limits::default())
}

fn unpacked_within(archive: Archive, limits: &Limits) -> (TempDir, Result<Unpacked, Error>) {
    let dir = tempfile::tempdir().unwrap();
    let to = fs::File::open(dir.path()).unwrap();
    let unpacked = unpack(&archive.bytes()[..], to.as_fd(), limits);
    (dir, unpacked)
}

fn kind(path: &Path) -> FileType {
    let found = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    FileType::from_raw_mode(found.st_mode)
}

fn is_opaque(path: &Path) -> bool {
    let dir = openat(CWD, path, OFlags::RDONLY, Mode::empty()).unwrap();
    let mut value = [0_u8; 8];
    fgetxattr(&dir, OPAQUE, &mut value[..]).is_ok()
}

fn refusal(archive: Archive) -> String {
    unpacked(archive).1.unwrap_err().to_string()
}

#[test]
fn what_an_archive_has_is_there() {
    let archive = Archive::default()
        .dir("bin/")
        .program("bin/tool", b"#!")
        .file("./etc/deep/er/name", b"content")
        .symlink("etc/link", "/anywhere/at/all")
        .link("bin/tool2", "bin/tool")
        .pax(&[("path", &"long/".repeat(30)), ("mtime", "1.5")])
        .dir("cut off");
    let (dir, done) = unpacked(archive);
    assert_eq!(done.unwrap(), Unpacked { entries: 7, bytes: 9, left_out: 0 });
    let path = |name: &str| dir.path().join(name);
    assert_eq!(fs::read(path("etc/deep/er/name")).unwrap(), b"content");
    assert_eq!(fs::metadata(path("etc/deep/er/name")).unwrap().mtime(), 1_000_000_000);
    assert_eq!(fs::read_link(path("etc/link")).unwrap(), Path::new("/anywhere/at/all"));
    assert_eq!(fs::metadata(path("bin/tool2")).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(path("bin/tool")).unwrap().permissions().mode() & 0o7777, 0o755);
    assert!(path(&"long/".repeat(30)).is_dir());
}

#[test]
fn a_later_entry_replaces_an_earlier_one_and_writes_through_none() {
    let archive = Archive::default()
        .file("a", b"first")
        .link("b", "a")
        .file("b", b"second")
        .symlink("c", "a")
        .file("c", b"third");
    let (dir, done) = unpacked(archive);
    done.unwrap();
    let read = |name| fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!([read("a"), read("b"), read("c")], ["first", "second", "third"]);
}

#[test]
fn rights_that_an_image_must_not_give_are_taken_off() {
    let archive = Archive::default()
        .entry(EntryType::Regular, "set", "", 0o6711, b"x")
        .entry(EntryType::Directory, "dir", "", 0o7000, b"")
        .file("dir/in", b"x");
    let (dir, done) = unpacked(archive);
    done.unwrap();
    let mode = |name| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("set"), 0o711);
    assert_eq!(mode("dir"), 0o1700);
}

#[test]
fn devices_and_pipes_are_left_out_and_counted() {
    let archive = Archive::default()
        .entry(EntryType::Char, "null", "", 0o666, b"")
        .entry(EntryType::Block, "disk", "", 0o666, b"")
        .entry(EntryType::Fifo, "pipe", "", 0o666, b"");
    let (dir, done) = unpacked(archive);
    assert_eq!(done.unwrap().left_out, 3);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn removals_are_marked_and_what_comes_instead_hides_what_was() {
    let archive = Archive::default()
        .file("etc/.wh.gone", b"")
        .file(".wh.replaced", b"")
        .file("replaced/new", b"x")
        .file("also/new", b"x")
        .file(".wh.also", b"")
        .file("hidden/.wh..wh..opq", b"")
        .file(".wh..wh.aufs", b"");
    let (dir, done) = unpacked(archive);
    done.unwrap();
    let path = |name: &str| dir.path().join(name);
    assert_eq!(kind(&path("etc/gone")), FileType::CharacterDevice);
    assert_eq!(fs::symlink_metadata(path("etc/gone")).unwrap().rdev(), 0);
    for name in ["replaced", "also", "hidden"] {
        assert!(is_opaque(&path(name)), "{name}");
    }
    assert!(!is_opaque(&path("etc")));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
}

#[test]
fn what_an_archive_must_not_do_is_refused_with_its_name() {
    let start = Archive::default;
    for (archive, expected) in [
        (start().file("a/../../b", b""), "goes up"),
        (start().file("/a", b""), "absolute"),
        (start().symlink("a", "b").file("a/c", b""), "goes through a link"),
        (start().dir("b").symlink("a", "b").dir("a/c"), "goes through a link"),
        (start().symlink("a", "b").file("a/.wh.c", b""), "goes through a link"),
        (start().file("a", b"").file("a/c", b""), "is in a file"),
        (start().dir("a").file("a", b""), "would replace a directory"),
        (start().link("a", "../b"), "goes up"),
        (start().link("a", "/etc/passwd"), "absolute"),
        (start().symlink("a", "/etc").link("b", "a/passwd"), "does not have"),
        (start().symlink("a", "/etc").link("b", "a"), "no file of this layer"),
        (start().file("a", b"").link("a", "a"), "to itself"),
        (start().link("a", "b"), "no file of this layer"),
        (start().symlink("a", ""), "leads to no possible name"),
        (start().pax(&[("path", "/a")]).file("b", b""), "absolute"),
        (start().pax(&[("path", "a\0b")]).file("b", b""), "zero byte"),
        (start().pax(&[("size", "3")]).file("b", b""), "two sizes"),
        (start().entry(EntryType::GNUSparse, "a", "", 0o644, b""), "sparse"),
        (start().entry(EntryType::new(b'?'), "a", "", 0o644, b""), "not known"),
        (start().pax(&[("GNU.sparse.major", "1")]).file("b", b""), "sparse"),
        (start().pax(&[("path", "a")]), "ends within an entry"),
    ] {
        let said = refusal(archive);
        assert!(said.contains(expected), "{said} instead of {expected}");
    }
}

#[test]
fn limits_hold_at_the_limit_and_not_beyond_it() {
    let files =
        |count: usize| (0..count).fold(Archive::default(), |all, n| all.file(&n.to_string(), b""));
    let limits = Limits { entries: 5, depth: 3, ..Limits::default() };
    assert!(unpacked_within(files(5), &limits).1.is_ok());
    assert!(matches!(unpacked_within(files(6), &limits).1, Err(Error::Limit { .. })));
    let deep = |depth: usize| Archive::default().file(&("d/".repeat(depth) + "f"), b"");
    assert!(unpacked_within(deep(3), &limits).1.is_ok());
    assert!(matches!(unpacked_within(deep(4), &limits).1, Err(Error::Entry { .. })));
    let named = |bytes: usize| Archive::default().pax(&[("comment", &"x".repeat(bytes))]);
    let fits = named((1 << 20) - 30).file("a", b"");
    assert!(unpacked(fits).1.is_ok());
    assert!(matches!(unpacked(named(1 << 20).file("a", b"")).1, Err(Error::Limit { .. })));
}

#[test]
fn an_archive_that_is_cut_off_is_refused() {
    let whole = Archive::default().file("a", &[7; 5000]).bytes();
    let dir = tempfile::tempdir().unwrap();
    let to = fs::File::open(dir.path()).unwrap();
    for length in [100, 512, 4000] {
        let done = unpack(&whole[..length], to.as_fd(), &Limits::default());
        assert!(done.is_err(), "{length} bytes are taken for a whole archive");
    }
}
