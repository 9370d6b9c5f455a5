//! Writes to a directory that is mounted read-only where that wall has been left out: Landlock,
//! the second wall, stops it alone. The sandbox of this attack is always without the first one.

use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack =
    Attack { name: "landlock_alone", root: &[Wall::Landlock], user: Ok(&[Wall::Landlock]), inside };

fn inside(_: &[String]) -> Verdict {
    Verdict::from_io(std::fs::write("/opt/shared/planted", "mine"))
}

#[cfg(test)]
pub(crate) fn outside(bench: &Bench) -> Scene {
    let dir = bench.open_dir("shared");
    let plan = serde_json::json!({"mounts": [{"source": dir, "target": "/opt/shared"}]});
    Scene { plan, always_without: vec![Wall::ReadOnly], ..Scene::default() }
}
