//! Reads the command line of a process outside. `/proc` shows the own processes only.

use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "processes",
    root: &[Wall::PidNamespace],
    user: Ok(&[Wall::PidNamespace]),
    inside,
};

fn inside(args: &[String]) -> Verdict {
    Verdict::from_io(std::fs::read(format!("/proc/{}/cmdline", args[0])))
}

#[cfg(test)]
pub(crate) fn outside(bench: &Bench) -> Scene {
    let victim = bench.victim();
    let args = vec![victim.0.id().to_string()];
    Scene { args, guards: vec![Box::new(victim)], ..Scene::default() }
}
