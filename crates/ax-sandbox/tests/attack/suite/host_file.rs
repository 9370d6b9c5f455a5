//! Reads a file of the host that everybody may read. The sandbox has a tree of its own, in which
//! the file is not; Landlock would not let it be read either.

use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene, text};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "host_file",
    root: &[Wall::Root, Wall::Landlock],
    user: Ok(&[Wall::Root, Wall::Landlock]),
    inside,
};

fn inside(args: &[String]) -> Verdict {
    Verdict::from_io(std::fs::read(&args[0]))
}

#[cfg(test)]
pub(crate) fn outside(bench: &Bench) -> Scene {
    let secret = bench.open_file("secret", "of the host");
    Scene { args: vec![text(&secret)], ..Scene::default() }
}
