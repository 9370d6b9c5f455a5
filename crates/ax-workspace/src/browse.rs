//! Reads single files and directories of a snapshot, without restoring it.

use crate::error::ReadError;
use crate::store::Reader;
use crate::sys::shown;
use crate::tree::{Dir, Entry, Node, Object, Packs};
use ax_core::id::Namespace;
use ax_store::{BlobId, Blobs};
use bytes::Bytes;

/// One name in a snapshot, or in a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The name, which need not be text.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// The nine bits of permission.
    pub mode: u16,
    /// When it was last changed, in seconds since 1970.
    pub modified_seconds: i64,
    /// The length of a file, in bytes; 0 for anything else.
    pub bytes: u64,
    /// Where a link leads; empty for anything else. It is never followed.
    pub target: Vec<u8>,
}

/// What a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Link,
    /// A pipe, socket or device: in a workspace only, never in a snapshot.
    Special,
}

/// A file of a snapshot that is being read.
#[derive(Debug)]
pub struct FileReader {
    reader: Reader,
    packs: Packs,
    chunks: std::vec::IntoIter<Object>,
    bytes: u64,
}

/// A difference between two snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The path, whose bytes need not be text.
    pub path: Vec<u8>,
    /// What happened to it.
    pub what: Changed,
}

/// What happened to a path between two snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It is only in the second. Of a new directory everything in it is named too.
    Added,
    /// It is only in the first.
    Removed,
    /// It has another content, or is of another kind.
    Content,
    /// Only its permissions differ.
    Mode,
}

/// Lists what is in a directory of a snapshot, or the one file or link that `path` names. The
/// empty path is the workspace.
///
/// # Errors
///
/// Returns [`ReadError`] if there is no such path, it leads through a link, or a blob is missing or
/// damaged.
pub async fn list(
    blobs: &Blobs,
    namespace: &Namespace,
    snapshot: &BlobId,
    path: &[u8],
) -> Result<Vec<Listed>, ReadError> {
    let mut reader = Reader::new(blobs, namespace);
    let mut packs = Packs::default();
    match find(&mut reader, &mut packs, snapshot, path).await? {
        Found::Dir(dir) => Ok(dir.entries.into_iter().map(listed).collect()),
        Found::Other(entry) => Ok(vec![listed(entry)]),
    }
}

/// Opens a file of a snapshot.
///
/// # Errors
///
/// As [`list`], and if the path is no file.
pub async fn read(
    blobs: &Blobs,
    namespace: &Namespace,
    snapshot: &BlobId,
    path: &[u8],
) -> Result<FileReader, ReadError> {
    let mut reader = Reader::new(blobs, namespace);
    let mut packs = Packs::default();
    let found = match find(&mut reader, &mut packs, snapshot, path).await? {
        Found::Dir(_) => "a directory",
        Found::Other(Entry { node: Node::File { bytes, chunks }, .. }) => {
            return Ok(FileReader { reader, packs, chunks: chunks.into_iter(), bytes });
        }
        Found::Other(entry) => entry.node.kind(),
    };
    Err(ReadError::Kind { path: shown(path), found, wanted: "a file" })
}

/// Says in what the second of two snapshots differs from the first, in the order of the paths. At
/// most `count_max` differences are returned; times do not count.
///
/// # Errors
///
/// Returns [`ReadError`] if a blob is missing or damaged.
pub async fn diff(
    blobs: &Blobs,
    namespace: &Namespace,
    snapshots: (&BlobId, &BlobId),
    count_max: usize,
) -> Result<Vec<Change>, ReadError> {
    let mut reader = Reader::new(blobs, namespace);
    let mut packs = Packs::default();
    let mut roots = Vec::new();
    for id in [snapshots.0, snapshots.1] {
        roots.push(reader.root(*id).await?.object(packs.index_of(*id)));
    }
    let mut changes = Vec::new();
    let mut open = vec![Pair { path: Vec::new(), a: Some(roots[0]), b: Some(roots[1]) }];
    while let Some(pair) = open.pop() {
        if pair.a.map(|a| a.hash) == pair.b.map(|b| b.hash) {
            continue;
        }
        let a = side(&mut reader, &mut packs, pair.a).await?;
        let b = side(&mut reader, &mut packs, pair.b).await?;
        compare(&pair.path, &a, &b, &mut changes, &mut open);
        if changes.len() >= count_max {
            break;
        }
    }
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    changes.truncate(count_max);
    Ok(changes)
}

