//! Which sandboxes there are, on disk, and which user ids they have.
//!
//! One file per sandbox in the run directory, named after its number. Whoever runs the sandbox
//! holds a lock on it (flock(2)): first the runtime, then the launcher and pid 1, which inherit
//! it. The kernel lets go of the lock when the last of them is dead, however it died. So a lock
//! that can be had means that nothing of that sandbox runs any more, and its number and ids may be
//! used again. The content is `PID STARTED PID STARTED`: the runtime and the launcher, with the
//! time at which each started (proc(5)), so that another process with the same id is not mistaken.

use crate::cgroup;
use crate::order::Ids;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Seek, Write};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a launcher has to end by itself after its runtime died.
const LAUNCHER_GRACE: Duration = Duration::from_secs(5);
/// How long to wait for the lock of something that was killed.
const KILLED_GRACE: Duration = Duration::from_secs(10);
/// How long to wait between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// The run directory.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    dir: PathBuf,
    ids: Range<u32>,
}

/// A sandbox's entry.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    /// The name of this sandbox's control groups.
    pub(crate) name: String,
    /// The user ids that belong to it.
    pub(crate) ids: Ids,
}

impl Registry {
    /// Uses this directory, and these user ids: two for each sandbox.
    pub(crate) const fn new(dir: PathBuf, ids: Range<u32>) -> Self {
        Self { dir, ids }
    }

    /// Makes an entry with ids that no living sandbox of this directory has.
    pub(crate) fn enter(&self) -> io::Result<Entry> {
        fs::create_dir_all(&self.dir)?;
        for number in 0..self.ids.end.saturating_sub(self.ids.start) / 2 {
            if let Some(entry) = self.take(number)? {
                entry.write(&own())?;
                return Ok(entry);
            }
        }
        Err(io::Error::other("all user ids of the range are in use"))
    }

    /// Takes an entry if nobody has it.
    fn take(&self, number: u32) -> io::Result<Option<Entry>> {
        let path = self.dir.join(number.to_string());
        loop {
            let options =
                File::options().read(true).write(true).create(true).truncate(false).clone();
            let file = options.open(&path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            // Somebody may have removed it between the opening and the lock.
            let same = fs::metadata(&path)
                .is_ok_and(|now| file.metadata().is_ok_and(|mine| mine.ino() == now.ino()));
            if same {
                let init = self.ids.start + 2 * number;
                let ids = Ids { init, user: init + 1 };
                return Ok(Some(Entry { file, name: name(&self.dir, number), path, ids }));
            }
        }
    }

    /// Ends what earlier lives have left, waits until it is gone, and returns how many there
    /// were. What a living runtime owns is left alone. Blocks.
    pub(crate) fn reap(&self) -> usize {
        let Ok(files) = fs::read_dir(&self.dir) else { return 0 };
        let numbers = files.filter_map(|file| file.ok()?.file_name().to_str()?.parse().ok());
        numbers.filter(|&number| self.reap_one(number)).count()
    }

    fn reap_one(&self, number: u32) -> bool {
        let path = self.dir.join(number.to_string());
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut processes = text.split_ascii_whitespace();
        let owner = Process::parse(&mut processes);
        let launcher = Process::parse(&mut processes);
        if owner.is_some_and(|owner| owner.runs()) {
            return false;
        }
        let entry = self.wait_for(number, LAUNCHER_GRACE).or_else(|| {
            launcher?.kill();
            self.wait_for(number, KILLED_GRACE)
        });
        entry.is_some_and(|entry| {
            entry.remove();
            true
        })
    }

    /// Removes an entry whose launcher has died, and what it left. Blocks.
    pub(crate) fn sweep(&self, entry: &Path) {
        let number = entry.file_name().and_then(|name| name.to_str()?.parse().ok());
        if let Some(entry) = number.and_then(|number| self.wait_for(number, KILLED_GRACE)) {
            entry.remove();
        }
    }

    fn wait_for(&self, number: u32, time: Duration) -> Option<Entry> {
        let begun_at = Instant::now();
        loop {
            if let Ok(Some(entry)) = self.take(number) {
                return Some(entry);
            }
            if begun_at.elapsed() > time {
                return None;
            }
            std::thread::sleep(LOOK_PAUSE);
        }
    }
}

impl Entry {
    /// Adds which process the launcher is.
    pub(crate) fn started(&self, launcher: u32) -> io::Result<()> {
        let launcher = Process::find(launcher).map(|launcher| launcher.to_string());
        self.write(&format!("{} {}", own(), launcher.unwrap_or_default()))
    }

    fn write(&self, text: &str) -> io::Result<()> {
        (&self.file).rewind()?;
        (&self.file).write_all(text.as_bytes())?;
        self.file.set_len(text.len() as u64)
    }

    /// Removes the entry and what may be left of its sandbox. Its lock must be held, and nothing
    /// of the sandbox may run.
    pub(crate) fn remove(self) {
        cgroup::remove_all(&self.name);
        let _reaped_at_next_start = fs::remove_file(&self.path);
    }
}

/// Returns what a sandbox is called: unlike any of another data directory.
fn name(dir: &Path, number: u32) -> String {
    format!("{}{number}", prefix_of(dir))
}

/// Returns what the names of a run directory's sandboxes begin with, and those of their control
/// groups.
pub fn prefix_of(run_dir: &Path) -> String {
    format!("ax-{:016x}-", hash(run_dir))
}

/// Returns a number that hardly any other directory of the machine has.
pub(crate) fn hash(dir: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    // It may not be there yet.
    let real = dir.parent().and_then(|parent| fs::canonicalize(parent).ok());
    real.unwrap_or_default().hash(&mut hasher);
    dir.file_name().hash(&mut hasher);
    hasher.finish()
}

/// A process: its id, and when it started, in clock ticks since the machine did.
#[derive(Clone, Copy, Debug)]
struct Process {
    pid: u32,
    started: u64,
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.pid, self.started)
    }
}

impl Process {
    fn find(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name is in parentheses and may contain anything, parentheses included.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        if matches!(fields.next()?, "Z" | "X" | "x") {
            return None;
        }
        Some(Self { pid, started: fields.nth(18)?.parse().ok()? })
    }

    fn parse<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Self> {
        Some(Self { pid: words.next()?.parse().ok()?, started: words.next()?.parse().ok()? })
    }

    fn runs(self) -> bool {
        Self::find(self.pid).is_some_and(|now| now.started == self.started)
    }

    fn kill(self) {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return };
        // What holds now holds for as long as the descriptor is open.
        let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        if self.runs() {
            let _gone_already = pidfd_send_signal(descriptor, Signal::KILL);
        }
    }
}

fn own() -> String {
    Process::find(std::process::id()).map_or_else(String::new, |own| own.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_living_sandboxes_have_an_id_in_common() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::new(dir.path().to_path_buf(), 5000..5004);
        let first = registry.enter().unwrap();
        let second = registry.enter().unwrap();
        assert_eq!(first.ids, Ids { init: 5000, user: 5001 });
        assert_eq!(second.ids, Ids { init: 5002, user: 5003 });
        assert!(registry.enter().is_err());
        first.remove();
        assert_eq!(registry.enter().unwrap().ids, Ids { init: 5000, user: 5001 });
    }

    #[test]
    fn what_a_living_runtime_owns_is_not_reaped() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::new(dir.path().to_path_buf(), 5000..5004);
        let entry = registry.enter().unwrap();
        assert_eq!(registry.reap(), 0);
        // An entry of a life that is over, as its content says.
        entry.write("1 18446744073709551615").unwrap();
        drop(entry);
        assert_eq!(registry.reap(), 1);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
