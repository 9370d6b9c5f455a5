//! What an example requires, of Python or of Node.
//!
//! `AX_LANGGRAPH_PYTHON` names an interpreter that has LangGraph; all else is installed under
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
    let named = std::env::var_os("AX_LANGGRAPH_PYTHON");
    named.map_or_else(|| venv(requirements), Into::into)
}

/// Makes an interpreter that has what is required.
pub(crate) fn venv(requirements: &Path) -> PathBuf {
    let text = fs::read_to_string(requirements).unwrap();
    let lines: String = text.lines().filter(|line| !line.starts_with('#')).collect();
    let venv = install("langgraph-test", &lines, |venv| {
        run(Command::new(crate::server::python()).args(["-m", "venv"]).arg(venv));
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
        run(Command::new(venv.join("bin/python")).args(pip).arg(requirements));
    });
    venv.join("bin/python")
}

/// Returns where the packages of an interpreter are.
pub(crate) fn packages(python: &Path) -> PathBuf {
    let script = "import sysconfig; print(sysconfig.get_path('purelib'))";
    let output = Command::new(python).args(["-c", script]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().into()
}

/// Installs packages of Node; returns where they are.
pub(crate) fn npm(manifest: &Path) -> PathBuf {
    let text = fs::read_to_string(manifest).unwrap();
    let dir = install("npm-test", &text, |dir| {
        fs::create_dir_all(dir).unwrap();
        fs::copy(manifest, dir.join("package.json")).unwrap();
        // What a package would do at its installation is not needed, and might be a download.
        run(Command::new("npm").args(["install", "--ignore-scripts", "--silent"]).current_dir(dir));
    });
    dir.join("node_modules")
}

/// Finds or makes a directory for these contents.
fn install(name: &str, contents: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let wanted = blake3::hash(contents.as_bytes()).to_hex();
    // Beside the directory for files of tests, which is in the target directory.
    let venvs = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("venvs");
    fs::create_dir_all(&venvs).unwrap();
    let dir = venvs.join(format!("{name}-{}", &wanted[..16]));
    let complete = dir.join("complete");
    // Tests are processes of their own: one of them makes it, and the others wait.
    let lock = fs::File::create(venvs.join("langgraph-test.lock")).unwrap();
    lock.lock().unwrap();
    if !complete.exists() {
        drop(fs::remove_dir_all(&dir));
        make(&dir);
        fs::write(complete, "").unwrap();
    }
    dir
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {errors}");
}
