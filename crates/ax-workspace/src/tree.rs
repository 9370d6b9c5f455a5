//! Directories as they are kept: the tree of hashes, and its stored form.

use crate::wire::{Malformed, Take, put_count, put_short};
use ax_store::BlobId;
use std::collections::HashMap;

/// The longest name of a file, in bytes (`NAME_MAX`).
pub(crate) const NAME_BYTES_MAX: usize = 255;
/// The longest target of a link, in bytes (`PATH_MAX`).
pub(crate) const TARGET_BYTES_MAX: usize = 4096;

/// Some bytes in a pack: a chunk of a file, or a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    /// BLAKE3 of the bytes.
    pub(crate) hash: [u8; 32],
    /// Which pack has them: an index into [`Packs`].
    pub(crate) pack: u32,
    /// Where they begin in what the pack holds.
    pub(crate) offset: u32,
    /// How many there are.
    pub(crate) bytes: u32,
}

/// The packs that a tree in memory refers to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Packs {
    pub(crate) all: Vec<PackInfo>,
    by_id: HashMap<BlobId, u32>,
}

/// What is known of a pack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackInfo {
    /// Its blob; zeros while it is being filled.
    pub(crate) id: BlobId,
    /// How much it holds, in bytes; 0 if that is not known.
    pub(crate) plain_bytes: u32,
}

impl Packs {
    /// Returns the index of a pack, which is added if it is new.
    pub(crate) fn index_of(&mut self, id: BlobId) -> u32 {
        let next = u32::try_from(self.all.len()).expect("limits keep the number of packs small");
        *self.by_id.entry(id).or_insert_with(|| {
            self.all.push(PackInfo { id, plain_bytes: 0 });
            next
        })
    }

    /// Makes room for a pack that has no name yet.
    pub(crate) fn reserve(&mut self) -> u32 {
        self.all.push(PackInfo { id: BlobId([0; 32]), plain_bytes: 0 });
        u32::try_from(self.all.len() - 1).expect("limits keep the number of packs small")
    }

    /// Names a pack that is complete.
    pub(crate) fn name(&mut self, pack: u32, info: PackInfo) {
        self.all[pack as usize] = info;
        self.by_id.insert(info.id, pack);
    }

    pub(crate) fn id(&self, pack: u32) -> BlobId {
        self.all[pack as usize].id
    }
}

/// A directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dir {
    /// What is in it, in the order of the names' bytes.
    pub(crate) entries: Vec<Entry>,
    /// Where it is kept; `None` until it is.
    pub(crate) object: Option<Object>,
}

/// What a directory has under a name.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: Box<[u8]>,
    pub(crate) meta: Meta,
    /// How the file looked when it was read, if that says whether it has changed since. Not kept in
    /// the snapshot.
    pub(crate) sig: Option<Sig>,
    pub(crate) node: Node,
}

/// What is kept of a file besides its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// The nine bits of permission.
    pub(crate) mode: u16,
    pub(crate) mtime: Time,
}

/// A time of a file system, in seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
}

/// How a file looks without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sig {
    pub(crate) inode: u64,
    pub(crate) bytes: u64,
    pub(crate) mtime: Time,
    pub(crate) ctime: Time,
}

/// What an entry is.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    File { bytes: u64, chunks: Vec<Object> },
    Link { target: Box<[u8]> },
    Dir(Dir),
}

impl Dir {
    pub(crate) fn get(&self, name: &[u8]) -> Option<&Entry> {
        let found = self.entries.binary_search_by(|entry| (*entry.name).cmp(name));
        found.ok().map(|at| &self.entries[at])
    }

    /// Whether what is kept of it would be the same.
    pub(crate) fn is_kept_as(&self, other: &Self) -> bool {
        self.entries.len() == other.entries.len()
            && self.entries.iter().zip(&other.entries).all(|(a, b)| a.is_kept_as(b))
    }
}

impl Entry {
    fn is_kept_as(&self, other: &Self) -> bool {
        let same_node = match (&self.node, &other.node) {
            (Node::File { chunks, .. }, Node::File { chunks: others, .. }) => chunks == others,
            (Node::Link { target }, Node::Link { target: other }) => target == other,
            (Node::Dir(dir), Node::Dir(other)) => {
                dir.object.is_some() && dir.object == other.object
            }
            _ => false,
        };
        same_node && self.name == other.name && self.meta == other.meta
    }
}

impl Node {
    /// What it is, for a message.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::File { .. } => "a file",
            Self::Link { .. } => "a link",
            Self::Dir(_) => "a directory",
        }
    }
}

