//! The file that says what belongs to the store: which runs, and where replay begins.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use ax_core::id::Namespace;

use super::disk::Disk;
use super::format::{Reader, VERSION, u32_of};
use super::{OpenError, io_error};

const MAGIC: [u8; 4] = *b"AXMF";
const NAME: &str = "MANIFEST";
const NAME_NEW: &str = "MANIFEST.new";

/// What belongs to the store. Replaced as a whole, atomically, whenever it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Drawn when the store was made; every checksum begins with it.
    pub(super) store: u64,
    /// How often the store was opened.
    pub(super) generation: u64,
    /// The first segment that no run covers.
    pub(super) replay_segment: u64,
    /// The number of that segment's first block.
    pub(super) replay_block: u64,
    /// The newest segment that is known to have a block; 0 if none is.
    pub(super) segment_begun: u64,
    /// The number of the next run.
    pub(super) run_next: u64,
    /// The runs, oldest first.
    pub(super) runs: Vec<RunEntry>,
    /// The names of the namespaces by their numbers.
    pub(super) namespaces: BTreeMap<u32, Namespace>,
}

/// One run of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunEntry {
    pub(super) id: u64,
    pub(super) bytes: u64,
    /// The segments that it covers.
    pub(super) segment_first: u64,
    pub(super) segment_last: u64,
}

impl Manifest {
    pub(super) const fn new(store: u64) -> Self {
        Self {
            store,
            generation: 0,
            replay_segment: 1,
            replay_block: 1,
            segment_begun: 0,
            run_next: 1,
            runs: Vec::new(),
            namespaces: BTreeMap::new(),
        }
    }

    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join(NAME)
    }

    /// Reads the manifest of a data directory; `None` if it has none.
    pub(super) fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, OpenError> {
        let path = Self::path(dir);
        let file = match disk.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("opening", &path, error)),
        };
        let bytes = file.bytes().map_err(|error| io_error("reading", &path, error))?;
        let mut content = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX).min(1 << 30)];
        file.read_at(&mut content, 0).map_err(|error| io_error("reading", &path, error))?;
        let whole = content.split_last_chunk::<4>().filter(|(body, crc)| {
            crc32c::crc32c(body).to_le_bytes() == **crc && body.starts_with(&MAGIC)
        });
        let damaged = |what: &str| OpenError::Damaged {
            path: path.display().to_string().into(),
            offset: 0,
            what: what.into(),
        };
        let (body, _) = whole.ok_or_else(|| damaged("its checksum is wrong"))?;
        let mut reader = Reader::new(&body[4..]);
        let version = reader.u16().ok_or_else(|| damaged("it is too short"))?;
        if version != VERSION {
            return Err(OpenError::Version { path, found: version, known: VERSION });
        }
        Self::decode(&mut reader).map(Some).ok_or_else(|| damaged("it is malformed"))
    }

    /// Replaces the manifest of a data directory, durably. All files that it names are durable.
    ///
    /// If the error says that the disk is full, the manifest is as it was.
    pub(super) fn write(&self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        self.replace(disk, dir)?;
        disk.sync_dir(dir).map_err(io::Error::other)
    }

    /// Replaces the manifest of a data directory; which of the two has the name after a loss of
    /// power is not known before the directory is synced.
    pub(super) fn replace(&self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        let new = dir.join(NAME_NEW);
        let file = disk.create(&new)?;
        file.write_at(&self.encode(), 0)?;
        file.sync()?;
        disk.rename(&new, &Self::path(dir))
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend([0, 0]);
        let replay = [self.replay_segment, self.replay_block, self.segment_begun];
        for field in [[self.store, self.generation].as_slice(), &replay, &[self.run_next]].concat()
        {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(u32_of(self.runs.len()).to_le_bytes());
        bytes.extend(u32_of(self.namespaces.len()).to_le_bytes());
        for run in &self.runs {
            for field in [run.id, run.bytes, run.segment_first, run.segment_last] {
                bytes.extend(field.to_le_bytes());
            }
        }
        for (id, name) in &self.namespaces {
            bytes.extend(id.to_le_bytes());
            bytes.extend(u32_of(name.as_str().len()).to_le_bytes());
            bytes.extend(name.as_str().as_bytes());
        }
        let crc = crc32c::crc32c(&bytes);
        bytes.extend(crc.to_le_bytes());
        bytes
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let _reserved = reader.u16()?;
        let mut manifest = Self {
            store: reader.u64()?,
            generation: reader.u64()?,
            replay_segment: reader.u64()?,
            replay_block: reader.u64()?,
            segment_begun: reader.u64()?,
            run_next: reader.u64()?,
            runs: Vec::new(),
            namespaces: BTreeMap::new(),
        };
        let (runs, namespaces) = (reader.u32()?, reader.u32()?);
        for _ in 0..runs {
            manifest.runs.push(RunEntry {
                id: reader.u64()?,
                bytes: reader.u64()?,
                segment_first: reader.u64()?,
                segment_last: reader.u64()?,
            });
        }
        for _ in 0..namespaces {
            let id = reader.u32()?;
            let length = reader.u32()? as usize;
            let name = std::str::from_utf8(reader.take(length)?).ok()?;
            manifest.namespaces.insert(id, Namespace::new(name).ok()?);
        }
        reader.rest.is_empty().then_some(manifest)
    }
}
