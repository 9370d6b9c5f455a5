//! Changes its root, the first step of an old escape.

use super::call::call;
use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "chroot",
    root: &[Wall::Capabilities, Wall::Seccomp],
    user: Ok(&[Wall::Capabilities, Wall::Seccomp]),
    inside,
};

fn inside(_: &[String]) -> Verdict {
    let to = c"/tmp".as_ptr() as usize;
    Verdict::of(call(libc::SYS_chroot, &[to]), &[])
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
