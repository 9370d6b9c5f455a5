//! Sets the clock of the machine, to a time that does not exist.

use super::call::call;
use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack =
    Attack { name: "clock", root: &[Wall::Seccomp], user: Ok(&[Wall::Seccomp]), inside };

fn inside(_: &[String]) -> Verdict {
    let never = [0_i64, 2_000_000_000];
    let set = call(libc::SYS_clock_settime, &[0, (&raw const never) as usize]);
    Verdict::of(set, &[libc::EINVAL])
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
