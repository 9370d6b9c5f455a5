//! A layer on its way: verified twice, decompressed, and bounded.
//!
//! ```text
//! blob ─▶ its digest ─▶ decompressor ─▶ bounds ─▶ the tree's digest ─▶ unpacking
//! ```

use crate::digest::{Digest, Hashing};
use crate::error::Error;
use crate::unpack::{Limits, Meaning, Unpacked, unpack, unpack_as};
use flate2::read::MultiGzDecoder;
use rustix::fd::BorrowedFd;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::rc::Rc;

/// How much a layer may unpack to whatever its size, in bytes: small layers of zeros are common.
const FREE_BYTES: u64 = 64 << 20;
/// The largest window of zstd, in bytes: what its decoder has in memory.
const WINDOW_BYTES_MAX: u64 = 128 << 20;
/// How much is read at a time.
const BUFFER_BYTES: usize = 128 * 1024;

/// How a layer is named, and how large it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named {
    /// The digest of the blob; absent if its tree's digest is all that is known.
    pub(crate) blob: Option<Digest>,
    /// The digest of the archive in it.
    pub(crate) tree: Digest,
    /// Its size in bytes, if it is said.
    pub(crate) bytes: Option<u64>,
}

/// Unpacks a blob into an empty directory. What it unpacks is what it is named by, or it fails; the
/// directory is then to be thrown away.
pub(crate) fn unpack_blob(
    blob: impl Read + 'static,
    named: &Named,
    to: BorrowedFd<'_>,
    limits: &Limits,
) -> Result<Unpacked, Error> {
    let what = || format!("layer {}", named.blob.unwrap_or(named.tree));
    // One byte more shows that there is more.
    let most = named.bytes.map_or(u64::MAX, |bytes| bytes.saturating_add(1));
    let (bounded, shared) = bounded(blob.take(most), limits).map_err(Error::reading(&what()))?;
    let read_bytes = Rc::clone(&bounded.taken);
    let mut tree = Hashing::new(bounded);
    let unpacked = unpack(&mut tree, to, limits).map_err(|error| match error {
        Error::Malformed { why, .. } => Error::malformed(what(), why),
        other => other,
    })?;
    io::copy(&mut tree, &mut io::sink()).map_err(Error::reading(&what()))?;
    let found = tree.finish();
    io::copy(&mut shared.clone(), &mut io::sink()).map_err(Error::reading(&what()))?;
    if let Some(bytes) = named.bytes.filter(|bytes| *bytes != read_bytes.get()) {
        let why = format!("it has not the {bytes} bytes that are said");
        return Err(Error::malformed(what(), why));
    }
    let hashing = Rc::into_inner(shared.0).map(|cell| cell.into_inner().into_inner());
    let of_blob = hashing.map(Hashing::finish);
    match (named.blob, of_blob) {
        (Some(expected), Some(found)) if expected != found => {
            return Err(Error::Mismatch { what: "layer".into(), expected, found });
        }
        (Some(_), None) => unreachable!("every other reader of it is dropped"),
        _ => {}
    }
    if found != named.tree {
        let what = "archive of a layer".into();
        return Err(Error::Mismatch { what, expected: named.tree, found });
    }
    Ok(unpacked)
}

/// Unpacks an archive of files that is no layer of an image: plain, or compressed by gzip or zstd.
/// The directory is empty, and nobody else writes to it.
///
/// # Errors
///
/// As [`unpack`].
pub fn unpack_archive(
    archive: impl Read + 'static,
    to: BorrowedFd<'_>,
    limits: &Limits,
) -> Result<Unpacked, Error> {
    let (bounded, _) = bounded(archive, limits).map_err(Error::reading("archive"))?;
    unpack_as(Meaning::Plain, bounded, to, limits)
}

/// A reader with several owners: what a decompressor leaves is read by the next one.
struct Shared<R>(Rc<RefCell<R>>);

