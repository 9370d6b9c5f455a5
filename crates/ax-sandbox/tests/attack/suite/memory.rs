//! Uses more memory than it has.

use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "memory",
    root: &[Wall::Cgroup, Wall::ProcessLimits],
    user: Ok(&[Wall::ProcessLimits]),
    inside,
};

fn inside(_: &[String]) -> Verdict {
    let mut taken: Vec<u8> = Vec::new();
    match taken.try_reserve_exact(256 << 20) {
        Ok(()) => {
            taken.resize(256 << 20, 1);
            Verdict::Reached(format!("{} bytes", std::hint::black_box(&taken).len()))
        }
        Err(error) => Verdict::Refused(error.to_string()),
    }
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    let plan = serde_json::json!({"resources": {"memory": "64MiB"}});
    Scene { plan, ..Scene::default() }
}
