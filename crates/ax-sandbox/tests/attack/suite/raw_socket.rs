//! Makes a raw socket, to forge packets. That needs a capability.

use super::call::call;
use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "raw_socket",
    root: &[Wall::Capabilities],
    user: Ok(&[Wall::Capabilities]),
    inside,
};

fn inside(_: &[String]) -> Verdict {
    let (inet, raw) = (libc::AF_INET as usize, libc::SOCK_RAW as usize);
    Verdict::of(call(libc::SYS_socket, &[inet, raw, 1]), &[])
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
