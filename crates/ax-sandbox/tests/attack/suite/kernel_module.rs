//! Loads a kernel module, of no length.

use super::call::call;
use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "kernel_module",
    root: &[Wall::Capabilities, Wall::Seccomp],
    user: Err("a user namespace gives no right to it outside"),
    inside,
};

fn inside(_: &[String]) -> Verdict {
    let none = c"".as_ptr() as usize;
    let loaded = call(libc::SYS_init_module, &[none, 0, none]);
    Verdict::of(loaded, &[libc::ENOEXEC, libc::EINVAL, libc::EFAULT, libc::ENOSYS])
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
