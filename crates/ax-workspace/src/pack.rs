//! Packs: the blobs that a snapshot is made of.

use crate::tree::Object;
use crate::wire::{Malformed, Take};
use bytes::Bytes;

/// A pack that holds this much is closed, in bytes.
pub(crate) const PACK_BYTES: usize = 8 << 20;
/// The most that a pack may hold: one directory with very many files is more than [`PACK_BYTES`].
pub(crate) const PLAIN_BYTES_MAX: usize = 256 << 20;
/// What comes before the content of a pack, in bytes.
const HEAD_BYTES: usize = 12;
/// The longest blob of a pack.
pub(crate) const BLOB_BYTES_MAX: u64 = (PLAIN_BYTES_MAX + HEAD_BYTES) as u64;
/// What packs begin with, and the version after it.
const MAGIC: &[u8; 4] = b"axwp";
const VERSION: u8 = 1;
/// How the content is kept: as it is, or as one frame of zstd.
const AS_IT_IS: u8 = 0;
const ZSTD: u8 = 1;
/// How hard zstd tries: what the library takes by itself.
const ZSTD_LEVEL: i32 = 3;
/// The length of what ends the last pack of a snapshot, in bytes.
pub(crate) const ROOT_BYTES: usize = 84;
/// What it ends with.
const ROOT_MAGIC: &[u8; 4] = b"axwr";

/// What the last pack of a snapshot says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    /// The workspace itself, which is kept in the same pack.
    pub(crate) hash: [u8; 32],
    pub(crate) offset: u32,
    pub(crate) bytes: u32,
    pub(crate) totals: Totals,
}

/// What a snapshot holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Files.
    pub files: u64,
    /// Directories, without the workspace itself.
    pub dirs: u64,
    /// Symbolic links.
    pub links: u64,
    /// The sum of the lengths of the files, in bytes.
    pub bytes: u64,
}

impl Root {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Totals { files, dirs, links, bytes } = self.totals;
        let mut out = self.hash.to_vec();
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        for count in [files, dirs, links, bytes] {
            out.extend_from_slice(&count.to_le_bytes());
        }
        // Room for what a later version has to say.
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(ROOT_MAGIC);
        out
    }

    pub(crate) fn decode(plain: &[u8]) -> Result<Self, Malformed> {
        let at = plain.len().checked_sub(ROOT_BYTES);
        let mut from = Take(&plain[at.ok_or(Malformed("it is too short"))?..]);
        let (hash, offset, bytes) = (from.hash()?, from.u32()?, from.u32()?);
        let totals = Totals {
            files: from.u64()?,
            dirs: from.u64()?,
            links: from.u64()?,
            bytes: from.u64()?,
        };
        from.bytes(8)?;
        if from.bytes(4)? != ROOT_MAGIC {
            return Err(Malformed("it is not the last blob of a snapshot"));
        }
        Ok(Self { hash, offset, bytes, totals })
    }

    /// Where the workspace is kept, if the root is in this pack.
    pub(crate) const fn object(&self, pack: u32) -> Object {
        Object { hash: self.hash, pack, offset: self.offset, bytes: self.bytes }
    }
}

/// Makes the blob of a pack.
pub(crate) fn seal(plain: &[u8]) -> Bytes {
    let packed = zstd::bulk::compress(plain, ZSTD_LEVEL).unwrap_or_default();
    let pays = !packed.is_empty() && packed.len() < plain.len() - plain.len() / 16;
    let (kept_as, kept) = if pays { (ZSTD, &*packed) } else { (AS_IT_IS, plain) };
    let mut blob = Vec::with_capacity(HEAD_BYTES + kept.len());
    blob.extend_from_slice(MAGIC);
    blob.extend_from_slice(&[VERSION, kept_as, 0, 0]);
    let bytes = u32::try_from(plain.len()).expect("a pack is small");
    blob.extend_from_slice(&bytes.to_le_bytes());
    blob.extend_from_slice(kept);
    blob.into()
}

/// Returns what a pack holds.
pub(crate) fn open(blob: &Bytes) -> Result<Bytes, Malformed> {
    let mut from = Take(blob);
    if from.bytes(4)? != MAGIC {
        return Err(Malformed("it does not begin as one"));
    }
    if from.u8()? != VERSION {
        return Err(Malformed("it is of a version that this program does not know"));
    }
    let kept_as = from.u8()?;
    from.bytes(2)?;
    let bytes = from.u32()? as usize;
    if bytes > PLAIN_BYTES_MAX {
        return Err(Malformed("it holds too much"));
    }
    let plain = match kept_as {
        AS_IT_IS => blob.slice(HEAD_BYTES..),
        ZSTD => {
            let plain = zstd::bulk::decompress(from.0, bytes);
            plain.map_err(|_| Malformed("it cannot be unpacked"))?.into()
        }
        _ => return Err(Malformed("it is packed in an unknown way")),
    };
    if plain.len() != bytes {
        return Err(Malformed("it holds less or more than it says"));
    }
    Ok(plain)
}

/// Returns an object of a pack.
pub(crate) fn object(plain: &Bytes, object: &Object) -> Result<Bytes, Malformed> {
    let (from, to) = (object.offset as usize, object.offset as usize + object.bytes as usize);
    if to > plain.len() {
        return Err(Malformed("a part lies outside of it"));
    }
    let bytes = plain.slice(from..to);
    if *blake3::hash(&bytes).as_bytes() != object.hash {
        return Err(Malformed("a part is not what it is said to be"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_holds_what_was_put_into_it() {
        for plain in [vec![], vec![7; 100_000], (0..=255).cycle().take(1000).collect::<Vec<u8>>()] {
            assert_eq!(open(&seal(&plain)), Ok(Bytes::from(plain)));
        }
        assert!(seal(&[7; 100_000]).len() < 1000);
        assert_eq!(seal(b"short").len(), HEAD_BYTES + 5, "what does not pay is kept as it is");
    }

    #[test]
    fn a_pack_that_says_something_else_is_refused() {
        let good = seal(&[7; 1000]);
        for at in 0..HEAD_BYTES {
            let mut bad = good.to_vec();
            bad[at] ^= 0x40;
            let opened = open(&bad.into());
            assert!(opened.is_err() || at == 6 || at == 7, "byte {at}");
        }
        assert!(open(&good.slice(..good.len() - 1)).is_err());
    }

    #[test]
    fn a_root_is_read_back() {
        let totals = Totals { files: 1, dirs: 2, links: 3, bytes: 4 };
        let root = Root { hash: [9; 32], offset: 5, bytes: 6, totals };
        let encoded = root.encode();
        assert_eq!(encoded.len(), ROOT_BYTES);
        assert_eq!(Root::decode(&encoded), Ok(root));
        assert!(Root::decode(&encoded[1..]).is_err());
    }
}
