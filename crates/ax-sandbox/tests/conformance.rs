//! Every backend keeps the law.

use ax_sandbox::{Namespace, Options, Process, conformance, probe};

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

#[tokio::test]
async fn the_probe_says_which_walls_stand() {
    let dir = tempfile::tempdir().unwrap();
    let walls = probe(&options(dir.path())).await.unwrap();
    assert_eq!(walls.len(), ax_sandbox::Wall::ALL.len());
}
