//! Goes to a file of the host by way of `/proc/self/root`, `/proc/1/root`, `/dev/fd` and a link in
//! the workspace. All of them end at the root of the sandbox.

use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene, text};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "roundabout",
    root: &[Wall::Root, Wall::Landlock],
    user: Ok(&[Wall::Root, Wall::Landlock]),
    inside,
};

fn inside(args: &[String]) -> Verdict {
    let _there_already = std::os::unix::fs::symlink("/", "link");
    let ways =
        ["/proc/self/root", "/proc/1/root", "/proc/self/cwd/../../..", "link", "/dev/fd/0/.."];
    let found = ways.iter().find(|way| std::fs::read(format!("{way}{}", args[0])).is_ok());
    let _tidy = std::fs::remove_file("link");
    found.map_or_else(
        || Verdict::Refused("no way leads there".into()),
        |way| Verdict::Reached((*way).into()),
    )
}

#[cfg(test)]
pub(crate) fn outside(bench: &Bench) -> Scene {
    let secret = bench.open_file("secret", "of the host");
    Scene { args: vec![text(&secret)], ..Scene::default() }
}