impl<R> Clone for Shared<R> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<R: Read> Read for Shared<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(buffer)
    }
}

/// What is read of a blob, and hashed.
type Source<R> = Shared<BufReader<Hashing<R>>>;
/// What is in it, as far as it may be read.
type Content<'a> = Bounded<'a, Box<dyn Read>>;

/// Returns what is in a blob, within bounds, and the blob.
fn bounded<R: Read + 'static>(blob: R, limits: &Limits) -> io::Result<(Content<'_>, Source<R>)> {
    let hashing = Hashing::new(blob);
    let taken = hashing.count();
    let shared = Shared(Rc::new(RefCell::new(BufReader::with_capacity(BUFFER_BYTES, hashing))));
    let inner = decompressed(shared.clone())?;
    Ok((Bounded { inner, taken, given: 0, limits }, shared))
}

/// Returns what is in a blob, by how it begins.
fn decompressed<R: BufRead + 'static>(shared: Shared<R>) -> io::Result<Box<dyn Read>> {
    let first: Vec<u8> = shared.0.borrow_mut().fill_buf()?.iter().take(4).copied().collect();
    Ok(match &first[..] {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(shared)),
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
            Box::new(Frames { shared, frame: None })
        }
        _ => Box::new(shared),
    })
}

type Frame<R> = StreamingDecoder<io::Chain<Cursor<[u8; 4]>, Shared<R>>, FrameDecoder>;

/// The content of all frames of zstd, one after the other.
struct Frames<R: Read> {
    shared: Shared<R>,
    frame: Option<Frame<R>>,
}

impl<R: Read> Frames<R> {
    /// Begins the next frame; returns whether there is one.
    fn next(&mut self) -> io::Result<bool> {
        let mut magic = [0; 4];
        if self.shared.read(&mut magic[..1])? == 0 {
            return Ok(false);
        }
        self.shared.read_exact(&mut magic[1..])?;
        if matches!(magic, [0x50..=0x5f, 0x2a, 0x4d, 0x18]) {
            let mut length = [0; 4];
            self.shared.read_exact(&mut length)?;
            let length = u64::from(u32::from_le_bytes(length));
            io::copy(&mut self.shared.clone().take(length), &mut io::sink())?;
            return Ok(true);
        }
        let source = Cursor::new(magic).chain(self.shared.clone());
        let frame = StreamingDecoder::new_with_max_window_size(source, WINDOW_BYTES_MAX);
        self.frame = Some(frame.map_err(io::Error::other)?);
        Ok(true)
    }
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                match frame.read(buffer)? {
                    0 => self.frame = None,
                    got => return Ok(got),
                }
            }
            if !self.next()? {
                return Ok(0);
            }
        }
    }
}

/// Ends a reading that gives too much, or too much for what it takes.
struct Bounded<'a, R> {
    inner: R,
    /// How many bytes were taken of the blob.
    taken: Rc<Cell<u64>>,
    given: u64,
    limits: &'a Limits,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.given += got as u64;
        let Limits { bytes, ratio, .. } = *self.limits;
        let fair = FREE_BYTES.saturating_add(self.taken.get().saturating_mul(ratio));
        if self.given > bytes {
            let what = "the size of an unpacked archive in bytes";
            return Err(Error::Limit { what, limit: bytes }.hidden());
        }
        if self.given > fair {
            let what = "what an archive unpacks to, in bytes for each of its bytes,";
            return Err(Error::Limit { what, limit: ratio }.hidden());
        }
        Ok(got)
    }
}

/// Reads a blob to its end, for tests; returns how many bytes are in it.
pub(crate) fn read_all(blob: Vec<u8>, limits: &Limits) -> Result<u64, Error> {
    let (mut bounded, _) = bounded(Cursor::new(blob), limits).map_err(Error::reading("layer"))?;
    io::copy(&mut bounded, &mut io::sink()).map_err(Error::reading("layer"))
}
