//! Writes to a directory that is mounted read-only, and that everybody may write to outside.

use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "read_only",
    root: &[Wall::ReadOnly, Wall::Landlock],
    user: Ok(&[Wall::ReadOnly, Wall::Landlock]),
    inside,
};

fn inside(_: &[String]) -> Verdict {
    Verdict::from_io(std::fs::write("/opt/shared/planted", "mine"))
}

#[cfg(test)]
pub(crate) fn outside(bench: &Bench) -> Scene {
    let dir = bench.open_dir("shared");
    let plan = serde_json::json!({"mounts": [{"source": dir, "target": "/opt/shared"}]});
    Scene { plan, ..Scene::default() }
}