/// A directory in both snapshots, or in one.
#[derive(Debug)]
struct Pair {
    path: Vec<u8>,
    a: Option<Object>,
    b: Option<Object>,
}

async fn side(
    reader: &mut Reader,
    packs: &mut Packs,
    object: Option<Object>,
) -> Result<Dir, ReadError> {
    match object {
        Some(object) => reader.dir(packs, &object).await,
        None => Ok(Dir::default()),
    }
}

fn compare(path: &[u8], a: &Dir, b: &Dir, changes: &mut Vec<Change>, open: &mut Vec<Pair>) {
    let mut names: Vec<&[u8]> =
        a.entries.iter().chain(&b.entries).map(|entry| &*entry.name).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let (old, new) = (a.get(name), b.get(name));
        let at = if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() };
        let what = match (old, new) {
            (None, _) => Some(Changed::Added),
            (_, None) => Some(Changed::Removed),
            (Some(old), Some(new)) if !is_same(&old.node, &new.node) => Some(Changed::Content),
            (Some(old), Some(new)) => (old.meta.mode != new.meta.mode).then_some(Changed::Mode),
        };
        let inner = |entry: Option<&Entry>| match entry.map(|entry| &entry.node) {
            Some(Node::Dir(dir)) => dir.object,
            _ => None,
        };
        let (a, b) = (inner(old), inner(new));
        if a.is_some() || b.is_some() {
            open.push(Pair { path: at.clone(), a, b });
        }
        changes.extend(what.map(|what| Change { path: at, what }));
    }
}

/// Whether two nodes have the same content, for directories: are directories.
fn is_same(a: &Node, b: &Node) -> bool {
    match (a, b) {
        (Node::File { chunks, .. }, Node::File { chunks: others, .. }) => {
            chunks.iter().map(|chunk| chunk.hash).eq(others.iter().map(|chunk| chunk.hash))
        }
        (Node::Link { target }, Node::Link { target: other }) => target == other,
        (Node::Dir(_), Node::Dir(_)) => true,
        _ => false,
    }
}

#[derive(Debug)]
enum Found {
    Dir(Dir),
    Other(Entry),
}

async fn find(
    reader: &mut Reader,
    packs: &mut Packs,
    snapshot: &BlobId,
    path: &[u8],
) -> Result<Found, ReadError> {
    let root = reader.root(*snapshot).await?;
    let root = root.object(packs.index_of(*snapshot));
    let mut dir = reader.dir(packs, &root).await?;
    let mut parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).peekable();
    while let Some(part) = parts.next() {
        if part == b"." {
            continue;
        }
        let at = dir.entries.binary_search_by(|entry| (*entry.name).cmp(part));
        let at = at.map_err(|_| ReadError::NoPath { path: shown(path) })?;
        let entry = dir.entries.swap_remove(at);
        match entry.node {
            Node::Dir(inner) => {
                let object = inner.object.expect("a directory that was read says where it is");
                dir = reader.dir(packs, &object).await?;
            }
            node if parts.peek().is_some() => {
                let (found, wanted) = (node.kind(), "a directory");
                return Err(ReadError::Kind { path: shown(path), found, wanted });
            }
            _ => return Ok(Found::Other(entry)),
        }
    }
    Ok(Found::Dir(dir))
}

fn listed(entry: Entry) -> Listed {
    let (kind, bytes, target) = match entry.node {
        Node::File { bytes, .. } => (Kind::File, bytes, Vec::new()),
        Node::Link { target } => (Kind::Link, 0, target.into_vec()),
        Node::Dir(_) => (Kind::Dir, 0, Vec::new()),
    };
    let (name, mode) = (entry.name.into_vec(), entry.meta.mode);
    Listed { name, kind, mode, modified_seconds: entry.meta.mtime.seconds, bytes, target }
}

impl FileReader {
    /// Returns the length of the file, in bytes.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the next piece, at most 1 MiB; `None` at the end.
    ///
    /// # Errors
    ///
    /// Returns [`ReadError`] if a blob is missing or damaged. What was returned until then is good.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        let Some(chunk) = self.chunks.next() else { return Ok(None) };
        self.reader.object(&self.packs, &chunk).await.map(Some)
    }
}
