//! Processes and their descendants, as `/proc` shows them.

use super::TOKEN_VARIABLE;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use std::fs;

/// A process: its id, and when it started, so that another one with the same id is not mistaken
/// for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    /// The process id.
    pub(super) pid: i32,
    /// The process id of its parent.
    pub(super) parent: i32,
    /// When it started, in clock ticks since the machine did (proc(5), field 22 of `stat`).
    pub(super) started: u64,
}

impl Process {
    /// Reads a process; `None` if there is none, or only its remains.
    pub(super) fn find(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name is in parentheses and may contain anything, parentheses included.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?;
        if matches!(state, "Z" | "X" | "x") {
            return None;
        }
        let parent = fields.next()?.parse().ok()?;
        let started = fields.nth(17)?.parse().ok()?;
        Some(Self { pid, parent, started })
    }

    /// Sends a signal to exactly this process; does nothing if it is gone.
    pub(super) fn signal(&self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        match pidfd_open(pid, PidfdFlags::empty()) {
            // What holds now holds for as long as the descriptor is open.
            Ok(fd) if Self::find(self.pid).is_some_and(|now| now.started == self.started) => {
                let _gone_already = pidfd_send_signal(fd, signal);
            }
            Err(Errno::NOSYS | Errno::PERM) => {
                let _gone_already = kill_process(pid, signal);
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// Returns whether its environment has this token.
    fn has_token(&self, token: &str) -> bool {
        let wanted = format!("{TOKEN_VARIABLE}={token}");
        fs::read(format!("/proc/{}/environ", self.pid)).is_ok_and(|environment| {
            environment.split(|&byte| byte == 0).any(|entry| entry == wanted.as_bytes())
        })
    }
}

/// Returns every process of the machine that can be seen.
fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(Process::find).collect()
}

/// Returns every descendant of a process, parents before children.
pub(super) fn descendants(root: i32) -> Vec<Process> {
    let mut rest = all();
    let mut found = Vec::new();
    let mut parents = vec![root];
    while !parents.is_empty() {
        let (children, others): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|process| parents.contains(&process.parent));
        parents = children.iter().map(|child| child.pid).collect();
        found.extend(children);
        rest = others;
    }
    found
}

/// Returns every process whose environment has this token.
pub(super) fn with_token(token: &str) -> Vec<Process> {
    all().into_iter().filter(|process| process.has_token(token)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_finds_itself_and_its_parent() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let own = Process::find(pid).unwrap();
        assert_eq!(own.pid, pid);
        assert!(descendants(own.parent).contains(&own));
    }

    #[test]
    fn a_process_that_is_not_there_is_not_found() {
        assert_eq!(Process::find(i32::MAX), None);
        assert!(with_token("no such token").is_empty());
    }
}
