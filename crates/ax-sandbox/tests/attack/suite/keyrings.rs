//! Puts a key into a kernel keyring. No namespace separates these.

use super::call::call;
use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack =
    Attack { name: "keyrings", root: &[Wall::Seccomp], user: Ok(&[Wall::Seccomp]), inside };

fn inside(_: &[String]) -> Verdict {
    let (kind, name, key) = (c"user".as_ptr(), c"ax-attack".as_ptr(), c"key".as_ptr());
    // KEY_SPEC_PROCESS_KEYRING
    let ring = -2_isize as usize;
    Verdict::of(
        call(libc::SYS_add_key, &[kind as usize, name as usize, key as usize, 3, ring]),
        &[],
    )
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
