//! Reads from a descriptor that the runtime left open. All are closed when the command is
//! executed.

use super::call::call;
use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "descriptors",
    root: &[Wall::Descriptors],
    user: Ok(&[Wall::Descriptors]),
    inside,
};

fn inside(_: &[String]) -> Verdict {
    let mut bytes = [0_u8; 16];
    let read = |fd| call(libc::SYS_pread64, &[fd, (&raw mut bytes) as usize, bytes.len(), 0]);
    let found = (3..256).map(read).find(|got| matches!(got, Ok(count) if *count > 0));
    Verdict::of(found.unwrap_or(Err(libc::EBADF)), &[])
}

#[cfg(test)]
pub(crate) fn outside(bench: &Bench) -> Scene {
    let leak = Some(bench.open_file("secret", "of the host"));
    Scene { leak, ..Scene::default() }
}
