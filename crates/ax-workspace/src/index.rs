//! What is known of a workspace without reading it: kept beside it, and worth nothing elsewhere.
//!
//! The index holds the tree of the last snapshot together with how each file looked when it was
//! read. It can be lost at any time: everything is read again then. One that is torn, or belongs to
//! another snapshot, is not used.

use crate::tree::{Dir, Entry, Node, Object, PackInfo, Packs, Sig, put_meta, put_time};
use crate::tree::{take_meta, take_time};
use crate::wire::{Malformed, Take, put_count, put_short};
use ax_store::BlobId;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// The file in the directory beside the workspace.
const NAME: &str = "index";
const MAGIC: &[u8; 8] = b"axwindx1";
/// The deepest tree that is written, with room to spare: deeper ones are refused before.
const DEPTH_MAX: u32 = 1024;

/// The tree of the last snapshot.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) snapshot: BlobId,
    pub(crate) packs: Packs,
    pub(crate) tree: Dir,
}

impl Index {
    /// Reads the index; `None` if there is none that can be trusted.
    pub(crate) fn load(beside: &Path) -> Option<Self> {
        let bytes = fs::read(beside.join(NAME)).ok()?;
        let (body, sum) = bytes.split_last_chunk::<32>()?;
        if blake3::hash(body).as_bytes() != sum {
            return None;
        }
        Self::decode(body).ok()
    }

    /// Writes the index. It is there whole or not at all; it need not survive a loss of power.
    pub(crate) fn save(&self, beside: &Path) -> io::Result<()> {
        let mut body = MAGIC.to_vec();
        body.extend_from_slice(&self.snapshot.0);
        put_count(&mut body, self.packs.all.len());
        for pack in &self.packs.all {
            body.extend_from_slice(&pack.id.0);
            body.extend_from_slice(&pack.plain_bytes.to_le_bytes());
        }
        put_dir(&mut body, &self.tree);
        let new = beside.join("index.new");
        let mut file = File::create(&new)?;
        file.write_all(&body)?;
        file.write_all(blake3::hash(&body).as_bytes())?;
        fs::rename(new, beside.join(NAME))
    }

    fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut from = Take(body);
        if from.bytes(8)? != MAGIC {
            return Err(Malformed("it is no index"));
        }
        let snapshot = BlobId(from.hash()?);
        let mut packs = Packs::default();
        for _ in 0..from.u32()? {
            let info = PackInfo { id: BlobId(from.hash()?), plain_bytes: from.u32()? };
            let pack = packs.reserve();
            packs.name(pack, info);
        }
        let tree = take_dir(&mut from, packs.all.len(), 0)?;
        from.end()?;
        Ok(Self { snapshot, packs, tree })
    }
}

fn put_dir(out: &mut Vec<u8>, dir: &Dir) {
    put_object(out, &dir.object.expect("the tree of a snapshot is kept"));
    put_count(out, dir.entries.len());
    for entry in &dir.entries {
        put_short(out, &entry.name);
        put_meta(out, entry.meta);
        match &entry.node {
            Node::File { bytes, chunks } => {
                out.push(1);
                out.extend_from_slice(&bytes.to_le_bytes());
                put_sig(out, entry.sig);
                put_count(out, chunks.len());
                for chunk in chunks {
                    put_object(out, chunk);
                }
            }
            Node::Link { target } => {
                out.push(2);
                put_short(out, target);
            }
            Node::Dir(dir) => {
                out.push(3);
                put_dir(out, dir);
            }
        }
    }
}

fn put_object(out: &mut Vec<u8>, object: &Object) {
    out.extend_from_slice(&object.hash);
    for part in [object.pack, object.offset, object.bytes] {
        out.extend_from_slice(&part.to_le_bytes());
    }
}

fn put_sig(out: &mut Vec<u8>, sig: Option<Sig>) {
    out.push(u8::from(sig.is_some()));
    if let Some(sig) = sig {
        out.extend_from_slice(&sig.inode.to_le_bytes());
        out.extend_from_slice(&sig.bytes.to_le_bytes());
        put_time(out, sig.mtime);
        put_time(out, sig.ctime);
    }
}

fn take_dir(from: &mut Take<'_>, packs: usize, depth: u32) -> Result<Dir, Malformed> {
    if depth > DEPTH_MAX {
        return Err(Malformed("it is too deep"));
    }
    let object = Some(take_object(from, packs)?);
    let mut entries = Vec::new();
    for _ in 0..from.u32()? {
        let name = from.short()?.into();
        let meta = take_meta(from)?;
        let (mut sig, kind) = (None, from.u8()?);
        let node = match kind {
            1 => {
                let bytes = from.u64()?;
                sig = take_sig(from)?;
                let mut chunks = Vec::new();
                for _ in 0..from.u32()? {
                    chunks.push(take_object(from, packs)?);
                }
                Node::File { bytes, chunks }
            }
            2 => Node::Link { target: from.short()?.into() },
            3 => Node::Dir(take_dir(from, packs, depth + 1)?),
            _ => return Err(Malformed("an entry is of an unknown kind")),
        };
        entries.push(Entry { name, meta, sig, node });
    }
    Ok(Dir { entries, object })
}

fn take_object(from: &mut Take<'_>, packs: usize) -> Result<Object, Malformed> {
    let hash = from.hash()?;
    let object = Object { hash, pack: from.u32()?, offset: from.u32()?, bytes: from.u32()? };
    if object.pack as usize >= packs {
        return Err(Malformed("there is no such pack"));
    }
    Ok(object)
}

fn take_sig(from: &mut Take<'_>) -> Result<Option<Sig>, Malformed> {
    if from.u8()? == 0 {
        return Ok(None);
    }
    let (inode, bytes) = (from.u64()?, from.u64()?);
    Ok(Some(Sig { inode, bytes, mtime: take_time(from)?, ctime: take_time(from)? }))
}
