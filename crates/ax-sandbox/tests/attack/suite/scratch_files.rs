//! Makes files in `/tmp` until there are no more: inodes, too, are memory of the machine.

use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "scratch_files",
    root: &[Wall::ScratchSize],
    user: Ok(&[Wall::ScratchSize]),
    inside,
};

fn inside(_: &[String]) -> Verdict {
    let made = (0..100).try_for_each(|number| std::fs::write(format!("/tmp/{number}"), ""));
    Verdict::from_io(made)
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    let plan = serde_json::json!({"resources": {"scratchFiles": 16}});
    Scene { plan, ..Scene::default() }
}
