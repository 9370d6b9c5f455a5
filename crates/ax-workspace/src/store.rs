//! The way from a thread that walks files to the blob store and back.

use crate::error::{ReadError, SnapshotError};
use crate::pack::{self, BLOB_BYTES_MAX, PACK_BYTES, PLAIN_BYTES_MAX, Root};
use crate::tree::{Dir, Node, Object, PackInfo, Packs, decode};
use crate::wire::Malformed;
use crate::{Limits, Stats};
use ax_core::id::Namespace;
use ax_store::{Blob, BlobId, Blobs, StoreError};
use bytes::Bytes;
use std::collections::VecDeque;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// How many packs are on their way at once.
const IN_FLIGHT_MAX: usize = 2;
/// How much of what was read is kept at hand, in bytes.
const HELD_BYTES_MAX: usize = 64 << 20;

/// Fills packs and puts them into the store.
#[derive(Debug)]
pub(crate) struct Writer {
    handle: Handle,
    blobs: Blobs,
    namespace: Namespace,
    plain: Vec<u8>,
    /// The index of the pack that is being filled.
    pack: u32,
    in_flight: JoinSet<Result<Blob, StoreError>>,
    pub(crate) written: Vec<Blob>,
}

impl Writer {
    pub(crate) fn new(
        handle: Handle,
        blobs: Blobs,
        namespace: Namespace,
        packs: &mut Packs,
    ) -> Self {
        let (plain, pack) = (Vec::new(), packs.reserve());
        let in_flight = JoinSet::new();
        Self { handle, blobs, namespace, plain, pack, in_flight, written: Vec::new() }
    }

    /// The pack that the next object goes to.
    pub(crate) const fn pack(&self) -> u32 {
        self.pack
    }

    /// Adds an object to the pack that is being filled.
    pub(crate) fn add(&mut self, bytes: &[u8], hash: [u8; 32]) -> Object {
        let offset = u32::try_from(self.plain.len()).expect("a pack is small");
        self.plain.extend_from_slice(bytes);
        let bytes = u32::try_from(bytes.len()).expect("an object is small");
        Object { hash, pack: self.pack, offset, bytes }
    }

    /// Closes the pack that is being filled if it holds more than `bytes_max`.
    pub(crate) fn close_above(
        &mut self,
        bytes_max: usize,
        packs: &mut Packs,
    ) -> Result<(), SnapshotError> {
        if self.plain.len() > bytes_max {
            self.close(packs)?;
            self.pack = packs.reserve();
        }
        Ok(())
    }

    pub(crate) fn close_full(&mut self, packs: &mut Packs) -> Result<(), SnapshotError> {
        self.close_above(PACK_BYTES, packs)
    }

    fn close(&mut self, packs: &mut Packs) -> Result<(), SnapshotError> {
        while self.in_flight.len() >= IN_FLIGHT_MAX {
            self.wait_for_one()?;
        }
        let plain = std::mem::take(&mut self.plain);
        let (id, content) = name(&plain, self.pack, packs);
        self.written.push(Blob { id, bytes: content.len() as u64 });
        let (blobs, namespace) = (self.blobs.clone(), self.namespace.clone());
        let put = async move { blobs.put_bytes(&namespace, content).await };
        self.in_flight.spawn_on(put, &self.handle);
        Ok(())
    }

    fn wait_for_one(&mut self) -> Result<(), SnapshotError> {
        match self.handle.block_on(self.in_flight.join_next()) {
            Some(Ok(put)) => put.map(drop).map_err(SnapshotError::from),
            Some(Err(_)) => Err(SnapshotError::Stopped),
            None => Ok(()),
        }
    }

    /// Puts the last pack, which names the others: it comes after they are durable.
    pub(crate) fn finish(
        mut self,
        root: &Root,
        packs: &mut Packs,
    ) -> Result<Finished, SnapshotError> {
        while !self.in_flight.is_empty() {
            self.wait_for_one()?;
        }
        self.plain.extend_from_slice(&root.encode());
        let (id, content) = name(&self.plain, self.pack, packs);
        let put = self.blobs.put_bytes(&self.namespace, content);
        let blob = self.handle.block_on(put)?;
        assert_eq!(blob.id, id, "a blob has the name of its content");
        self.written.push(blob);
        Ok(Finished { root: blob, written: self.written })
    }
}

/// What a snapshot added to the store.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) root: Blob,
    pub(crate) written: Vec<Blob>,
}

fn name(plain: &[u8], pack: u32, packs: &mut Packs) -> (BlobId, Bytes) {
    let content = pack::seal(plain);
    let id = BlobId::of(&content);
    let plain_bytes = u32::try_from(plain.len()).expect("a pack is small");
    packs.name(pack, PackInfo { id, plain_bytes });
    (id, content)
}

