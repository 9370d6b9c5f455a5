//! Attaches to a process as a debugger: its own child, so that nothing but the filter is in the
//! way.

use super::call::{Child, call};
use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack =
    Attack { name: "debugging", root: &[Wall::Seccomp], user: Ok(&[Wall::Seccomp]), inside };

fn inside(_: &[String]) -> Verdict {
    let Some(child) = Child::new() else { return Verdict::Untestable("no child".into()) };
    // PTRACE_ATTACH
    Verdict::of(call(libc::SYS_ptrace, &[16, child.0]), &[])
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
