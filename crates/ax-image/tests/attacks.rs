//! Archives that want out of the directory they are unpacked into, or want more than they may have.
//! Each is unpacked twice: by the policy, where it must not reach its aim, and as a control by a
//! naive unpacker that does what an archive says, where it must. So an attack that is broken cannot
//! pass. What only root could do is not tested for others, and that is said.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::print_stderr, reason = "says what was not tested")]

use ax_image::test_support::Archive;
use ax_image::{Limits, unpack};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use tar::EntryType;
use tempfile::TempDir;

/// Where an attack happens: `inside` is unpacked into, `outside` must stay as it is.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        // Names in a header are short.
        let dir = tempfile::Builder::new().prefix("ax").tempdir_in("/tmp").unwrap();
        for name in ["inside", "outside"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let place = Self { dir };
        fs::write(place.outside("victim"), "untouched").unwrap();
        fs::set_permissions(place.outside(""), fs::Permissions::from_mode(0o750)).unwrap();
        place
    }

    fn inside(&self, name: &str) -> PathBuf {
        self.dir.path().join("inside").join(name)
    }

    fn outside(&self, name: &str) -> PathBuf {
        self.dir.path().join("outside").join(name)
    }

    fn text(&self, name: &str) -> String {
        self.outside(name).to_str().unwrap().to_owned()
    }

    fn is_touched(&self) -> bool {
        let names = fs::read_dir(self.outside("")).unwrap().count();
        let mode = fs::metadata(self.outside("")).unwrap().permissions().mode() & 0o777;
        let victim = fs::read_to_string(self.outside("victim")).unwrap_or_default();
        let links = fs::metadata(self.outside("victim")).map_or(0, |found| found.nlink());
        (names, mode, victim.as_str(), links) != (1, 0o750, "untouched", 1)
    }
}

/// Does what the archive says, as a program does that thinks no evil.
fn naive(archive: &[u8], into: &Path) {
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header().clone();
        let path = into.join(entry.path().unwrap());
        let link = entry.link_name().unwrap().map(|link| link.into_owned()).unwrap_or_default();
        drop(fs::create_dir_all(path.parent().unwrap()));
        let mode = header.mode().unwrap();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        if let Some(gone) = name.as_deref().and_then(|name| name.strip_prefix(".wh.")) {
            drop(fs::remove_file(path.with_file_name(gone)));
            continue;
        }
        match header.entry_type() {
            EntryType::Directory => drop(fs::create_dir_all(&path)),
            EntryType::Symlink => drop(symlink(link, &path)),
            EntryType::Link => drop(fs::hard_link(into.join(link), &path)),
            EntryType::Char => {
                let device = rustix::fs::makedev(1, 3);
                let made = mknodat(CWD, &path, FileType::CharacterDevice, Mode::RWXU, device);
                made.unwrap_or_default();
            }
            _ => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                drop(fs::write(&path, content));
            }
        }
        if !header.entry_type().is_symlink() {
            drop(fs::set_permissions(&path, fs::Permissions::from_mode(mode)));
        }
    }
}

/// Checks that an archive reaches its aim with the naive unpacker, and not with ours.
fn check(attack: fn(&Place) -> Archive, reached: fn(&Place) -> bool) {
    let place = Place::new();
    let archive = attack(&place).bytes();
    let to = fs::File::open(place.inside("")).unwrap();
    // Whether it is refused or taken without its evil is the policy's choice; see its own tests.
    let done = unpack(&archive[..], to.as_fd(), &Limits::default());
    assert!(!reached(&place), "it reached its aim: {done:?}");
    let control = Place::new();
    naive(&attack(&control).bytes(), &control.inside(""));
    assert!(reached(&control), "the control does not reach its aim: this shows nothing");
}

#[test]
fn a_name_that_goes_up() {
    check(|_| Archive::default().file("../outside/new", b"x"), Place::is_touched);
    let longer = |_: &Place| Archive::default().dir("a").file("a/../../outside/victim", b"x");
    check(longer, Place::is_touched);
}