/// Reads objects out of packs; each pack is verified when it is read, and each object again.
#[derive(Debug)]
pub(crate) struct Reader {
    blobs: Blobs,
    namespace: Namespace,
    held: VecDeque<(BlobId, Bytes)>,
    /// Blobs that were read, and their bytes.
    pub(crate) stats: (u64, u64),
}

impl Reader {
    pub(crate) fn new(blobs: &Blobs, namespace: &Namespace) -> Self {
        let (blobs, namespace) = (blobs.clone(), namespace.clone());
        Self { blobs, namespace, held: VecDeque::new(), stats: (0, 0) }
    }

    /// Returns what a pack holds.
    async fn pack(&mut self, id: BlobId) -> Result<Bytes, ReadError> {
        if let Some((_, plain)) = self.held.iter().find(|(held, _)| *held == id) {
            return Ok(plain.clone());
        }
        let blob = self.blobs.get_bytes(&self.namespace, &id, BLOB_BYTES_MAX).await?;
        self.stats = (self.stats.0 + 1, self.stats.1 + blob.len() as u64);
        let plain = pack::open(&blob).map_err(malformed(id))?;
        let mut sum: usize = self.held.iter().map(|(_, held)| held.len()).sum();
        while sum + plain.len() > HELD_BYTES_MAX {
            let Some((_, oldest)) = self.held.pop_front() else { break };
            sum -= oldest.len();
        }
        self.held.push_back((id, plain.clone()));
        Ok(plain)
    }

    pub(crate) async fn object(
        &mut self,
        packs: &Packs,
        object: &Object,
    ) -> Result<Bytes, ReadError> {
        let id = packs.id(object.pack);
        let plain = self.pack(id).await?;
        pack::object(&plain, object).map_err(malformed(id))
    }

    /// Reads what a snapshot says of itself.
    pub(crate) async fn root(&mut self, id: BlobId) -> Result<Root, ReadError> {
        let plain = self.pack(id).await?;
        Root::decode(&plain).map_err(malformed(id))
    }

    /// Reads a directory, and not what is in its directories.
    pub(crate) async fn dir(
        &mut self,
        packs: &mut Packs,
        object: &Object,
    ) -> Result<Dir, ReadError> {
        let bytes = self.object(packs, object).await?;
        let decoded = decode(&bytes, packs, object.pack);
        let dir = decoded.map_err(malformed(packs.id(object.pack)))?;
        Ok(Dir { object: Some(*object), ..dir })
    }

    /// Reads all directories of a snapshot, from a thread that may wait.
    pub(crate) fn tree(
        &mut self,
        handle: &Handle,
        packs: &mut Packs,
        id: BlobId,
        limits: &Limits,
    ) -> Result<Dir, ReadError> {
        let root = handle.block_on(self.root(id))?;
        let object = root.object(packs.index_of(id));
        let mut left = limits.entries;
        let mut walk = Walk { reader: self, handle, packs, left: &mut left, limits };
        walk.dir(&object, 0)
    }
}

/// Reads directories within limits: they may be made up, and name each other many times.
struct Walk<'a> {
    reader: &'a mut Reader,
    handle: &'a Handle,
    packs: &'a mut Packs,
    left: &'a mut u64,
    limits: &'a Limits,
}

impl Walk<'_> {
    fn dir(&mut self, object: &Object, depth: u32) -> Result<Dir, ReadError> {
        if depth > self.limits.depth {
            let max = u64::from(self.limits.depth);
            return Err(ReadError::Limit { what: "levels", max });
        }
        let mut dir = self.handle.block_on(self.reader.dir(self.packs, object))?;
        let max = self.limits.entries;
        let left = self.left.checked_sub(dir.entries.len() as u64);
        *self.left = left.ok_or(ReadError::Limit { what: "files", max })?;
        for entry in &mut dir.entries {
            if let Node::Dir(inner) = &mut entry.node {
                let object = inner.object.expect("a directory that was read says where it is");
                *inner = self.dir(&object, depth + 1)?;
            }
        }
        Ok(dir)
    }
}

pub(crate) fn malformed(id: BlobId) -> impl Fn(Malformed) -> ReadError {
    move |Malformed(reason)| ReadError::Malformed { id, reason }
}

/// Whether a directory is too large to be kept in a pack.
pub(crate) const fn is_too_large(bytes: usize) -> bool {
    bytes > PLAIN_BYTES_MAX - PACK_BYTES - pack::ROOT_BYTES
}

impl Stats {
    /// Notes what was put.
    pub(crate) fn note_written(&mut self, written: &[Blob]) {
        self.blobs_written = written.len() as u64;
        self.bytes_written = written.iter().map(|blob| blob.bytes).sum();
    }
}
