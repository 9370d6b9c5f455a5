//! Fills `/tmp`, which is memory of the machine.

use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "scratch_space",
    root: &[Wall::ScratchSize],
    user: Ok(&[Wall::ScratchSize]),
    inside,
};

fn inside(_: &[String]) -> Verdict {
    Verdict::from_io(std::fs::write("/tmp/large", vec![1; 4 << 20]))
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    let plan = serde_json::json!({"resources": {"scratch": "1MiB"}});
    Scene { plan, ..Scene::default() }
}
