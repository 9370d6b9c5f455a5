//! Takes a snapshot: reads what changed, keeps it, and names the whole.

use crate::error::{ReadError, SnapshotError};
use crate::index::Index;
use crate::pack::Root;
use crate::scan::Scan;
use crate::store::{Finished, Reader, Writer, is_too_large};
use crate::sys::{self, shown};
use crate::tree::{Dir, Node, Object, Packs, Time, encode};
use crate::{Options, Place, Snapshot, Stats};
use ax_core::id::Namespace;
use ax_store::{Blob, Blobs, GetError};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use tokio::runtime::Handle;

/// New contents up to this length share a blob with the directories, in bytes: a small snapshot is
/// one durable write.
const SHARED_BYTES: usize = 256 << 10;
/// A pack of which less than one in this many bytes is used is left.
const USED_PART_MIN: u64 = 4;
/// More packs than this are too many, if they are small.
const PACK_COUNT_MAX: usize = 64;
/// A pack with fewer used bytes than this is small.
const SMALL_BYTES: u64 = 1 << 20;
/// What is added to the age of a file if its file system may count time coarsely, in seconds.
const COARSE_SECONDS: i64 = 2;

/// What it takes to take a snapshot.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) handle: Handle,
    pub(crate) blobs: Blobs,
    pub(crate) namespace: Namespace,
    pub(crate) place: Place,
    pub(crate) previous: Option<Blob>,
    pub(crate) options: Options,
}

impl Job {
    /// Takes the snapshot, from a thread that may wait.
    pub(crate) fn run(self) -> Result<Snapshot, SnapshotError> {
        let unusable = |path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| SnapshotError::Directory { path, source }
        };
        let Place { dir, beside } = &self.place;
        fs::create_dir_all(beside).map_err(unusable(beside))?;
        let root = sys::open_root(dir).map_err(|errno| unusable(dir)(errno.into()))?;
        let device = rustix::fs::fstat(&root).map_err(|errno| unusable(dir)(errno.into()))?.st_dev;
        let trust_before = now(beside, device).map_err(unusable(beside))?;
        let (mut packs, old) = self.before()?;
        let retired = old.as_ref().map(|old| retired(old, &packs)).unwrap_or_default();
        let known = old.as_ref().map(|old| chunks(old, &retired)).unwrap_or_default();
        let (handle, blobs) = (self.handle.clone(), self.blobs.clone());
        let writer = Writer::new(handle, blobs, self.namespace.clone(), &mut packs);
        let mut scan = Scan {
            root: dir,
            options: &self.options,
            packs,
            known,
            retired,
            writer,
            trust_before,
            device,
            totals: Default::default(),
            stats: Stats::default(),
        };
        let mut tree = scan.dir(&root, &mut Vec::new(), 0, old.as_ref())?;
        let Scan { mut packs, mut writer, totals, mut stats, .. } = scan;
        let kept = match (tree.object, self.previous) {
            (Some(_), Some(previous)) => Finished { root: previous, written: writer.written },
            _ => {
                writer.close_above(SHARED_BYTES, &mut packs)?;
                let Object { hash, offset, bytes, .. } =
                    keep(&mut tree, &mut writer, &mut packs, &mut Vec::new())?;
                writer.finish(&Root { hash, offset, bytes, totals }, &mut packs)?
            }
        };
        stats.note_written(&kept.written);
        let index = Index { snapshot: kept.root.id, packs: used(&packs, &mut tree), tree };
        if let Err(error) = index.save(beside) {
            tracing::warn!(path = %beside.display(), %error, "the next snapshot reads everything");
        }
        Ok(Snapshot { root: kept.root, written: kept.written, totals, stats })
    }

    /// Returns what the snapshot before holds, with how files looked if that is known.
    fn before(&self) -> Result<(Packs, Option<Dir>), SnapshotError> {
        let Some(previous) = self.previous else { return Ok(Default::default()) };
        if let Some(index) = Index::load(&self.place.beside)
            && index.snapshot == previous.id
        {
            return Ok((index.packs, Some(index.tree)));
        }
        let mut packs = Packs::default();
        let mut reader = Reader::new(&self.blobs, &self.namespace);
        match reader.tree(&self.handle, &mut packs, previous.id, &self.options.limits) {
            Ok(tree) => Ok((packs, Some(tree))),
            Err(error @ ReadError::Blob(GetError::Store(_))) => Err(SnapshotError::Previous(error)),
            // The next one must not suffer from it.
            Err(error) => {
                tracing::warn!(previous = %previous.id, %error, "everything is kept anew");
                Ok(Default::default())
            }
        }
    }
}

