//! Every backend keeps the law.

#![expect(clippy::unwrap_used, reason = "tests")]

use ax_sandbox::{Backend, Ended, Namespace, Options, Process, Spec, Status, conformance, probe};
use rustix::process::{Pid, Signal, kill_process};

fn options(dir: &std::path::Path) -> Options {
    let number = std::process::id() % 100_000;
    Options {
        launcher: vec![env!("CARGO_BIN_EXE_ax-sandbox-attacker").into(), "launch".into()],
        run_dir: dir.join("run"),
        ids: 1_810_000_000 + number * 64..1_810_000_064 + number * 64,
        private: vec![dir.join("run")],
    }
}

#[tokio::test]
async fn the_backend_namespace_keeps_the_law() {
    let dir = tempfile::tempdir().unwrap();
    let workspace = dir.path().join("workspace");
    std::fs::create_dir(&workspace).unwrap();
    conformance::run(&Namespace::new(options(dir.path())), &workspace).await;
}

#[tokio::test]
async fn the_backend_process_keeps_the_law() {
    let dir = tempfile::tempdir().unwrap();
    let workspace = dir.path().join("workspace");
    std::fs::create_dir(&workspace).unwrap();
    conformance::run(&Process::new(options(dir.path())), &workspace).await;
}

/// Returns the processes that this one has started and that are still there.
fn children() -> Vec<i32> {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let lists = threads.map(|thread| thread.unwrap().path().join("children"));
    let text: String = lists.filter_map(|list| std::fs::read_to_string(list).ok()).collect();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

#[tokio::test]
async fn a_launcher_that_stays_ready_knows_nothing_and_can_be_lost() {
    let dir = tempfile::tempdir().unwrap();
    let workspace = dir.path().join("workspace");
    std::fs::create_dir(&workspace).unwrap();
    let backend = Namespace::new(options(dir.path()));
    let mut before = Vec::new();
    for _ in 0..3 {
        let spec = Spec {
            command: ["/bin/sh", "-c", "exit 7"].map(Into::into).to_vec(),
            dir: workspace.clone(),
            env: vec![("TOKEN".into(), "secret of a sandbox".into())],
            ..Spec::default()
        };
        let mut running = backend.start(spec).unwrap();
        assert_eq!(running.wait().await.unwrap(), Ended::Ran(Status::Exited(7)));
        let found = children();
        let [ready] = found[..] else { panic!("{found:?}") };
        assert!(!before.contains(&ready), "the lost one is another one");
        assert!(std::fs::read(format!("/proc/{ready}/environ")).unwrap().is_empty());
        kill_process(Pid::from_raw(ready).unwrap(), Signal::KILL).unwrap();
        before.push(ready);
    }
    drop(backend);
    assert!(children().is_empty());
}

#[tokio::test]
async fn the_probe_says_which_walls_stand() {
    let dir = tempfile::tempdir().unwrap();
    let walls = probe(&options(dir.path())).await.unwrap();
    assert_eq!(walls.len(), ax_sandbox::Wall::ALL.len());
}
