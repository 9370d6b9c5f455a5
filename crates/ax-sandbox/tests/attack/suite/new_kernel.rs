//! Loads another kernel to start, with more parts than there can be.

use super::call::call;
use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "new_kernel",
    root: &[Wall::Capabilities, Wall::Seccomp],
    user: Err("a user namespace gives no right to it outside"),
    inside,
};

fn inside(_: &[String]) -> Verdict {
    match call(libc::SYS_kexec_load, &[0, 1 << 20, 0, 0]) {
        Err(libc::ENOSYS) => Verdict::Untestable("the kernel was built without it".into()),
        answer => Verdict::of(answer, &[libc::EINVAL]),
    }
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
