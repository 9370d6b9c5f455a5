//! Images for tests, here and elsewhere: good ones, and ones that no tool would make.

use crate::digest::Digest;
use crate::error::Error;
use crate::manifest::Platform;
use crate::unpack::Limits;
use flate2::Compression;
use flate2::write::GzEncoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::{Value, json};
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header};

/// An archive, entry by entry, with whatever names.
pub struct Archive(Builder<Vec<u8>>);

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive").finish_non_exhaustive()
    }
}

impl Default for Archive {
    fn default() -> Self {
        Self(Builder::new(Vec::new()))
    }
}

impl Archive {
    /// Adds an entry as it is said, possible or not. Names have less than 100 bytes.
    #[must_use]
    pub fn entry(
        mut self,
        kind: EntryType,
        name: &str,
        link: &str,
        mode: u32,
        content: &[u8],
    ) -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_mode(mode);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.append(&header, content).expect("memory takes everything");
        self
    }

    /// Adds a file.
    #[must_use]
    pub fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(EntryType::Regular, name, "", 0o644, content)
    }

    /// Adds a program.
    #[must_use]
    pub fn program(self, name: &str, content: &[u8]) -> Self {
        self.entry(EntryType::Regular, name, "", 0o755, content)
    }

    /// Adds a directory.
    #[must_use]
    pub fn dir(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, "", 0o755, b"")
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, name: &str, to: &str) -> Self {
        self.entry(EntryType::Symlink, name, to, 0o777, b"")
    }

    /// Adds another name of a file.
    #[must_use]
    pub fn link(self, name: &str, to: &str) -> Self {
        self.entry(EntryType::Link, name, to, 0o644, b"")
    }

    /// Adds extended headers for the next entry.
    #[must_use]
    pub fn pax(self, records: &[(&str, &str)]) -> Self {
        let mut text = String::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (1..).map(|digits| rest + digits);
            let length =
                length.into_iter().find(|length| length.to_string().len() + rest == *length);
            text += &format!("{} {key}={value}\n", length.expect("some length fits"));
        }
        self.entry(EntryType::XHeader, "pax", "", 0o644, text.as_bytes())
    }

    /// Returns its bytes.
    pub fn bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("memory takes everything")
    }
}

/// How a layer is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// As it is.
    Plain,
    /// With gzip.
    Gzip,
    /// With zstd.
    Zstd,
}

impl Packing {
    /// Packs.
    pub fn pack(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain => bytes.to_vec(),
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                let packed = encoder.write_all(bytes).and_then(|()| encoder.finish());
                packed.expect("memory takes everything")
            }
            Self::Zstd => compress_to_vec(bytes, CompressionLevel::Fastest),
        }
    }
}

/// Decompresses a blob; returns how many bytes are in it.
///
/// # Errors
///
/// If it is malformed, or beyond a limit.
pub fn decompressed(blob: Vec<u8>, limits: &Limits) -> Result<u64, Error> {
    crate::blob::read_all(blob, limits)
}

/// A directory in the OCI layout.
#[derive(Debug)]
pub struct Layout(PathBuf);

impl Layout {
    /// Makes one.
    ///
    /// # Errors
    ///
    /// If the disk fails; so do the others.
    pub fn make(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir.join("blobs/sha256"))?;
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(Self(dir.to_path_buf()))
    }

    /// Adds a content, and returns what names it.
    ///
    /// # Errors
    ///
    /// If the disk fails.
    pub fn blob(&self, kind: &str, content: &[u8]) -> io::Result<Value> {
        let digest = Digest::of(content);
        fs::write(self.0.join("blobs/sha256").join(digest.hex()), content)?;
        let media_type = format!("application/vnd.oci.image.{kind}");
        Ok(json!({"mediaType": media_type, "digest": digest, "size": content.len()}))
    }

    /// Adds an image of these archives, the lowest first, and returns what names it.
    ///
    /// # Errors
    ///
    /// If the disk fails.
    pub fn image(&self, layers: &[(Packing, Vec<u8>)], defaults: &Value) -> io::Result<Value> {
        let trees: Vec<Digest> = layers.iter().map(|(_, bytes)| Digest::of(bytes)).collect();
        let Platform { os, architecture } = Platform::here();
        let config = json!({
            "os": os,
            "architecture": architecture,
            "config": defaults,
            "rootfs": {"type": "layers", "diff_ids": trees},
        });
        let config = self.blob("config.v1+json", config.to_string().as_bytes())?;
        let blobs = layers.iter().map(|(packing, bytes)| {
            let ending = match packing {
                Packing::Plain => "",
                Packing::Gzip => "+gzip",
                Packing::Zstd => "+zstd",
            };
            self.blob(&format!("layer.v1.tar{ending}"), &packing.pack(bytes))
        });
        let blobs: Vec<Value> = blobs.collect::<io::Result<_>>()?;
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": blobs,
        });
        self.blob("manifest.v1+json", manifest.to_string().as_bytes())
    }

    /// Says which images there are.
    ///
    /// # Errors
    ///
    /// If the disk fails.
    pub fn index(&self, images: &[Value]) -> io::Result<()> {
        let index = json!({"schemaVersion": 2, "manifests": images});
        fs::write(self.0.join("index.json"), index.to_string())
    }

    /// Makes one with one image.
    ///
    /// # Errors
    ///
    /// If the disk fails.
    pub fn of(dir: &Path, layers: &[(Packing, Vec<u8>)], defaults: &Value) -> io::Result<Self> {
        let layout = Self::make(dir)?;
        let image = layout.image(layers, defaults)?;
        layout.index(&[image])?;
        Ok(layout)
    }

    /// Returns it as a tar archive.
    ///
    /// # Errors
    ///
    /// If the disk fails.
    pub fn archive(&self) -> io::Result<Vec<u8>> {
        let mut builder = Builder::new(Vec::new());
        builder.append_dir_all(".", &self.0)?;
        builder.into_inner()
    }
}
