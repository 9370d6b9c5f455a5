//! What is left when the runtime itself is killed.
#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use ax_harness::{Launcher, ProcessHarness};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::process::{Child, Command, Stdio};
use support::{Rig, lives, pids, until};

/// Makes the `runtime` program of this file act as a runtime on this directory.
const DIR_VARIABLE: &str = "RUNTIME_TEST_DIR";

/// Starts processes that detach themselves in every way there is, and names them all; the first
/// is the supervisor.
const SCRIPT: &str = r#"
echo '{"type":"hello","protocol":1}'
echo $PPID $$ >>pids
sh -c 'echo $$ >>pids; exec sleep 600' &
setsid sh -c 'trap "" TERM; echo $$ >>pids; sleep 600 & wait' &
(setsid sh -c '(sh -c "echo \$\$ >>pids; exec sleep 600") &') &
sleep 600
"#;

/// Not a test of its own: the other tests run it in another process, as the runtime they kill.
#[tokio::test]
async fn a_runtime_that_is_killed() {
    let Some(dir) = std::env::var_os(DIR_VARIABLE) else { return };
    let rig = Rig::at(dir.into());
    let harness = json!({"type": "process", "command": ["sh", "-c", SCRIPT]});
    let launcher: std::sync::Arc<dyn Launcher> =
        std::sync::Arc::new(ProcessHarness::new(rig.options()));
    support::Running::start(&launcher, rig.launch(harness)).exit().await;
}

/// Starts a runtime with one attempt; returns it and every process of the attempt.
async fn runtime(rig: &Rig) -> (Child, Vec<i64>) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_runtime_that_is_killed"])
        .env(DIR_VARIABLE, rig.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    (child, pids(&rig.workspace().join("pids"), 5).await)
}

fn kill(pid: i64) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_killed_runtime_leaves_nothing_alive() {
    let rig = Rig::new();
    let (mut runtime, family) = runtime(&rig).await;
    assert!(family.iter().all(|&pid| lives(pid)));
    runtime.kill().unwrap();
    runtime.wait().unwrap();
    until("everything is gone", || !family.iter().any(|&pid| lives(pid))).await;
}

#[tokio::test]
async fn what_a_killed_runtime_and_supervisor_left_is_reaped_by_the_next_life() {
    let rig = Rig::new();
    let (mut runtime, family) = runtime(&rig).await;
    // Stopped, the supervisor cannot notice that the runtime dies.
    let supervisor = Pid::from_raw(i32::try_from(family[0]).unwrap()).unwrap();
    kill_process(supervisor, Signal::STOP).unwrap();
    runtime.kill().unwrap();
    runtime.wait().unwrap();
    kill(family[0]);
    until("the supervisor is gone", || !lives(family[0])).await;
    assert!(family[1..].iter().all(|&pid| lives(pid)));
    ProcessHarness::new(rig.options()).reap_orphans().await;
    assert!(!family.iter().any(|&pid| lives(pid)));
    rig.assert_nothing_runs();
}

#[tokio::test]
async fn a_supervisor_that_is_still_busy_is_waited_for() {
    let rig = Rig::new();
    let (mut runtime, family) = runtime(&rig).await;
    runtime.kill().unwrap();
    ProcessHarness::new(rig.options()).reap_orphans().await;
    assert!(!family.iter().any(|&pid| lives(pid)));
    rig.assert_nothing_runs();
    runtime.wait().unwrap();
}

#[tokio::test]
async fn another_process_with_a_registered_id_is_not_touched() {
    let rig = Rig::new();
    let mut bystander = Command::new("sleep").arg("600").spawn().unwrap();
    std::fs::create_dir_all(rig.options().run_dir).unwrap();
    let entry = rig.options().run_dir.join("1-1-0");
    std::fs::write(&entry, format!("{} 1\n", bystander.id())).unwrap();
    ProcessHarness::new(rig.options()).reap_orphans().await;
    assert!(lives(bystander.id().into()));
    assert!(!entry.exists());
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}
