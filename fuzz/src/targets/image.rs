//! Layers of images: whatever an archive says, what is outside its directory stays as it is.

use super::answer;
use crate::driver::{Answer, Target};
use ax_image::test_support::{Archive, Packing, decompressed};
use ax_image::{Limits, unpack};
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// Names that lead somewhere else, or mean something.
const WORDS: &[&str] = &[
    "../",
    "/",
    "..",
    "a",
    "a/b",
    ".wh.",
    ".wh..wh..opq",
    "outside",
    "../outside/victim",
    "./",
    "12 path=../a\n",
    "5",
    "1",
    "2",
    "L",
    "K",
    "x",
    "g",
    "S",
    "\u{0}",
];
/// The size of what an archive is made of, in bytes.
const BLOCK: usize = 512;

pub(super) fn targets() -> Vec<Target> {
    let blob = |input: &[u8]| answer(decompressed(input.to_vec(), &limits()));
    vec![
        Target {
            name: "layer",
            examples: layers(),
            words: WORDS,
            memory_factor: 64,
            decode: Box::new(layer),
        },
        Target {
            name: "layer-blob",
            examples: [Packing::Plain, Packing::Gzip, Packing::Zstd]
                .iter()
                .flat_map(|packing| layers().into_iter().map(|layer| packing.pack(&layer)))
                .collect(),
            words: &["\u{1f}", "(", "P*M\u{18}"],
            // A window of zstd is as large as its header says, up to a limit.
            memory_factor: 2 << 20,
            decode: Box::new(blob),
        },
    ]
}

fn limits() -> Limits {
    Limits { bytes: 4 << 20, entries: 200, ..Limits::default() }
}

fn layers() -> Vec<Vec<u8>> {
    let start = || Archive::default().dir("a");
    vec![
        start().file("a/b", b"content").link("c", "a/b").bytes(),
        start().symlink("l", "a").file("l2", b"x").bytes(),
        start().symlink("l", "../outside").file("l/victim", b"x").bytes(),
        start().file("a/.wh.b", b"").file("a/.wh..wh..opq", b"").bytes(),
        start().pax(&[("path", "a/long"), ("size", "3")]).file("b", b"abc").bytes(),
    ]
}

/// Unpacks an archive, whose checksums are made right, and looks at what became of the place.
fn layer(input: &[u8]) -> Answer {
    let place = tempfile::tempdir().expect("a directory");
    let (inside, outside) = (place.path().join("inside"), place.path().join("outside"));
    for dir in [&inside, &outside] {
        fs::create_dir(dir).expect("a directory");
    }
    let victim = outside.join("victim");
    fs::write(&victim, "untouched").expect("a file");
    let to = File::open(&inside).expect("the directory");
    let done = unpack(&checksummed(input)[..], to.as_fd(), &limits());
    let found = fs::metadata(&victim).expect("the victim");
    let text = fs::read_to_string(&victim).unwrap_or_default();
    let names = [place.path(), &outside].map(|dir| fs::read_dir(dir).expect("it").count());
    if (text.as_str(), found.nlink(), names) != ("untouched", 1, [2, 1]) {
        return Answer::Wrong("it got out".into());
    }
    match forbidden(&inside) {
        Some(what) => Answer::Wrong(what),
        None => answer(done),
    }
}

/// Finds what no layer may have.
fn forbidden(dir: &Path) -> Option<String> {
    for entry in fs::read_dir(dir).expect("its owner can read it") {
        let path = entry.expect("an entry").path();
        let found = fs::symlink_metadata(&path).expect("it is there");
        let kind = found.file_type();
        let is_removal = kind.is_char_device() && found.rdev() == 0;
        if !(kind.is_dir() || kind.is_file() || kind.is_symlink() || is_removal) {
            return Some(format!("{} is of a forbidden kind", path.display()));
        }
        if found.permissions().mode() & 0o6000 != 0 && !kind.is_symlink() {
            return Some(format!("{} has a set-id bit", path.display()));
        }
        if kind.is_dir()
            && let Some(what) = forbidden(&path)
        {
            return Some(what);
        }
    }
    None
}

/// Makes the checksum of each header right: an archive that is refused for it shows nothing.
fn checksummed(input: &[u8]) -> Vec<u8> {
    let mut archive = input.to_vec();
    let mut at = 0;
    while at + BLOCK <= archive.len() {
        let header = &mut archive[at..at + BLOCK];
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let header = tar::Header::from_byte_slice(header);
        let content = header.entry_size().ok().and_then(|size| usize::try_from(size).ok());
        let content = content.unwrap_or(0).min(archive.len());
        at += BLOCK + content.div_ceil(BLOCK) * BLOCK;
    }
    archive
}
