//! Finds out what is in a data directory, past what is damaged.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ax_core::id::{Namespace, SessionId, SessionKey};
use bytes::Bytes;

use super::{Finding, Harm, segments};
use crate::embedded::cache::BlockCache;
use crate::embedded::disk::PAGE_BYTES;
use crate::embedded::format::{BlockHeader, Record, SessionRef, SessionState};
use crate::embedded::manifest::{Manifest, RunEntry};
use crate::embedded::run::{self, Run, Section, WalkMerged};
use crate::embedded::segment;
use crate::embedded::{OpenError, Options, io_error};
use crate::types::LogFault;

/// What the segments that no run covers have of a session.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pub(super) state: Option<SessionState>,
    pub(super) entries: BTreeMap<u64, Bytes>,
    pub(super) snapshots: BTreeMap<u64, Bytes>,
}

/// What is in a data directory.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) store: u64,
    pub(super) generation: u64,
    /// The generation of the newest block that was taken up.
    pub(super) block_generation: u64,
    pub(super) run_next: u64,
    pub(super) segment_next: u64,
    pub(super) block_next: u64,
    pub(super) cache: Arc<BlockCache>,
    /// Oldest first.
    pub(super) runs: Vec<Arc<Run>>,
    pub(super) tails: BTreeMap<SessionRef, Tail>,
    pub(super) names: BTreeMap<u32, Namespace>,
    /// Every file of the store.
    pub(super) files: Vec<String>,
    pub(super) findings: Vec<Finding>,
}

impl Contents {
    /// Returns a session as it is named outside, as far as the name of its namespace is known.
    pub(super) fn key(&self, of: SessionRef) -> SessionKey {
        SessionKey::new(self.name(of.namespace), SessionId(of.session))
    }

    pub(super) fn name(&self, namespace: u32) -> Namespace {
        let lost = || Namespace::new(&format!("lost-{namespace}")).expect("it is a DNS label");
        self.names.get(&namespace).cloned().unwrap_or_else(lost)
    }

    /// Takes up the names of namespaces that runs have.
    pub(super) fn learn_names(&mut self, runs: &[Arc<Run>]) {
        let mut walk = WalkMerged::new(runs, Section::Namespaces);
        while let Some(record) = walk.next() {
            learn_name(self, &record);
        }
    }

    pub(super) fn manifest(&self, run: RunEntry) -> Manifest {
        Manifest {
            store: self.store,
            generation: self.generation + 1,
            replay_segment: run.segment_last + 1,
            replay_block: self.block_next,
            segment_begun: 0,
            run_next: run.id + 1,
            runs: vec![run],
            namespaces: self.names.clone(),
        }
    }

    pub(super) fn damage(&mut self, path: &Path, offset: u64, what: &str, consequence: &str) {
        self.find(path, offset, what, consequence, Harm::Damage);
    }

    pub(super) fn find(
        &mut self,
        path: &Path,
        offset: u64,
        what: &str,
        consequence: &str,
        harm: Harm,
    ) {
        let (path, what) = (path.to_owned(), what.to_owned());
        let consequence = consequence.to_owned();
        self.findings.push(Finding { path, offset, what, consequence, harm });
    }

    pub(super) fn fault(&mut self, fault: &LogFault) {
        let consequence = "entries or the newest states of the sessions in it cannot be read";
        match fault {
            LogFault::Damaged { path, offset, what } => {
                self.damage(Path::new(&**path), *offset, what, consequence);
            }
            LogFault::Read { path, source } => {
                self.damage(Path::new(&**path), 0, &source.to_string(), consequence);
            }
            other => self.damage(Path::new(""), 0, &other.to_string(), consequence),
        }
    }
}

/// Reads what there is to know before sessions are looked at one by one.
pub(super) fn gather(options: &Options) -> Result<Contents, OpenError> {
    let disk = &*options.disk;
    let names = disk.list(&options.dir);
    let names = names.map_err(|error| io_error("listing", &options.dir, error))?;
    let ours = |name: &&String| {
        let data = run::id_of(name).is_some() || segment::number_of(name).is_some();
        data || name.starts_with("MANIFEST")
    };
    let mut contents = Contents {
        store: 0,
        generation: 0,
        block_generation: 0,
        run_next: 1,
        segment_next: 1,
        block_next: 1,
        cache: Arc::new(BlockCache::new(options.limits.index_cache_bytes_max)),
        runs: Vec::new(),
        tails: BTreeMap::new(),
        names: BTreeMap::new(),
        files: names.iter().filter(ours).cloned().collect(),
        findings: Vec::new(),
    };
    if contents.files.is_empty() {
        return Ok(contents);
    }
    let manifest = manifest(options, &mut contents)?;
    for entry in &manifest.runs {
        open_run(options, &mut contents, *entry)?;
    }
    for section in Section::ALL {
        for run in contents.runs.clone() {
            if let Err(fault) = run.check_index(section) {
                contents.fault(&fault);
            }
        }
    }
    let runs = contents.runs.clone();
    contents.learn_names(&runs);
    segments::gather(options, &mut contents, &manifest)?;
    Ok(contents)
}