#[test]
fn an_absolute_name() {
    check(|place| Archive::default().file(&place.text("new"), b"x"), Place::is_touched);
}

#[test]
fn a_file_through_a_link_made_before() {
    let attack =
        |place: &Place| Archive::default().symlink("a", &place.text("")).file("a/new", b"x");
    check(attack, Place::is_touched);
}

#[test]
fn a_file_through_two_relative_links() {
    let attack = |_: &Place| {
        let links = Archive::default().dir("d").symlink("d/up", "../..").symlink("a", "d/up");
        links.file("a/outside/new", b"x")
    };
    check(attack, Place::is_touched);
}

#[test]
fn a_file_in_place_of_a_link() {
    let attack =
        |place: &Place| Archive::default().symlink("a", &place.text("victim")).file("a", b"x");
    check(attack, Place::is_touched);
}

#[test]
fn a_directory_in_place_of_a_link_with_another_mode() {
    let attack = |place: &Place| {
        let link = Archive::default().symlink("a", &place.text(""));
        link.entry(EntryType::Directory, "a", "", 0o777, b"")
    };
    check(attack, Place::is_touched);
}

#[test]
fn a_hard_link_to_a_file_outside() {
    check(|place| Archive::default().link("a", &place.text("victim")), Place::is_touched);
    check(|_| Archive::default().link("a", "../outside/victim"), Place::is_touched);
}

#[test]
fn a_hard_link_through_a_link_made_before() {
    let attack = |place: &Place| {
        let link = Archive::default().symlink("a", &place.text(""));
        link.link("b", "a/victim").file("b", b"x")
    };
    check(attack, Place::is_touched);
}

#[test]
fn a_removal_through_a_link_made_before() {
    let attack =
        |place: &Place| Archive::default().symlink("a", &place.text("")).file("a/.wh.victim", b"");
    check(attack, Place::is_touched);
}

#[test]
fn a_removal_of_what_is_above() {
    check(
        |_| Archive::default().file("d/.wh.x", b"").file("../outside/.wh.victim", b""),
        Place::is_touched,
    );
}

#[test]
fn a_program_that_runs_as_its_owner() {
    let attack = |_: &Place| Archive::default().entry(EntryType::Regular, "a", "", 0o6755, b"x");
    check(attack, |place| {
        fs::metadata(place.inside("a")).unwrap().permissions().mode() & 0o6000 != 0
    });
}

#[test]
fn a_device() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT TESTED: only root can make a device, with or without the policy");
        return;
    }
    let attack = |_: &Place| Archive::default().entry(EntryType::Char, "a", "", 0o666, b"");
    check(attack, |place| fs::metadata(place.inside("a")).is_ok_and(|found| found.rdev() != 0));
}

/// A link of a lower layer must lead nowhere when an upper one is put over it.
#[test]
fn a_link_of_another_layer() {
    let lower = |place: &Place| Archive::default().symlink("a", &place.text("")).bytes();
    let upper = || Archive::default().file("a/new", b"x").file("a/.wh.victim", b"").bytes();
    let place = Place::new();
    let images = place.dir.path().join("images");
    let store = ax_image::Store::open(&images).unwrap();
    let layers =
        [lower(&place), upper()].map(|bytes| (ax_image::test_support::Packing::Gzip, bytes));
    let layout = place.dir.path().join("layout");
    ax_image::test_support::Layout::of(&layout, &layers, &serde_json::json!({})).unwrap();
    store.import(&layout, &ax_image::Import::default(), &mut |_| {}).unwrap();
    let root = store.root("layout", ax_image::Form::Flat).unwrap();
    assert!(root.layers[0].join("a/new").is_file());
    assert!(!place.is_touched());
    let control = Place::new();
    [lower(&control), upper()].iter().for_each(|bytes| naive(bytes, &control.inside("")));
    assert!(control.is_touched(), "the control does not reach its aim: this shows nothing");
}
