//! Takes a descriptor out of another process: its own child, so that nothing but the filter is in
//! the way.

use super::call::{Child, call};
use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "foreign_descriptor",
    root: &[Wall::Seccomp],
    user: Ok(&[Wall::Seccomp]),
    inside,
};

fn inside(_: &[String]) -> Verdict {
    let Some(child) = Child::new() else { return Verdict::Untestable("no child".into()) };
    let Ok(process) = call(libc::SYS_pidfd_open, &[child.0, 0]) else {
        return Verdict::Untestable("the kernel has no pidfd_open".into());
    };
    let process = usize::try_from(process).unwrap_or(0);
    Verdict::of(call(libc::SYS_pidfd_getfd, &[process, 1, 0]), &[])
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
