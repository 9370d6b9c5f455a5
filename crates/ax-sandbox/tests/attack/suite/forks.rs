//! Starts processes until it cannot: a bounded fork bomb.

use super::call::Child;
use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "forks",
    root: &[Wall::Cgroup, Wall::ProcessLimits],
    user: Ok(&[Wall::ProcessLimits]),
    inside,
};

fn inside(_: &[String]) -> Verdict {
    let children: Vec<Child> = std::iter::from_fn(Child::new).take(200).collect();
    let count = children.len();
    if count == 200 {
        Verdict::Reached(format!("{count} processes"))
    } else {
        Verdict::Refused(format!("{count} processes"))
    }
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    let plan = serde_json::json!({"resources": {"pids": 32}});
    Scene { plan, ..Scene::default() }
}
