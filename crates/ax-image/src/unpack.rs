//! Unpacking by a policy: whatever an archive says, it stays where it is put.
//!
//! - Names are relative and have no `..`. Each directory on the way is walked from the root of the
//!   layer by one call of the kernel that follows no link and leaves nothing (`openat2`); so a link
//!   that an earlier entry made leads nowhere, and neither does the target of a hard link.
//! - Regular files, directories, symbolic links, hard links. Devices and pipes are left out.
//!   Set-id bits, owners and extended attributes are not taken over.
//! - What a layer removes is kept as an overlay file system wants it: a character device 0/0, which
//!   cannot be opened, for a file; the attribute `user.overlay.opaque` for a directory.
//!
//! Everything has a limit, see [`Limits`].

mod names;
mod tree;

use crate::error::Error;
pub(crate) use names::Meaning;
use names::Name;
use rustix::fd::BorrowedFd;
use std::io::{self, Read};
use std::str;
use tar::{Archive, Entry, EntryType, Header, PaxExtensions};
pub(crate) use tree::OPAQUE;
use tree::Tree;

/// The longest extended header of an entry, in bytes: names, and attributes that are not used.
const EXTENDED_BYTES_MAX: u64 = 1 << 20;

/// How much is unpacked of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the archive, decompressed.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
    /// Decompressed bytes for each compressed byte, beyond the first 64 MiB.
    pub ratio: u64,
    /// Directories above an entry.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 32 << 30, entries: 2_000_000, ratio: 200, depth: 128 }
    }
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// Devices, pipes and the like, which are not made.
    pub left_out: u64,
}

/// Unpacks a layer, which is not compressed, into an empty directory that nobody else writes to.
///
/// # Errors
///
/// If the archive is malformed, beyond a limit, or wants something that it must not; if the disk
/// fails. What is in the directory then is to be thrown away.
pub fn unpack(archive: impl Read, to: BorrowedFd<'_>, limits: &Limits) -> Result<Unpacked, Error> {
    unpack_as(Meaning::Layer, archive, to, limits)
}

pub(crate) fn unpack_as(
    meaning: Meaning,
    archive: impl Read,
    to: BorrowedFd<'_>,
    limits: &Limits,
) -> Result<Unpacked, Error> {
    let mut archive = Archive::new(archive);
    let malformed = Error::reading("archive");
    // Raw: the library would read extended headers of any size into memory.
    let entries = archive.entries().map_err(malformed)?.raw(true);
    let mut tree = Tree::new(to);
    let mut unpacked = Unpacked::default();
    let mut extended = Extended::default();
    for entry in entries {
        let mut entry = entry.map_err(Error::reading("archive"))?;
        unpacked.entries += 1;
        if unpacked.entries > limits.entries {
            let what = "the number of entries of an archive";
            return Err(Error::Limit { what, limit: limits.entries });
        }
        if extended.take(&mut entry)? {
            continue;
        }
        let known = std::mem::take(&mut extended);
        let place = Place { meaning, limits, extended: &known };
        place.entry(&mut tree, &mut entry, &mut unpacked)?;
    }
    if extended != Extended::default() {
        return Err(Error::malformed("archive", "it ends within an entry"));
    }
    Ok(unpacked)
}

/// What extended headers say of the entry that follows.
#[derive(Default, PartialEq, Eq)]
struct Extended {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Extended {
    /// Takes an extended header in; returns whether it was one.
    fn take<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<bool, Error> {
        match entry.header().entry_type() {
            EntryType::GNULongName => self.name = Some(long(entry)?),
            EntryType::GNULongLink => self.link = Some(long(entry)?),
            EntryType::XHeader => self.pax(&whole(entry)?)?,
            // Defaults for all entries: nothing of it is used.
            EntryType::XGlobalHeader => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn pax(&mut self, text: &[u8]) -> Result<(), Error> {
        for record in PaxExtensions::new(text) {
            let record = record.map_err(Error::reading("archive"))?;
            let value = record.value_bytes();
            match record.key_bytes() {
                b"path" => self.name = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => {
                    let size = str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    self.size =
                        Some(size.ok_or_else(|| {
                            Error::malformed("archive", "a size is not a number")
                        })?);
                }
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(Error::malformed("archive", "it has sparse files"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn whole<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = entry.by_ref().take(EXTENDED_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(Error::reading("archive"))?;
    if bytes.len() as u64 > EXTENDED_BYTES_MAX {
        let what = "an extended header in bytes";
        return Err(Error::Limit { what, limit: EXTENDED_BYTES_MAX });
    }
    Ok(bytes)
}

/// Reads a name that is the content of an entry, and ends with a zero byte.
fn long<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>, Error> {
    let mut name = whole(entry)?;
    if name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

/// What says where an entry goes.
struct Place<'a> {
    meaning: Meaning,
    limits: &'a Limits,
    extended: &'a Extended,
}

impl Place<'_> {
    fn entry<R: Read>(
        &self,
        tree: &mut Tree<'_>,
        entry: &mut Entry<'_, R>,
        unpacked: &mut Unpacked,
    ) -> Result<(), Error> {
        let Place { meaning, limits, extended } = *self;
        let header = entry.header().clone();
        let written = extended.name.clone().unwrap_or_else(|| header.path_bytes().into_owned());
        let refused = |why: &str| names::refused(&written, why);
        let number = |number: io::Result<u64>| number.map_err(Error::reading("archive"));
        let size = number(header.entry_size())?;
        // Readers that disagree about where an entry ends see different archives.
        if extended.size.is_some_and(|said| said != size) {
            return Err(refused("has two sizes"));
        }
        let mode = u32::try_from(number(header.mode().map(u64::from))? & 0o7777).unwrap_or(0);
        let name = names::read(&written, limits.depth, meaning)?;
        let kind = header.entry_type();
        let is_dir = kind.is_dir() || (kind.is_file() && written.ends_with(b"/"));
        let path = match name {
            Name::Root if is_dir => return Ok(()),
            Name::Root => return Err(refused("is no directory, and has no name")),
            Name::Ignored => return Ok(()),
            Name::Whiteout { parent, name } => return tree.whiteout(&parent, &name),
            Name::Opaque { parent } => return tree.opaque(&parent),
            Name::Path(path) => path,
        };
        if is_dir {
            return tree.dir(&path, mode);
        }
        match kind {
            EntryType::Regular | EntryType::Continuous => {
                unpacked.bytes += size;
                tree.file(&path, entry, size, mode, modified(&header))
            }
            EntryType::Symlink => tree.symlink(&path, &link(&header, extended)),
            EntryType::Link => {
                let target = link(&header, extended);
                match names::read(&target, limits.depth, meaning)? {
                    Name::Path(target) => tree.hard_link(&path, &target),
                    _ => Err(refused("links to what is no file")),
                }
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                unpacked.left_out += 1;
                Ok(())
            }
            EntryType::GNUSparse => Err(refused("is a sparse file, which is not unpacked")),
            _ => Err(refused("is of a kind that is not known")),
        }
    }
}

fn link(header: &Header, extended: &Extended) -> Vec<u8> {
    let short = || header.link_name_bytes().map(|name| name.into_owned()).unwrap_or_default();
    extended.link.clone().unwrap_or_else(short)
}

/// Returns the time of the last change, in seconds; 0 if it is not said well.
fn modified(header: &Header) -> i64 {
    header.mtime().ok().and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
