//! A Python that has what an example requires.
//!
//! `AX_LANGGRAPH_PYTHON` names an interpreter that has; without it one is made under
//! `target/venvs`, once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Finds an interpreter that has LangGraph, or makes one that has what is required.
pub(crate) fn with(requirements: &Path) -> PathBuf {
    if let Some(named) = std::env::var_os("AX_LANGGRAPH_PYTHON") {
        return named.into();
    }
    let text = fs::read_to_string(requirements).unwrap();
    let lines: String = text.lines().filter(|line| !line.starts_with('#')).collect();
    let wanted = blake3::hash(lines.as_bytes()).to_hex();
    // Beside the directory for files of tests, which is in the target directory.
    let venvs = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("venvs");
    fs::create_dir_all(&venvs).unwrap();
    let venv = venvs.join(format!("langgraph-test-{}", &wanted[..16]));
    let (python, complete) = (venv.join("bin/python"), venv.join("complete"));
    // Tests are processes of their own: one of them makes it, and the others wait.
    let lock = fs::File::create(venvs.join("langgraph-test.lock")).unwrap();
    lock.lock().unwrap();
    if complete.exists() {
        return python;
    }
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command:?}: {errors}");
    };
    drop(fs::remove_dir_all(&venv));
    run(Command::new(crate::server::python()).args(["-m", "venv"]).arg(&venv));
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
    run(Command::new(&python).args(pip).arg(requirements));
    fs::write(complete, "").unwrap();
    python
}
