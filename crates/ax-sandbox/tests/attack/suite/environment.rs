//! Looks for what is in the environment of the runtime.

use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "environment",
    root: &[Wall::Environment],
    user: Ok(&[Wall::Environment]),
    inside,
};

fn inside(_: &[String]) -> Verdict {
    std::env::var("AX_SECRET_OF_RUNTIME")
        .map_or_else(|error| Verdict::Refused(error.to_string()), Verdict::Reached)
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
