//! Mounts a file system.

use super::call::call;
use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "mounts",
    root: &[Wall::Capabilities, Wall::Seccomp, Wall::Landlock],
    user: Ok(&[Wall::Capabilities, Wall::Seccomp, Wall::Landlock]),
    inside,
};

fn inside(_: &[String]) -> Verdict {
    let (kind, on) = (c"tmpfs".as_ptr() as usize, c"/tmp".as_ptr() as usize);
    Verdict::of(call(libc::SYS_mount, &[kind, on, kind, 0, 0]), &[])
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
