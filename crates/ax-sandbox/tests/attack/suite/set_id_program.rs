//! Executes a set-user-id program of root. No new privileges are given at an execution, and on no
//! mount do these bits count.

use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene, text};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "set_id_program",
    root: &[Wall::NoNewPrivileges, Wall::NoSuid, Wall::Seccomp, Wall::Landlock],
    user: Err("root has no id in a user namespace, so the bit means nothing"),
    inside,
};

fn inside(args: &[String]) -> Verdict {
    let said = std::process::Command::new(&args[0]).arg("who").output();
    match said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned()) {
        Ok(who) if who == "0" => Verdict::Reached("root".into()),
        Ok(who) => Verdict::Refused(format!("user {who}")),
        Err(error) => Verdict::Refused(error.to_string()),
    }
}

#[cfg(test)]
pub(crate) fn outside(bench: &Bench) -> Scene {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = bench.open_dir("programs");
    let program = dir.join("set-id");
    std::fs::copy(bench.program(), &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o4755)).unwrap();
    let plan = serde_json::json!({"mounts": [{"source": dir}]});
    Scene { args: vec![text(&program)], plan, ..Scene::default() }
}
