//! The machine: kernel, limits, clock.

use super::{Check, Level};
use crate::paths::DataDir;
use crate::time::{now, rfc3339, span};
use rustix::process::{Resource, getrlimit};
use std::fs;
use std::time::UNIX_EPOCH;

/// With fewer descriptors than this, a busy server runs out of them.
const DESCRIPTORS_LOW: u64 = 4_096;
/// No clock that is right says less than this: the year 2024, in milliseconds.
const CLOCK_MILLIS_MIN: u64 = 1_704_067_200_000;
/// How much the clock may be behind what is stored, in milliseconds.
const BEHIND_MILLIS_MAX: u64 = 2_000;

/// The clock is one that can be right: it is not before what was written already.
pub(super) fn clock(data: &DataDir) -> Check {
    let now = now().millis;
    if now < CLOCK_MILLIS_MIN {
        return Check::new(Level::Wrong, "clock", format!("it says {}", rfc3339(now)))
            .hint("set the clock: timers and the times of events go by it");
    }
    let files = [data.log(), data.blobs()].into_iter().filter_map(|dir| fs::read_dir(dir).ok());
    let entries = files.flatten().filter_map(|entry| entry.ok()?.metadata().ok()?.modified().ok());
    let written = entries.filter_map(|at| at.duration_since(UNIX_EPOCH).ok());
    let newest = written.map(|at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX)).max();
    let behind = newest.unwrap_or(0).saturating_sub(now);
    if behind > BEHIND_MILLIS_MAX {
        let found = format!("it is {} behind what is stored", span(behind));
        return Check::new(Level::Worth, "clock", found)
            .hint("look whether time is synchronised, such as by `timedatectl`");
    }
    Check::new(Level::Fine, "clock", rfc3339(now))
}

/// How many files can be open at once.
pub(super) fn descriptors() -> Check {
    let limit = getrlimit(Resource::Nofile).current;
    let found = limit.map_or_else(|| "no limit".into(), |count| format!("{count} at once"));
    match limit {
        Some(count) if count < DESCRIPTORS_LOW => Check::new(Level::Worth, "open files", found)
            .hint("raise it for a server: `ulimit -n 65536`, or LimitNOFILE=65536 in the unit"),
        _ => Check::new(Level::Fine, "open files", found),
    }
}

pub(super) fn kernel() -> Check {
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap_or(0_u32));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let name = format!("{} {release}", system.sysname().to_string_lossy());
    if version >= (5, 4) {
        Check::new(Level::Fine, "kernel", name)
    } else {
        Check::new(Level::Worth, "kernel", name).hint("Linux 5.4 or newer is what is tested")
    }
}
