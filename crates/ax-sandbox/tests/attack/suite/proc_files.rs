//! Reads what `/proc` says of the machine: the kernel's settings and its command line.

use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack =
    Attack { name: "proc_files", root: &[Wall::Proc], user: Ok(&[Wall::Proc]), inside };

fn inside(_: &[String]) -> Verdict {
    let files = ["/proc/cmdline", "/proc/sys/kernel/osrelease", "/proc/kallsyms", "/proc/kcore"];
    let found = files.into_iter().find(|file| std::fs::File::open(file).is_ok());
    found.map_or_else(|| Verdict::Refused("none".into()), |file| Verdict::Reached(file.into()))
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
