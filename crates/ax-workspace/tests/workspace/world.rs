//! A workspace, a store, and what is in a directory as text.

use ax_core::id::Namespace;
use ax_store::{Blob, Blobs};
use ax_workspace::{Options, Place, Restored, Snapshot, SnapshotError, restore, snapshot};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Workspaces beside each other, and a store.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) blobs: Blobs,
    pub(crate) options: Options,
}

impl World {
    pub(crate) fn new() -> Self {
        let options = Options { skip: vec![b".ax/blobs".to_vec()], ..Options::default() };
        Self { dir: tempfile::tempdir().unwrap(), blobs: Blobs::memory(), options }
    }

    pub(crate) fn place(&self, name: &str) -> Place {
        let dir = self.dir.path().join(name);
        fs::create_dir_all(&dir).unwrap();
        Place { dir, beside: self.dir.path().join(format!("{name}.state")) }
    }

    pub(crate) async fn save(&self, name: &str, previous: Option<Blob>) -> Snapshot {
        self.try_save(name, previous).await.unwrap()
    }

    pub(crate) async fn try_save(
        &self,
        name: &str,
        previous: Option<Blob>,
    ) -> Result<Snapshot, SnapshotError> {
        let (namespace, place) = (Namespace::default(), self.place(name));
        snapshot(&self.blobs, &namespace, &place, previous, &self.options).await
    }

    pub(crate) async fn restore(&self, name: &str, snapshot: &Snapshot) -> Restored {
        let (namespace, place) = (Namespace::default(), self.place(name));
        let id = snapshot.root.id;
        restore(&self.blobs, &namespace, &place, &id, &self.options).await.unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Waits until the clock of the file system has moved on, so that what was written is old.
pub(crate) fn age(world: &World) {
    use std::os::unix::fs::MetadataExt as _;
    let (first, second) = (world.path("clock-a"), world.path("clock-b"));
    fs::write(&first, "").unwrap();
    let time = |path: &Path| {
        let about = fs::metadata(path).unwrap();
        (about.ctime(), about.ctime_nsec())
    };
    loop {
        fs::write(&second, "x").unwrap();
        if time(&second) > time(&first) {
            return;
        }
    }
}

/// Returns everything in a directory: kind, permissions, time and content by path.
pub(crate) fn view(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut seen = BTreeMap::new();
    look(root, b"", &mut seen);
    seen
}

fn look(dir: &Path, path: &[u8], seen: &mut BTreeMap<Vec<u8>, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let mut at = path.to_vec();
        at.push(b'/');
        at.extend_from_slice(entry.file_name().as_bytes());
        let about = fs::symlink_metadata(entry.path()).unwrap();
        let time = about.modified().unwrap();
        let mode = about.permissions().mode() & 0o7777;
        let what = if about.is_symlink() {
            let target = fs::read_link(entry.path()).unwrap();
            format!("link {} {time:?}", target.as_os_str().as_bytes().escape_ascii())
        } else if about.is_dir() {
            look(&entry.path(), &at, seen);
            format!("dir {mode:o} {time:?}")
        } else {
            let content = fs::read(entry.path()).unwrap();
            format!("file {mode:o} {time:?} {}", blake3::hash(&content))
        };
        seen.insert(at, what);
    }
}

/// Bytes that no compression makes shorter.
pub(crate) fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

pub(crate) fn name(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}
