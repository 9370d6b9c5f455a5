//! Writes to a directory that is mounted read-only where that wall has been left out: Landlock,
//! the second wall, stops it alone. The sandbox of this attack is always without the first one.

use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene, text};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack =
    Attack { name: "landlock_alone", root: &[Wall::Landlock], user: Ok(&[Wall::Landlock]), inside };

fn inside(args: &[String]) -> Verdict {
    Verdict::from_io(std::fs::write(format!("{}/planted", args[0]), "mine"))
}

#[cfg(test)]
pub(crate) fn outside(bench: &Bench) -> Scene {
    let dir = bench.open_dir("shared");
    let plan = serde_json::json!({"mounts": [{"source": dir}]});
    Scene { args: vec![text(&dir)], plan, always_without: vec![Wall::ReadOnly], ..Scene::default() }
}