/// Returns the manifest, or one that is made up from the files where it is lost.
fn manifest(options: &Options, contents: &mut Contents) -> Result<Manifest, OpenError> {
    let path = Manifest::path(&options.dir);
    let manifest = match Manifest::read(&*options.disk, &options.dir) {
        Ok(Some(manifest)) => manifest,
        Ok(None) => {
            let consequence = "the store does not open";
            contents.damage(&path, 0, "the manifest is missing", consequence);
            guess(options, contents)
        }
        Err(OpenError::Damaged { offset, what, .. }) => {
            contents.damage(&path, offset, &what, "the store does not open");
            guess(options, contents)
        }
        Err(other) => return Err(other),
    };
    contents.store = manifest.store;
    contents.generation = contents.generation.max(manifest.generation);
    contents.run_next = manifest.run_next;
    for name in &contents.files {
        if let Some(id) = run::id_of(name) {
            contents.run_next = contents.run_next.max(id + 1);
        }
    }
    contents.names.clone_from(&manifest.namespaces);
    contents.block_next = manifest.replay_block;
    contents.segment_next = manifest.replay_segment;
    Ok(manifest)
}

/// Makes up a manifest: the runs that are not part of a larger one, and the segments after them.
fn guess(options: &Options, contents: &mut Contents) -> Manifest {
    let disk = &*options.disk;
    let mut manifest = Manifest::new(0);
    let mut found = Vec::new();
    for name in &contents.files {
        let path = options.dir.join(name);
        let store = if run::id_of(name).is_some() {
            run::store_of(disk, &path)
        } else {
            segment_store(options, &path)
        };
        manifest.store = store.unwrap_or(manifest.store);
    }
    for name in &contents.files {
        let Some(id) = run::id_of(name) else { continue };
        let path = run::path(&options.dir, id);
        if let Ok(run) = Run::open(disk, path, manifest.store, &contents.cache) {
            contents.generation = contents.generation.max(run.generation);
            found.push((run.entry, run.block_next));
        }
    }
    let covers = |large: &RunEntry, small: &RunEntry| {
        let (first, last) = (large.segment_first, large.segment_last);
        let inside = first <= small.segment_first && small.segment_last <= last;
        inside && (last - first > small.segment_last - small.segment_first || large.id > small.id)
    };
    let entries: Vec<_> = found.iter().map(|(entry, _)| *entry).collect();
    found.retain(|(small, _)| !entries.iter().any(|large| covers(large, small)));
    found.sort_by_key(|(entry, _)| entry.segment_first);
    if let Some((newest, block_next)) = found.last() {
        manifest.replay_segment = newest.segment_last + 1;
        manifest.replay_block = *block_next;
    }
    manifest.runs = found.into_iter().map(|(entry, _)| entry).collect();
    manifest
}

fn segment_store(options: &Options, path: &Path) -> Option<u64> {
    let file = options.disk.open(path).ok()?;
    let mut header = [0; PAGE_BYTES];
    file.read_at(&mut header, 0).ok()?;
    BlockHeader::store_of(&header)
}

fn open_run(options: &Options, contents: &mut Contents, entry: RunEntry) -> Result<(), OpenError> {
    let (disk, store) = (&*options.disk, contents.store);
    let path = run::path(&options.dir, entry.id);
    let consequence = "the store does not open";
    let run = match Run::open(disk, path.clone(), store, &contents.cache) {
        Ok(run) if run.entry == entry => run,
        Ok(_) => {
            contents.damage(&path, 0, "it is not the run that the manifest names", consequence);
            return Ok(());
        }
        Err(OpenError::Damaged { offset, what, .. }) => {
            contents.damage(&path, offset, &what, consequence);
            Run::without_footer(disk, path, entry, store, &contents.cache)?
        }
        Err(OpenError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            contents.damage(&path, 0, "the run is missing", consequence);
            return Ok(());
        }
        Err(other) => return Err(other),
    };
    contents.runs.push(Arc::new(run));
    Ok(())
}

pub(super) fn learn_name(contents: &mut Contents, record: &Record) {
    let name = std::str::from_utf8(&record.payload).ok();
    if let Some(name) = name.and_then(|name| Namespace::new(name).ok()) {
        contents.names.entry(record.key.of.namespace).or_insert(name);
    }
}
