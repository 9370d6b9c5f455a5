//! Asks for the number of a file, by which it could be opened around every directory's
//! permissions.

use super::call::call;
use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack =
    Attack { name: "handles", root: &[Wall::Seccomp], user: Ok(&[Wall::Seccomp]), inside };

fn inside(_: &[String]) -> Verdict {
    let here = c".".as_ptr() as usize;
    let at = libc::AT_FDCWD as isize as usize;
    Verdict::of(call(libc::SYS_name_to_handle_at, &[at, here, 0, 0, 0]), &[libc::EFAULT])
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
