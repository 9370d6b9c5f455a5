//! Control groups: limits of all processes of a sandbox together. Version 1, 2, or both.
//!
//! A group is made below that of the launcher, in each hierarchy that has a controller we use.
//! What cannot be made is reported, and the limits of each process stand in for it.

use crate::plan::Resources;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the kernel may take to see that a group is empty.
const EMPTY_GRACE: Duration = Duration::from_secs(2);
/// How long to wait between two tries.
const TRY_PAUSE: Duration = Duration::from_millis(2);
/// The period over which processor time is shared out, in microseconds.
const CPU_PERIOD_MICROS: u64 = 100_000;

/// The groups of a sandbox.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// Their directories.
    pub(crate) dirs: Vec<PathBuf>,
    /// The controllers that could not be had, and why.
    pub(crate) missing: Vec<String>,
    /// The one of version 2, which is among them.
    unified: Option<PathBuf>,
}

/// A controller: its name, and what to write to which file in version 1 and 2.
struct Controller {
    name: &'static str,
    v1: (&'static str, String),
    v2: (&'static str, String),
}

fn controllers(resources: &Resources) -> [Controller; 3] {
    // At least a millisecond; at most 1024 processors, which the plan has checked.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
    let quota = ((resources.cpus * CPU_PERIOD_MICROS as f64) as u64).max(1000);
    let memory = resources.memory.to_string();
    // Pid 1 is counted too.
    let pids = (u64::from(resources.pids) + 1).to_string();
    [
        Controller {
            name: "memory",
            v1: ("memory.limit_in_bytes", memory.clone()),
            v2: ("memory.max", memory),
        },
        Controller { name: "pids", v1: ("pids.max", pids.clone()), v2: ("pids.max", pids) },
        Controller {
            name: "cpu",
            v1: ("cpu.cfs_quota_us", quota.to_string()),
            v2: ("cpu.max", format!("{quota} {CPU_PERIOD_MICROS}")),
        },
    ]
}

impl Groups {
    /// Makes the groups of this name with these limits, in these hierarchies.
    pub(crate) fn make(name: &str, hierarchies: &[Hierarchy], resources: &Resources) -> Self {
        let mut groups = Self::default();
        for controller in controllers(resources) {
            if let Err(error) = groups.add(name, hierarchies, &controller) {
                groups.missing.push(format!("{}: {error}", controller.name));
            }
        }
        groups
    }

    fn add(
        &mut self,
        name: &str,
        hierarchies: &[Hierarchy],
        controller: &Controller,
    ) -> Result<(), String> {
        let hierarchy = hierarchies.iter().find(|one| one.has(controller.name));
        let hierarchy = hierarchy.ok_or("no hierarchy has this controller")?;
        if hierarchy.unified {
            hierarchy.delegate(controller.name)?;
        }
        let dir = hierarchy.own.join(name);
        let (file, value) = if hierarchy.unified { &controller.v2 } else { &controller.v1 };
        match fs::create_dir(&dir) {
            Ok(()) => {}
            // Of another controller, or of an earlier life whose last process has just gone.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(format!("{}: {error}", dir.display())),
        }
        if !self.dirs.contains(&dir) {
            self.dirs.push(dir.clone());
        }
        if hierarchy.unified {
            self.unified = Some(dir.clone());
        }
        fs::write(dir.join(file), value).map_err(|error| format!("{file}: {error}"))?;
        if controller.name == "memory" {
            // Without swap, where the kernel lets us say so.
            let swap = if hierarchy.unified { "memory.swap.max" } else { "memory.swappiness" };
            let _not_everywhere = fs::write(dir.join(swap), "0");
        }
        Ok(())
    }

    /// Puts this process into the groups of version 1, so that its child is born there. Moving a
    /// process that runs would wait for all processors, which takes many milliseconds; moving the
    /// own thread does not.
    pub(crate) fn enter(&self) -> io::Result<()> {
        self.old().try_for_each(|dir| fs::write(dir.join("tasks"), "0"))
    }

    /// Puts this process back where it was.
    pub(crate) fn leave(&self) -> io::Result<()> {
        let above = self.old().filter_map(|dir| dir.parent());
        { above }.try_for_each(|dir| fs::write(dir.join("tasks"), "0"))
    }

    /// Opens the group of version 2, for a child that is to be born there.
    pub(crate) fn open(&self) -> io::Result<Option<File>> {
        self.unified.as_ref().map(File::open).transpose()
    }

    fn old(&self) -> impl Iterator<Item = &PathBuf> {
        self.dirs.iter().filter(|dir| self.unified.as_ref() != Some(dir))
    }

    /// Removes the groups, whose processes are gone.
    pub(crate) fn remove(&self) {
        self.dirs.iter().for_each(|dir| remove(dir));
    }
}

/// Removes all groups of this name, which nothing runs in.
pub(crate) fn remove_all(name: &str) {
    for hierarchy in Hierarchy::all() {
        remove(&hierarchy.own.join(name));
    }
}

fn remove(dir: &Path) {
    let begun_at = Instant::now();
    while let Err(error) = fs::remove_dir(dir) {
        let gone = error.kind() == io::ErrorKind::NotFound;
        if gone || begun_at.elapsed() > EMPTY_GRACE {
            return;
        }
        std::thread::sleep(TRY_PAUSE);
    }
}

/// A hierarchy of control groups that is mounted.
#[derive(Debug)]
pub(crate) struct Hierarchy {
    unified: bool,
    controllers: Vec<String>,
    /// The group that this process is in.
    own: PathBuf,
}

impl Hierarchy {
    /// Returns those that this process sees.
    pub(crate) fn all() -> Vec<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        mounts.lines().filter_map(|mount| Self::read(mount, &groups)).collect()
    }

    fn read(mount: &str, groups: &str) -> Option<Self> {
        let mut fields = mount.split(' ').skip(1);
        let (point, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        let unified = kind == "cgroup2";
        if !unified && kind != "cgroup" {
            return None;
        }
        let path = groups.lines().find_map(|group| {
            let (_, rest) = group.split_once(':')?;
            let (names, path) = rest.split_once(':')?;
            let first = names.split(',').next()?;
            let this = if unified {
                names.is_empty()
            } else {
                !names.is_empty() && options.split(',').any(|option| option == first)
            };
            this.then_some(path)
        })?;
        let point = Path::new(point);
        let own = point.join(path.trim_start_matches('/'));
        // In a container the path may be one that only the host knows.
        let own = if own.is_dir() { own } else { point.to_path_buf() };
        let controllers = if unified {
            let names = fs::read_to_string(own.join("cgroup.controllers")).unwrap_or_default();
            names.split_ascii_whitespace().map(str::to_owned).collect()
        } else {
            options.split(',').map(str::to_owned).collect()
        };
        Some(Self { unified, controllers, own })
    }

    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    /// Lets groups below this one use a controller.
    fn delegate(&self, controller: &str) -> Result<(), String> {
        let file = self.own.join("cgroup.subtree_control");
        let now = fs::read_to_string(&file).unwrap_or_default();
        if now.split_ascii_whitespace().any(|name| name == controller) {
            return Ok(());
        }
        fs::write(&file, format!("+{controller}"))
            .map_err(|error| format!("not delegated: {error}"))
    }
}

/// What a sandbox has consumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Memory in use now, in bytes.
    pub memory_bytes: Option<u64>,
    /// Processes and threads now.
    pub pids: Option<u64>,
    /// Processor time so far, in microseconds.
    pub cpu_micros: Option<u64>,
}

impl Stats {
    /// Reads what can be read in these groups.
    pub(crate) fn read(dirs: &[PathBuf]) -> Self {
        let number = |file: &str| {
            let texts = dirs.iter().filter_map(|dir| fs::read_to_string(dir.join(file)).ok());
            texts.filter_map(|text| text.trim().parse::<u64>().ok()).next()
        };
        let micros = dirs.iter().find_map(|dir| {
            let text = fs::read_to_string(dir.join("cpu.stat")).ok()?;
            text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok())
        });
        Self {
            memory_bytes: number("memory.usage_in_bytes").or_else(|| number("memory.current")),
            pids: number("pids.current"),
            cpu_micros: micros.or_else(|| Some(number("cpuacct.usage")? / 1000)),
        }
    }
}
