//! Opens a performance counter, with an address that cannot work.

use super::call::call;
use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack =
    Attack { name: "perf", root: &[Wall::Seccomp], user: Ok(&[Wall::Seccomp]), inside };

fn inside(_: &[String]) -> Verdict {
    Verdict::of(call(libc::SYS_perf_event_open, &[0, 0, 0, 0, 0]), &[libc::EFAULT])
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
