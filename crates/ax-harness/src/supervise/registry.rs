//! Which supervisors run, on disk, for a later life of the runtime.
//!
//! One file per supervisor in the run directory. Its name is the token that is in the environment
//! of everything under that supervisor; its content is the process id of the supervisor and when
//! it started, separated by a space, or nothing if the runtime died before it knew. The runtime
//! that started it removes it when everything is gone; a later one does so in
//! [`Registry::reap_orphans`].

use super::tree::{self, Process};
use rustix::process::Signal;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a supervisor of an earlier life has to end by itself before it is killed.
const SUPERVISOR_GRACE: Duration = Duration::from_secs(5);
/// How long to wait between two looks at what is left.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// The run directory.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    dir: PathBuf,
}

/// A supervisor's entry; names what belongs to it.
#[derive(Debug)]
pub(super) struct Entry {
    path: PathBuf,
    /// The token in the environment of everything under the supervisor.
    pub(super) token: String,
}

impl Registry {
    /// Uses this directory.
    pub(crate) const fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Makes an entry for a supervisor that is about to be started.
    pub(super) fn enter(&self) -> io::Result<Entry> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(&self.dir)?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let token = format!("{}{count}", own_prefix());
        let path = self.dir.join(&token);
        fs::write(&path, "")?;
        Ok(Entry { path, token })
    }

    /// Ends everything that supervisors of earlier lives have left, and waits until it is gone.
    /// Blocks.
    pub(crate) fn reap_orphans(&self) {
        let Ok(files) = fs::read_dir(&self.dir) else { return };
        let own = own_prefix();
        // A link is where the sockets of gateways are.
        let is_entry = |file: &fs::DirEntry| file.file_type().is_ok_and(|kind| kind.is_file());
        for path in files.filter_map(Result::ok).filter(is_entry).map(|file| file.path()) {
            let Some(token) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if token.starts_with(&own) {
                continue;
            }
            let supervisor = fs::read_to_string(&path).ok().and_then(|text| registered(&text));
            end(supervisor, token);
            let _next_life_tries_again = fs::remove_file(&path);
        }
    }
}

impl Entry {
    /// Adds which process the supervisor is.
    pub(super) fn started(&self, pid: u32) -> io::Result<()> {
        let process = i32::try_from(pid).ok().and_then(Process::find);
        // One that has ended already needs no entry.
        process.map_or(Ok(()), |process| {
            fs::write(&self.path, format!("{} {}\n", process.pid, process.started))
        })
    }

    /// Kills what a supervisor left that died before its work was done. Blocks.
    pub(super) fn sweep(&self) {
        end(None, &self.token);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let _reaped_at_next_start = fs::remove_file(&self.path);
    }
}

/// What all tokens of this life begin with; no other life's do, on this boot of the machine.
fn own_prefix() -> String {
    let pid = std::process::id();
    let started = i32::try_from(pid).ok().and_then(Process::find).map_or(0, |own| own.started);
    format!("{pid}-{started}-")
}

/// Returns the registered supervisor if it still runs.
fn registered(text: &str) -> Option<Process> {
    let (pid, started) = text.trim().split_once(' ')?;
    let process = Process::find(pid.parse().ok()?)?;
    (process.started == started.parse::<u64>().ok()?).then_some(process)
}

/// Kills everything under a supervisor and what has the token, until nothing is left. The
/// supervisor is let live for a while: it inherits what its descendants leave.
fn end(supervisor: Option<Process>, token: &str) {
    let begun_at = Instant::now();
    loop {
        let supervisor = supervisor.filter(|then| Process::find(then.pid) == Some(*then));
        let mut rest = tree::with_token(token);
        if let Some(supervisor) = supervisor {
            rest.extend(tree::descendants(supervisor.pid));
            if begun_at.elapsed() < SUPERVISOR_GRACE {
                rest.retain(|process| process.pid != supervisor.pid);
            } else {
                rest.push(supervisor);
            }
        }
        if rest.is_empty() && supervisor.is_none() {
            return;
        }
        rest.iter().for_each(|process| process.signal(Signal::KILL));
        std::thread::sleep(LOOK_PAUSE);
    }
}