/// Returns the time before which a change is a change that can be seen: what is changed from here
/// on has this time or a later one.
pub(crate) fn now(beside: &Path, device: u64) -> io::Result<Time> {
    let file = File::create(beside.join("clock"))?;
    rustix::fs::futimens(&file, &touch())?;
    let stat = rustix::fs::fstat(&file)?;
    let mut now = sys::ctime(&stat);
    if stat.st_dev != device {
        now.seconds -= COARSE_SECONDS;
    }
    Ok(now)
}

const fn touch() -> rustix::fs::Timestamps {
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW as _ };
    rustix::fs::Timestamps { last_access: now, last_modification: now }
}

/// Returns the packs that are to be left: little of them is used, or they are small and many.
fn retired(tree: &Dir, packs: &Packs) -> HashSet<u32> {
    let mut used: HashMap<u32, u64> = HashMap::new();
    each_object(tree, &mut |object| {
        *used.entry(object.pack).or_default() += u64::from(object.bytes);
    });
    let too_many = used.len() > PACK_COUNT_MAX;
    let is_left = |(pack, used): &(u32, u64)| {
        let plain = u64::from(packs.all[*pack as usize].plain_bytes);
        (used * USED_PART_MIN < plain && plain > SHARED_BYTES as u64)
            || (too_many && *used < SMALL_BYTES)
    };
    used.into_iter().filter(is_left).map(|(pack, _)| pack).collect()
}

fn chunks(tree: &Dir, retired: &HashSet<u32>) -> HashMap<[u8; 32], Object> {
    let mut known = HashMap::new();
    each_file(tree, &mut |chunks| {
        let kept = chunks.iter().filter(|chunk| !retired.contains(&chunk.pack));
        known.extend(kept.map(|chunk| (chunk.hash, *chunk)));
    });
    known
}

fn each_file(dir: &Dir, see: &mut impl FnMut(&[Object])) {
    for entry in &dir.entries {
        match &entry.node {
            Node::File { chunks, .. } => see(chunks),
            Node::Dir(dir) => each_file(dir, see),
            Node::Link { .. } => {}
        }
    }
}

fn each_object(dir: &Dir, see: &mut impl FnMut(&Object)) {
    dir.object.iter().for_each(&mut *see);
    for entry in &dir.entries {
        match &entry.node {
            Node::File { chunks, .. } => chunks.iter().for_each(&mut *see),
            Node::Dir(dir) => each_object(dir, see),
            Node::Link { .. } => {}
        }
    }
}

/// Returns the packs that a tree uses, and numbers them anew in it.
pub(crate) fn used(packs: &Packs, tree: &mut Dir) -> Packs {
    let mut used = Packs::default();
    renumber(tree, &mut |object| {
        let info = packs.all[object.pack as usize];
        let pack = used.index_of(info.id);
        used.all[pack as usize] = info;
        object.pack = pack;
    });
    used
}

fn renumber(dir: &mut Dir, change: &mut impl FnMut(&mut Object)) {
    dir.object.iter_mut().for_each(&mut *change);
    for entry in &mut dir.entries {
        match &mut entry.node {
            Node::File { chunks, .. } => chunks.iter_mut().for_each(&mut *change),
            Node::Dir(dir) => renumber(dir, change),
            Node::Link { .. } => {}
        }
    }
}

/// Keeps a directory after those in it.
fn keep(
    dir: &mut Dir,
    writer: &mut Writer,
    packs: &mut Packs,
    path: &mut Vec<u8>,
) -> Result<Object, SnapshotError> {
    for entry in &mut dir.entries {
        if let Node::Dir(inner) = &mut entry.node
            && inner.object.is_none()
        {
            let bytes = path.len();
            path.push(b'/');
            path.extend_from_slice(&entry.name);
            keep(inner, writer, packs, path)?;
            path.truncate(bytes);
        }
    }
    writer.close_full(packs)?;
    let bytes = encode(dir, packs, writer.pack());
    if is_too_large(bytes.len()) {
        let (max, at) = (crate::pack::PLAIN_BYTES_MAX as u64, shown(path));
        return Err(SnapshotError::Limit { what: "bytes of names in a directory", max, at });
    }
    let object = writer.add(&bytes, *blake3::hash(&bytes).as_bytes());
    dir.object = Some(object);
    Ok(object)
}
