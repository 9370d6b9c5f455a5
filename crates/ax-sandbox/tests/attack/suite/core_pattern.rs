//! Opens the setting that names a program which the kernel starts as root outside. Nothing is
//! written.

use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "core_pattern",
    root: &[Wall::Proc, Wall::OwnId],
    user: Err("a user namespace gives no right to it outside"),
    inside,
};

fn inside(_: &[String]) -> Verdict {
    let opened = std::fs::File::options().write(true).open("/proc/sys/kernel/core_pattern");
    Verdict::from_io(opened)
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
