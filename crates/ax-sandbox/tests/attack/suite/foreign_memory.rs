//! Reads the memory of another process: its own child, so that nothing but the filter is in the
//! way.

use super::call::{Child, call};
use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack =
    Attack { name: "foreign_memory", root: &[Wall::Seccomp], user: Ok(&[Wall::Seccomp]), inside };

fn inside(_: &[String]) -> Verdict {
    let Some(child) = Child::new() else { return Verdict::Untestable("no child".into()) };
    let (secret, mut read) = ([7_u8; 8], [0_u8; 8]);
    let (from, to) = ([(&raw const secret) as usize, 8], [(&raw mut read) as usize, 8]);
    let (from, to) = ((&raw const from) as usize, (&raw const to) as usize);
    Verdict::of(call(libc::SYS_process_vm_readv, &[child.0, to, 1, from, 1, 0]), &[])
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
