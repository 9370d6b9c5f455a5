//! Lets the kernel write core files, which would hand memory to a program of the host.

use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "core_file",
    root: &[Wall::ProcessLimits],
    user: Ok(&[Wall::ProcessLimits]),
    inside,
};

fn inside(_: &[String]) -> Verdict {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limit = Rlimit { current: Some(4096), maximum: Some(4096) };
    Verdict::from_io(setrlimit(Resource::Core, limit).map_err(Into::into))
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
