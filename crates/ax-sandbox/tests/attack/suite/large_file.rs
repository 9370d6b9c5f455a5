//! Writes a file of the workspace larger than one may be.

use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "large_file",
    root: &[Wall::ProcessLimits],
    user: Ok(&[Wall::ProcessLimits]),
    inside,
};

fn inside(_: &[String]) -> Verdict {
    let written = std::fs::write("large", vec![1; 3 << 20]);
    let _tidy = std::fs::remove_file("large");
    Verdict::from_io(written)
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    let plan = serde_json::json!({"resources": {"fileSize": "1MiB"}});
    Scene { plan, ..Scene::default() }
}
