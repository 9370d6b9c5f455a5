//! Makes the node of a disk in the workspace.

use super::call::call;
use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "device_node",
    root: &[Wall::Capabilities, Wall::Seccomp, Wall::Landlock],
    user: Err("a user namespace gives no right to it outside"),
    inside,
};

fn inside(_: &[String]) -> Verdict {
    let at = libc::AT_FDCWD as isize as usize;
    let name = c"node".as_ptr() as usize;
    let made = call(libc::SYS_mknodat, &[at, name, 0o060_600, 0xfe00]);
    let _tidy = std::fs::remove_file("node");
    Verdict::of(made, &[])
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
