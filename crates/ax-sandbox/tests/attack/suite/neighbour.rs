//! Writes into the workspace of another session, whose directory everybody may write to.

use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene, text};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "neighbour",
    root: &[Wall::Root, Wall::Landlock],
    user: Ok(&[Wall::Root, Wall::Landlock]),
    inside,
};

fn inside(args: &[String]) -> Verdict {
    Verdict::from_io(std::fs::write(format!("{}/planted", args[0]), "mine"))
}

#[cfg(test)]
pub(crate) fn outside(bench: &Bench) -> Scene {
    let neighbour = bench.open_dir("neighbour");
    Scene { args: vec![text(&neighbour)], ..Scene::default() }
}
