//! Reboots, with a number that the kernel takes for a mistake.

use super::call::call;
use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "reboot",
    root: &[Wall::Capabilities, Wall::Seccomp],
    user: Ok(&[Wall::Capabilities, Wall::Seccomp]),
    inside,
};

fn inside(_: &[String]) -> Verdict {
    Verdict::of(call(libc::SYS_reboot, &[1, 2, 3, 0]), &[libc::EINVAL])
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
