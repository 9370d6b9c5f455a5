//! Opens the list of a control group of the host, by which it could leave its limits.

use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "cgroup",
    root: &[Wall::Root, Wall::OwnId, Wall::Landlock],
    user: Err("a user namespace gives no right to it outside"),
    inside,
};

fn inside(_: &[String]) -> Verdict {
    let lists = ["/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/pids/cgroup.procs"];
    let open = |list: &&&str| std::fs::File::options().write(true).open(list).is_ok();
    lists
        .iter()
        .find(open)
        .map_or_else(|| Verdict::Refused("none".into()), |list| Verdict::Reached((*list).into()))
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
