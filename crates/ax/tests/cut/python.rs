//! The Python client, over server-sent events.

use super::check::Seen;
use super::plan::Session;
use super::server;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

/// Follows all sessions with one process; meanwhile sends the inputs that are its part.
pub(crate) async fn follow(
    url: String,
    sessions: &[Session],
    dir: &Path,
) -> Result<Vec<Seen>, String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (plan, out) = (dir.join("python.plan"), dir.join("python.out"));
    let tasks = sessions.iter().map(|session| {
        let inputs = if session.python_submits { &session.inputs[1..] } else { &[] };
        json!({"session": session.name, "inputs": inputs, "ends": session.inputs.len()})
    });
    fs::write(&plan, Value::from_iter(tasks).to_string()).unwrap();
    let output = Command::new(server::python())
        .arg(here.join("tests/cut/follow.py"))
        .args([url.as_ref(), plan.as_os_str(), out.as_os_str()])
        .env("PYTHONPATH", here.join("../../sdk/python/src"))
        .env("PYTHONPYCACHEPREFIX", dir.join("../pycache"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    if !output.status.success() {
        return Err(format!("Python: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let reports: Vec<Value> = serde_json::from_str(&fs::read_to_string(out).unwrap()).unwrap();
    reports.iter().map(|report| Seen::of_json("Python", report)).collect()
}
