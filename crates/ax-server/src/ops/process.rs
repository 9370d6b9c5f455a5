//! What the kernel says of this process.

use std::fs;

/// What is known of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    /// Memory that is resident, in bytes.
    pub(super) resident_bytes: u64,
    /// Open file descriptors.
    pub(super) descriptors: u64,
    /// Threads.
    pub(super) threads: u64,
    /// Time on a processor, in milliseconds.
    pub(super) cpu_millis: u64,
}

impl Process {
    /// Looks at this process; what cannot be read is 0.
    pub(super) fn look() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|rest| rest.trim_start_matches(':').split_whitespace().next());
            word.and_then(|word| word.parse::<u64>().ok()).unwrap_or(0)
        };
        Self {
            resident_bytes: number("VmRSS") * 1024,
            threads: number("Threads"),
            cpu_millis: cpu_millis(),
            descriptors: fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count() as u64),
        }
    }
}

fn cpu_millis() -> u64 {
    let usage = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program is in parentheses and may have spaces.
    let after = usage.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = after.split_whitespace().skip(11).map(|word| word.parse::<u64>().unwrap_or(0));
    let ticks = fields.next().unwrap_or(0) + fields.next().unwrap_or(0);
    // The kernel counts in hundredths of a second for programs, whatever it does inside.
    ticks * 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_understood() {
        let found = Process::look();
        assert!(found.resident_bytes > 1 << 20, "{found:?}");
        assert!(found.descriptors >= 3 && found.threads >= 1, "{found:?}");
    }
}
