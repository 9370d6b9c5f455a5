//! Opens files until it cannot.

use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "open_files",
    root: &[Wall::ProcessLimits],
    user: Ok(&[Wall::ProcessLimits]),
    inside,
};

fn inside(_: &[String]) -> Verdict {
    let open = || std::fs::File::open("/dev/null").ok();
    let files: Vec<_> = std::iter::from_fn(open).take(200).collect();
    let count = files.len();
    if count == 200 {
        Verdict::Reached(format!("{count} files"))
    } else {
        Verdict::Refused(format!("{count} files"))
    }
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    let plan = serde_json::json!({"resources": {"openFiles": 64}});
    Scene { plan, ..Scene::default() }
}
