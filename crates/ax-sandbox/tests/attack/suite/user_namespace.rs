//! Makes a user namespace, in which it would have all capabilities: by `unshare`, by `clone`, and
//! by `clone3`, whose flags no filter can see.

use super::call::call;
use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack =
    Attack { name: "user_namespace", root: &[Wall::Seccomp], user: Ok(&[Wall::Seccomp]), inside };

fn inside(_: &[String]) -> Verdict {
    let flag = libc::CLONE_NEWUSER as usize;
    let ended = |made: Result<i64, i32>| {
        if made == Ok(0) {
            std::process::exit(0);
        }
        made
    };
    let args = [flag as u64, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0];
    let ways = [
        ended(call(libc::SYS_clone3, &[(&raw const args) as usize, size_of_val(&args)])),
        ended(call(libc::SYS_clone, &[flag | libc::SIGCHLD as usize])),
        call(libc::SYS_unshare, &[flag]),
    ];
    let reached = ways.into_iter().find(Result::is_ok);
    Verdict::of(reached.unwrap_or(ways[2]), &[])
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
