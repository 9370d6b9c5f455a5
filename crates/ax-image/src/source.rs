//! Where an image is imported from: a directory in the OCI layout, the same in a tar archive, or
//! what `docker save` writes.

use crate::digest::Digest;
use crate::error::Error;
use crate::manifest::{DOCUMENT_BYTES_MAX, Descriptor};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use tar::{Archive, EntryType};

/// The most files in an archive of images.
const FILES_MAX: usize = 100_000;

/// Something that images are read from. Whoever else may change it meanwhile: what is read is
/// verified.
pub(crate) struct Source {
    path: PathBuf,
    kind: Kind,
}

/// The content of a file, and its size in bytes.
type Opened = (Box<dyn Read>, u64);

enum Kind {
    Dir(File),
    /// Where in the archive each file is, and how long.
    Archive(BTreeMap<String, (u64, u64)>),
}

impl Source {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        let found = file.metadata().map_err(Error::io("read", path))?;
        let kind = if found.is_dir() {
            Kind::Dir(file)
        } else if found.is_file() {
            Kind::Archive(index(file)?)
        } else {
            let why = "it is neither a directory nor a file";
            return Err(Error::malformed(path.display().to_string(), why));
        };
        Ok(Self { path: path.to_path_buf(), kind })
    }

    /// Opens a file of it. `None` if there is none.
    pub(crate) fn file(&self, name: &str) -> Result<Option<Opened>, Error> {
        match &self.kind {
            Kind::Dir(dir) => self.in_dir(dir, name),
            Kind::Archive(index) => {
                let Some((offset, bytes)) = index.get(name).copied() else { return Ok(None) };
                let failed = || Error::io("read", &self.path);
                let mut file = File::open(&self.path).map_err(failed())?;
                file.seek(SeekFrom::Start(offset)).map_err(failed())?;
                Ok(Some((Box::new(file.take(bytes)), bytes)))
            }
        }
    }

    fn in_dir(&self, dir: &File, name: &str) -> Result<Option<Opened>, Error> {
        let path = self.path.join(name);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file = match openat2(dir, name, flags, Mode::empty(), within) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            other => File::from(other.map_err(|error| Error::io("read", &path)(error.into()))?),
        };
        let found = file.metadata().map_err(Error::io("read", &path))?;
        if !found.is_file() {
            return Err(Error::malformed(path.display().to_string(), "it is no file"));
        }
        Ok(Some((Box::new(file), found.len())))
    }

    /// Reads a small file. `None` if there is none.
    pub(crate) fn small(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let Some((reader, _)) = self.file(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        let read = reader.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes);
        read.map_err(Error::io("read", &self.path))?;
        if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            let what = "a document of an image in bytes";
            return Err(Error::Limit { what, limit: DOCUMENT_BYTES_MAX });
        }
        Ok(Some(bytes))
    }

    /// Opens a content by its digest.
    pub(crate) fn blob(&self, digest: Digest) -> Result<Box<dyn Read>, Error> {
        let found = self.file(&blob_path(digest))?;
        let missing = || Error::malformed("image", format!("{digest} is missing"));
        found.map(|(reader, _)| reader).ok_or_else(missing)
    }

    /// Reads a document, and checks that it is the one that is named.
    pub(crate) fn document(&self, what: &str, named: &Descriptor) -> Result<Vec<u8>, Error> {
        let expected = named.digest;
        let text = self.small(&blob_path(expected))?;
        let text =
            text.ok_or_else(|| Error::malformed("image", format!("{expected} is missing")))?;
        let found = Digest::of(&text);
        if found != expected {
            return Err(Error::Mismatch { what: what.into(), expected, found });
        }
        Ok(text)
    }
}

/// Where the OCI layout has a content.
pub(crate) fn blob_path(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Finds where in an archive the files are.
fn index(file: File) -> Result<BTreeMap<String, (u64, u64)>, Error> {
    let mut reader = BufReader::new(file);
    let mut magic = [0; 2];
    let begins = reader.read_exact(&mut magic).and_then(|()| reader.seek(SeekFrom::Start(0)));
    begins.map_err(|error: io::Error| Error::malformed("archive of images", error))?;
    if magic == [0x1f, 0x8b] {
        let why = "it is compressed as a whole: decompress it first, with gunzip";
        return Err(Error::malformed("archive of images", why));
    }
    let mut archive = Archive::new(reader);
    let mut index = BTreeMap::new();
    let failed = || Error::reading("archive of images");
    // Raw: names that matter are short, and headers of any size are not to be read into memory.
    let entries = archive.entries_with_seek().map_err(failed())?.raw(true);
    for (count, entry) in entries.enumerate() {
        let entry = entry.map_err(failed())?;
        if count >= FILES_MAX {
            let what = "the number of files of an archive of images";
            return Err(Error::Limit { what, limit: FILES_MAX as u64 });
        }
        if !matches!(entry.header().entry_type(), EntryType::Regular | EntryType::Continuous) {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = name.strip_prefix("./").map(str::to_owned).unwrap_or(name);
        let size = entry.header().entry_size().map_err(failed())?;
        if index.insert(name, (entry.raw_file_position(), size)).is_some() {
            let why = "it has a file twice";
            return Err(Error::malformed("archive of images", why));
        }
    }
    Ok(index)
}
