//! Looks for devices beyond the harmless ones: disks, memory, virtual machines.

use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack =
    Attack { name: "devices", root: &[Wall::Dev], user: Ok(&[Wall::Dev]), inside };

fn inside(_: &[String]) -> Verdict {
    let own = [
        "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
        "urandom", "zero",
    ];
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .into_iter()
        .find(|name| !own.contains(&&**name))
        .map_or_else(|| Verdict::Refused("none".into()), Verdict::Reached)
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
