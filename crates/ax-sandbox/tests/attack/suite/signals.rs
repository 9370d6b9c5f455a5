//! Signals a process outside (signal 0: the kernel only says whether it may). It has no number
//! inside, has another user, and Landlock lets signals go nowhere else.

use super::call::call;
use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "signals",
    root: &[Wall::PidNamespace, Wall::OwnId, Wall::Landlock],
    user: Ok(&[Wall::PidNamespace, Wall::Landlock]),
    inside,
};

fn inside(args: &[String]) -> Verdict {
    let pid = args[0].parse().unwrap_or(0);
    Verdict::of(call(libc::SYS_kill, &[pid, 0]), &[])
}

#[cfg(test)]
pub(crate) fn outside(bench: &Bench) -> Scene {
    let victim = bench.victim();
    let args = vec![victim.0.id().to_string()];
    Scene { args, guards: vec![Box::new(victim)], ..Scene::default() }
}
