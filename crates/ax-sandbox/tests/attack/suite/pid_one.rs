//! Kills pid 1, which keeps the way to the gateway and the command's status. The kernel protects
//! the first process of a namespace from those inside; it also has another user.

use super::call::call;
use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "pid_one",
    root: &[Wall::PidNamespace, Wall::OwnId, Wall::Landlock],
    user: Ok(&[Wall::PidNamespace, Wall::Landlock]),
    inside,
};

fn inside(_: &[String]) -> Verdict {
    let parent = |()| call(libc::SYS_getppid, &[]).ok().and_then(|pid| usize::try_from(pid).ok());
    let Some(first) = parent(()) else { return Verdict::Refused("no parent".into()) };
    for signal in [libc::SIGTERM, libc::SIGSEGV, libc::SIGKILL] {
        let _refused = call(libc::SYS_kill, &[first, signal as usize]);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    if parent(()) == Some(first) {
        Verdict::Refused("it lives".into())
    } else {
        Verdict::Reached("it is dead".into())
    }
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
