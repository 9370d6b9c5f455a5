//! The list of images. Its bytes: `docs/formats/images.md`.

use crate::digest::Digest;
use crate::error::Error;
use crate::manifest::{DOCUMENT_BYTES_MAX, Platform, parse};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

/// The version that is written, and the latest that is read.
const VERSION: u64 = 1;
/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// How many digits of a digest stand for it at least.
const DIGITS_MIN: usize = 8;
/// The largest list, in bytes.
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// An image of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// What it is called here.
    pub name: String,
    /// The digest of its manifest: what it is.
    pub digest: Digest,
    /// Where it is from: a path, or the reference in a registry.
    pub source: String,
    /// When it was taken in, in milliseconds since 1970.
    pub imported_at_millis: u64,
    /// What it is for.
    pub platform: Platform,
    /// Its layers, the lowest first.
    pub layers: Vec<Layer>,
    /// The environment it wants its programs to have, as `NAME=VALUE`.
    pub env: Vec<String>,
    /// The user it wants its programs to run as. Only the name is ever used.
    pub user: String,
    /// The directory it wants its programs to begin in; may be empty.
    pub working_dir: String,
    /// The program it is for, with arguments; may be empty.
    pub entrypoint: Vec<String>,
    /// Arguments of that, or the program; may be empty.
    pub command: Vec<String>,
}

impl Image {
    /// Returns the bytes of its files, in all layers.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.bytes).sum()
    }
}

/// A layer of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// The digest of its archive.
    pub digest: Digest,
    /// The bytes of its files.
    pub bytes: u64,
    /// The entries of its archive.
    pub entries: u64,
    /// Devices and pipes in its archive, which were not made.
    pub left_out: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Index {
    version: u64,
    /// By name.
    pub(super) images: Vec<Image>,
}

impl Index {
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u64,
        }
        let mut text = Vec::new();
        let read =
            File::open(path).and_then(|file| file.take(INDEX_BYTES_MAX).read_to_end(&mut text));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { version: VERSION, images: Vec::new() });
            }
            other => other.map_err(Error::io("read", path))?,
        };
        let Versioned { version } = parse("image store", &text)?;
        if version > VERSION {
            return Err(Error::Version { found: version, known: VERSION });
        }
        parse("image store", &text)
    }

    /// Replaces the list. Whatever dies meanwhile, the old or the new one is there.
    pub(super) fn write(&self, dir: &Path, path: &Path) -> Result<(), Error> {
        let fresh = dir.join("images.json.new");
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::from);
        let write = || -> io::Result<()> {
            let mut file = File::create(&fresh)?;
            file.write_all(&text?)?;
            file.sync_all()?;
            fs::rename(&fresh, path)?;
            File::open(dir)?.sync_all()
        };
        write().map_err(Error::io("written", path))
    }

    /// Puts an image in, in place of one with the same name.
    pub(super) fn put(&mut self, image: Image) {
        self.images.retain(|one| one.name != image.name);
        self.images.push(image);
        self.images.sort_by(|a, b| a.name.cmp(&b.name));
    }

    pub(super) fn find(&self, name: &str) -> Result<&Image, Error> {
        if let Some(named) = self.images.iter().find(|one| one.name == name) {
            return Ok(named);
        }
        let digits = name.strip_prefix("sha256:").unwrap_or(name);
        let is_it =
            |one: &&Image| digits.len() >= DIGITS_MIN && one.digest.hex().starts_with(digits);
        let found: Vec<&Image> = self.images.iter().filter(is_it).collect();
        match &found[..] {
            [] => Err(Error::NotFound { name: name.into() }),
            [first, rest @ ..] if rest.iter().all(|one| one.digest == first.digest) => Ok(first),
            _ => {
                Err(Error::Ambiguous { names: found.iter().map(|one| one.name.clone()).collect() })
            }
        }
    }
}

/// Checks what an image is to be called.
pub(super) fn check_name(name: &str) -> Result<(), Error> {
    let wrong = |why: &str| Err(Error::Name { name: name.into(), why: why.into() });
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return wrong("it is empty, or longer than 256 bytes");
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@+".contains(&byte);
    if !name.bytes().all(is_plain) {
        return wrong("it has other characters");
    }
    if !name.as_bytes()[0].is_ascii_alphanumeric() {
        return wrong("it does not begin with a letter or digit");
    }
    Ok(())
}

const _: () = assert!(DOCUMENT_BYTES_MAX < INDEX_BYTES_MAX, "what one image says fits the list");
