//! Checks a data directory, and repairs one that no longer opens.
//!
//! A check reads everything and changes nothing. A repair writes what can be read into one new run
//! and moves every file that was there into a directory beside it; it deletes nothing. What a
//! session has behind a gap is not in the repaired log, because positions have no gaps: it stays in
//! the files that were moved, and the report says which positions that are.

mod gather;
mod salvage;
mod segments;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ax_core::id::{Seq, SessionKey};

use super::disk::{Disk, LockError, make_dir};
use super::run::{self, Covers, Run, RunWriter};
use super::{Held, OpenError, Options, io_error};
use gather::Contents;
use salvage::Salvage;

/// While a file of this name is there no log opens the directory: a repair is under way.
const MARKER_NAME: &str = "REPAIR";
/// Where a repair puts the old files.
const QUARANTINE_NAME: &str = "quarantine";

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
    /// What it means for whoever uses the store.
    pub consequence: String,
    /// Whether the store needs a repair because of it.
    pub harm: Harm,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// Nothing acknowledged is lost, and the store opens.
    None,
    /// Something that was acknowledged cannot be read, or the store does not open.
    Damage,
}

/// Positions of a session that cannot be read, or that a repair cannot keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The session.
    pub session: SessionKey,
    /// The first position.
    pub first: Seq,
    /// The last that the session is known to have had.
    pub last: Seq,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Everything that was found, in the order of the files.
    pub findings: Vec<Finding>,
    /// What is lost, by session.
    pub lost: Vec<Lost>,
    /// How many sessions can be read.
    pub sessions: u64,
    /// How many entries can be read.
    pub entries: u64,
}

impl Report {
    /// Whether the store needs no repair.
    pub fn is_sound(&self) -> bool {
        self.findings.iter().all(|finding| finding.harm == Harm::None)
    }
}

/// What a repair did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// What was found before.
    pub report: Report,
    /// Where the files went that were there before; `None` if nothing needed a repair.
    pub quarantine: Option<PathBuf>,
}

/// Checks a data directory that no process has open.
///
/// # Errors
///
/// Returns an [`OpenError`] if the directory is in use, cannot be read, or is of another version.
pub fn check(options: &Options) -> Result<Report, OpenError> {
    let _held = lock(options)?;
    refuse_half_repaired(&*options.disk, &options.dir)?;
    Ok(examine(options)?.2)
}

/// Checks a data directory, and repairs it if it needs that.
///
/// # Errors
///
/// Returns an [`OpenError`] if the directory is in use, cannot be read or written, or is of another
/// version. A repair that was cut short is made again by the next one.
pub fn repair(options: &Options) -> Result<Repaired, OpenError> {
    let _held = lock(options)?;
    let failed = |error| io_error("repairing", &options.dir, error);
    let quarantine = options.dir.join(QUARANTINE_NAME);
    undo(options, &quarantine).map_err(failed)?;
    let (mut contents, salvage, report) = examine(options)?;
    let disk = &*options.disk;
    let marker = options.dir.join(MARKER_NAME);
    if report.is_sound() {
        // A repair may have been cut short when it was all but done.
        if disk.open(&marker).is_ok() {
            disk.remove(&marker).map_err(failed)?;
            disk.sync_dir(&options.dir).map_err(failed)?;
        }
        return Ok(Repaired { report, quarantine: None });
    }
    disk.create(&marker).and_then(|file| file.sync()).map_err(failed)?;
    disk.sync_dir(&options.dir).map_err(failed)?;
    let run = Arc::new(write(options, &contents, &salvage)?);
    // It also has the names that stand in for those that are lost.
    contents.learn_names(&[Arc::clone(&run)]);
    make_dir(disk, &quarantine).map_err(failed)?;
    for name in &contents.files {
        disk.rename(&options.dir.join(name), &quarantine.join(name)).map_err(failed)?;
    }
    disk.sync_dir(&quarantine).map_err(failed)?;
    contents.manifest(run.entry).write(disk, &options.dir).map_err(failed)?;
    // The old files get a name that the next repair does not take for one of its own.
    let name = format!("{QUARANTINE_NAME}-{:06}", contents.generation + 1);
    let kept = options.dir.join(name);
    disk.rename(&quarantine, &kept).map_err(failed)?;
    disk.remove(&marker).map_err(failed)?;
    disk.sync_dir(&options.dir).map_err(failed)?;
    Ok(Repaired { report, quarantine: Some(kept) })
}

