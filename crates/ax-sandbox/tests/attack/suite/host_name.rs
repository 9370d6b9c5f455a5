//! Reads the name of the host.

use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "host_name",
    root: &[Wall::UtsNamespace],
    user: Ok(&[Wall::UtsNamespace]),
    inside,
};

fn inside(args: &[String]) -> Verdict {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name == args[0] { Verdict::Reached(name) } else { Verdict::Refused(name) }
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Scene { args: vec![name], ..Scene::default() }
}