/// Writes a directory that will be kept in the pack `own`. All directories in it are kept already.
pub(crate) fn encode(dir: &Dir, packs: &Packs, own: u32) -> Vec<u8> {
    let mut table = Table { own, numbers: HashMap::new(), packs: Vec::new() };
    let mut body = Vec::new();
    put_count(&mut body, dir.entries.len());
    for entry in &dir.entries {
        put_short(&mut body, &entry.name);
        let kind: u8 = match &entry.node {
            Node::File { .. } => 1,
            Node::Link { .. } => 2,
            Node::Dir(_) => 3,
        };
        body.push(kind);
        put_meta(&mut body, entry.meta);
        match &entry.node {
            Node::File { bytes, chunks } => {
                body.extend_from_slice(&bytes.to_le_bytes());
                put_count(&mut body, chunks.len());
                for chunk in chunks {
                    table.put(&mut body, chunk);
                }
            }
            Node::Link { target } => put_short(&mut body, target),
            Node::Dir(dir) => {
                table.put(&mut body, &dir.object.expect("it is kept before what it is in"));
            }
        }
    }
    let mut out = Vec::with_capacity(body.len() + 4 + table.packs.len() * 32);
    put_count(&mut out, table.packs.len());
    for pack in &table.packs {
        out.extend_from_slice(&packs.id(*pack).0);
    }
    out.extend_from_slice(&body);
    out
}

/// The packs that one directory refers to; 0 is the one that it is in.
#[derive(Debug)]
struct Table {
    own: u32,
    numbers: HashMap<u32, u32>,
    packs: Vec<u32>,
}

impl Table {
    fn put(&mut self, out: &mut Vec<u8>, object: &Object) {
        let number = if object.pack == self.own {
            0
        } else {
            *self.numbers.entry(object.pack).or_insert_with(|| {
                self.packs.push(object.pack);
                u32::try_from(self.packs.len()).expect("limits keep the number of packs small")
            })
        };
        out.extend_from_slice(&object.hash);
        for part in [number, object.offset, object.bytes] {
            out.extend_from_slice(&part.to_le_bytes());
        }
    }
}

pub(crate) fn put_meta(out: &mut Vec<u8>, meta: Meta) {
    out.extend_from_slice(&meta.mode.to_le_bytes());
    put_time(out, meta.mtime);
}

pub(crate) fn put_time(out: &mut Vec<u8>, time: Time) {
    out.extend_from_slice(&time.seconds.to_le_bytes());
    out.extend_from_slice(&time.nanos.to_le_bytes());
}

pub(crate) fn take_time(from: &mut Take<'_>) -> Result<Time, Malformed> {
    let time = Time { seconds: from.i64()?, nanos: from.u32()? };
    if time.nanos >= 1_000_000_000 {
        return Err(Malformed("a time is none"));
    }
    Ok(time)
}

pub(crate) fn take_meta(from: &mut Take<'_>) -> Result<Meta, Malformed> {
    let mode = from.u16()?;
    if mode > 0o777 {
        return Err(Malformed("a mode is more than permissions"));
    }
    Ok(Meta { mode, mtime: take_time(from)? })
}

/// Reads a directory that is kept in the pack `own`. What is in its directories is not read.
///
/// It may come from an archive that somebody made up: names that lead elsewhere are refused.
pub(crate) fn decode(bytes: &[u8], packs: &mut Packs, own: u32) -> Result<Dir, Malformed> {
    let mut from = Take(bytes);
    let mut table = vec![own];
    for _ in 0..from.u32()? {
        table.push(packs.index_of(BlobId(from.hash()?)));
    }
    let mut entries: Vec<Entry> = Vec::new();
    for _ in 0..from.u32()? {
        let entry = take_entry(&mut from, &table)?;
        if entries.last().is_some_and(|last| last.name >= entry.name) {
            return Err(Malformed("names are not in order"));
        }
        entries.push(entry);
    }
    from.end()?;
    Ok(Dir { entries, object: None })
}

fn take_entry(from: &mut Take<'_>, table: &[u32]) -> Result<Entry, Malformed> {
    let name = from.short()?;
    if !is_name(name) {
        return Err(Malformed("a name is none"));
    }
    let kind = from.u8()?;
    let meta = take_meta(from)?;
    let node = match kind {
        1 => take_file(from, table)?,
        2 => {
            let target = from.short()?;
            if target.is_empty() || target.len() > TARGET_BYTES_MAX || target.contains(&0) {
                return Err(Malformed("the target of a link is none"));
            }
            Node::Link { target: target.into() }
        }
        3 => {
            let object = Some(take_object(from, table)?);
            Node::Dir(Dir { entries: Vec::new(), object })
        }
        _ => return Err(Malformed("an entry is of an unknown kind")),
    };
    Ok(Entry { name: name.into(), meta, sig: None, node })
}

fn take_file(from: &mut Take<'_>, table: &[u32]) -> Result<Node, Malformed> {
    let bytes = from.u64()?;
    let (mut chunks, mut sum) = (Vec::new(), 0);
    for _ in 0..from.u32()? {
        let chunk = take_object(from, table)?;
        sum += u64::from(chunk.bytes);
        chunks.push(chunk);
    }
    if sum != bytes {
        return Err(Malformed("a file has another length than its chunks"));
    }
    Ok(Node::File { bytes, chunks })
}

fn take_object(from: &mut Take<'_>, table: &[u32]) -> Result<Object, Malformed> {
    let hash = from.hash()?;
    let number = from.u32()? as usize;
    let pack = *table.get(number).ok_or(Malformed("a pack is not in the table"))?;
    Ok(Object { hash, pack, offset: from.u32()?, bytes: from.u32()? })
}

/// Whether a name can be that of a file in a directory, and of nothing elsewhere.
pub(crate) fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name != b"."
        && name != b".."
        && !name.contains(&b'/')
        && !name.contains(&0)
}
