//! Where and when something was measured.

use crate::command::Program;
use crate::tree;
use anyhow::Result;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// What a result is only valid together with.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    memory_gib: u64,
    kernel: String,
    filesystem: String,
}

impl Machine {
    /// Describes the machine this runs on, and the file system of a directory.
    pub(crate) fn of(dir: &Path) -> Self {
        let cpuinfo = text("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let cpu = model.and_then(|rest| rest.split_once(':')).map_or("unknown", |(_, name)| name);
        let meminfo = text("/proc/meminfo");
        let memory = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kib = memory.and_then(|rest| rest.split_whitespace().next()).unwrap_or("0");
        Self {
            cpu: cpu.trim().to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib.parse::<u64>().unwrap_or(0).div_ceil(1024 * 1024),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            filesystem: filesystem(&text("/proc/mounts"), dir),
        }
    }

    /// One line for documents.
    pub(crate) fn line(&self) -> String {
        let Self { cpu, cores, memory_gib, kernel, filesystem } = self;
        format!("{cpu}, {cores} cores, {memory_gib} GiB, Linux {kernel}, {filesystem}")
    }
}

/// Returns the commit, with `+` when sources differ from it.
pub(crate) fn commit() -> Result<String> {
    let head = Program::new("git").args(["rev-parse", "--short=12", "HEAD"]).stdout()?;
    let status = Program::new("git").args(["status", "--porcelain", "--untracked-files=no", "--"]);
    let changed = status.args(["crates", "sdk", "Cargo.toml", "Cargo.lock"]).stdout()?;
    Ok(format!("{}{}", head.trim(), if changed.is_empty() { "" } else { "+" }))
}

/// Returns the day, in UTC, as `2026-01-31`.
pub(crate) fn today() -> String {
    let (year, month, day) = civil(seconds() / 86_400);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Returns a seed that was hardly used before, short enough to be typed.
pub(crate) fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mixed =
        (now.as_secs() ^ u64::from(now.subsec_nanos()) << 20 ^ u64::from(std::process::id()))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed >> 40
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn text(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Returns the type of the deepest mount that holds the directory.
fn filesystem(mounts: &str, dir: &Path) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| tree::root().to_owned());
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let holding = fields.filter(|fields| fields.len() > 2 && dir.starts_with(fields[1]));
    let deepest = holding.max_by_key(|fields| fields[1].len());
    deepest.map_or_else(|| "unknown".to_owned(), |fields| fields[2].to_owned())
}

/// Turns days since 1970-01-01 into year, month and day of the Gregorian calendar.
const fn civil(days: u64) -> (u64, u64, u64) {
    // Counted from 0000-03-01, so that the leap day is the last day of a year.
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_453), (2025, 12, 31));
    }

    #[test]
    fn the_deepest_mount_counts() {
        let mounts = "a / ext4 rw\nb /proc proc rw\n";
        assert_eq!(filesystem(mounts, Path::new("/proc/self")), "proc");
        assert_eq!(filesystem(mounts, Path::new("/")), "ext4");
    }
}
