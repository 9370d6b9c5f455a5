//! Makes a map for a program in the kernel, with arguments that cannot work.

use super::call::call;
use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack =
    Attack { name: "bpf", root: &[Wall::Seccomp], user: Ok(&[Wall::Seccomp]), inside };

fn inside(_: &[String]) -> Verdict {
    let nothing = [0_u64; 9];
    let made = call(libc::SYS_bpf, &[0, (&raw const nothing) as usize, size_of_val(&nothing)]);
    Verdict::of(made, &[libc::EINVAL])
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