/// Says so if a repair was cut short: what is there then is half old and half new.
pub(super) fn refuse_half_repaired(disk: &dyn Disk, dir: &Path) -> Result<(), OpenError> {
    let marker = dir.join(MARKER_NAME);
    match disk.open(&marker) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("opening", &marker, error)),
        Ok(_) => Err(OpenError::Damaged {
            path: marker.display().to_string().into(),
            offset: 0,
            what: "a repair was cut short and has to be made again".into(),
        }),
    }
}

/// Puts the files back that a repair that was cut short had moved.
fn undo(options: &Options, quarantine: &Path) -> std::io::Result<()> {
    let disk = &*options.disk;
    if disk.open(&options.dir.join(MARKER_NAME)).is_err() {
        return Ok(());
    }
    make_dir(disk, quarantine)?;
    for name in disk.list(quarantine)? {
        disk.rename(&quarantine.join(&name), &options.dir.join(&name))?;
    }
    disk.sync_dir(&options.dir)
}

fn lock(options: &Options) -> Result<Box<dyn Held>, OpenError> {
    let path = options.dir.join("LOCK");
    let holder = format!("process {} (a check of the store)", std::process::id());
    options.disk.lock(&path, &holder).map_err(|error| match error {
        LockError::Held { holder } => OpenError::Locked { dir: options.dir.clone(), holder },
        LockError::Io(error) => io_error("locking", &path, error),
    })
}

fn examine(options: &Options) -> Result<(Contents, Salvage, Report), OpenError> {
    let mut contents = gather::gather(options)?;
    let salvage = salvage::examine(&mut contents);
    let mut findings = std::mem::take(&mut contents.findings);
    // The same block may have been met more than once.
    let mut seen = std::collections::BTreeSet::new();
    findings.retain(|finding| seen.insert((finding.path.clone(), finding.offset)));
    if findings.is_empty() && !salvage.lost.is_empty() {
        findings.push(Finding {
            path: options.dir.clone(),
            offset: 0,
            what: "entries of a session are missing, and no file says why".to_owned(),
            consequence: "what the session has behind them cannot be read".to_owned(),
            harm: Harm::Damage,
        });
    }
    let lost = salvage.lost.iter().map(|(of, first, last)| Lost {
        session: contents.key(*of),
        first: Seq(*first),
        last: Seq(*last),
    });
    let report = Report {
        lost: lost.collect(),
        findings,
        sessions: salvage.sessions,
        entries: salvage.entries,
    };
    Ok((contents, salvage, report))
}

/// Writes what can be kept as one run.
fn write(options: &Options, contents: &Contents, salvage: &Salvage) -> Result<Run, OpenError> {
    let disk = &*options.disk;
    let id = contents.run_next;
    let path = run::path(&options.dir, id);
    let failed = |error| io_error("writing", &path, error);
    let block_bytes = options.limits.run_block_bytes;
    let writer = RunWriter::create(disk, &path, (contents.store, id), block_bytes);
    let mut writer = writer.map_err(failed)?;
    salvage::write(contents, salvage, &mut writer).map_err(failed)?;
    let covers = Covers {
        segment_first: 1,
        segment_last: contents.segment_next.saturating_sub(1).max(1),
        block_next: contents.block_next,
        generation: contents.generation,
    };
    writer.finish(covers).map_err(failed)?;
    disk.sync_dir(&options.dir).map_err(failed)?;
    Run::open(disk, path, contents.store, &contents.cache)
}
