//! What the agents need that there are.

use super::{Check, Level};
use crate::link::{Context, Need};
use crate::paths::DataDir;
use crate::provider::Provider;
use ax_engine::manifest::parse;
use ax_proto::v1::{Agent, ListAgentsRequest};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Whether the commands of the agents can be run.
pub(super) async fn check(cx: &Context, data: &DataDir) -> Vec<Check> {
    if !data.log().is_dir() {
        // Nothing was ever stored here, and looking must not make a store.
        return Vec::new();
    }
    let agents = match list(cx).await {
        Ok(agents) => agents,
        Err(message) => {
            let found = format!("they cannot be listed: {message}");
            return vec![Check::new(Level::Worth, "agents", found)];
        }
    };
    let mut checks: Vec<_> = agents.iter().filter_map(needs).collect();
    if checks.is_empty() {
        let found = format!("{} stored, their commands are there", agents.len());
        checks.push(Check::new(Level::Fine, "agents", found));
    }
    checks
}

async fn list(cx: &Context) -> Result<Vec<Agent>, String> {
    let link = cx.link(Need::Record).await.map_err(|failure| failure.message)?;
    let listed = link.client.list_agents(ListAgentsRequest::default()).await;
    let closed = link.close().await;
    let listed = listed.map_err(|error| error.message)?;
    closed.map_err(|failure| failure.message)?;
    Ok(listed.agents)
}

/// What an agent needs and is not there.
fn needs(agent: &Agent) -> Option<Check> {
    let manifest = parse(&agent.manifest).ok()?;
    let command = manifest.harness.get("command").and_then(Value::as_array)?;
    let program = command.first().and_then(Value::as_str)?;
    if program.contains('/') && !program.starts_with('/') {
        // It is below the directory of the manifest, which may be on another machine.
        return None;
    }
    let name = &manifest.name;
    if find(program).is_none() {
        let found = format!("{name}: {program} is not found");
        let hint = "install it, or name it by its path in spec.harness.command";
        return Some(Check::new(Level::Wrong, "agent", found).hint(hint));
    }
    let is_python = program.rsplit('/').next().is_some_and(|file| file.starts_with("python"));
    let speaks = manifest.harness.get("protocol").and_then(Value::as_str) != Some("text");
    if is_python && speaks && ask(program, "import agent_executor").is_none() {
        let found = format!("{name}: {program} has no agent-executor");
        let hint = format!("{program} -m pip install agent-executor");
        return Some(Check::new(Level::Wrong, "agent", found).hint(hint));
    }
    None
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Runs a line of Python and returns what it prints.
fn ask(python: &str, code: &str) -> Option<String> {
    let asked = Command::new(python).args(["-c", code]).stderr(Stdio::null()).output().ok()?;
    let said = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
    asked.status.success().then_some(said)
}

/// Python, which agents made by the SDK need.
pub(super) fn python() -> Check {
    let Some(version) = ask("python3", "import platform; print(platform.python_version())") else {
        return Check::new(Level::Worth, "python", "python3 is not found")
            .hint("only agents in Python need it");
    };
    match ask("python3", "import agent_executor as ax; print(ax.__version__)") {
        Some(sdk) => Check::new(Level::Fine, "python", format!("{version}, agent-executor {sdk}")),
        None => Check::new(Level::Worth, "python", format!("{version}, without agent-executor"))
            .hint("agents made by the Python SDK need it: pip install agent-executor"),
    }
}

/// Which keys of models are set. Their values are not looked at.
pub(super) fn models() -> Vec<Check> {
    let check = |provider: &Provider| {
        if provider.has_key() {
            Check::new(Level::Fine, "model key", format!("{} is set", provider.key))
        } else {
            Check::new(Level::Fine, "model key", format!("{} is not set", provider.key))
        }
    };
    Provider::ALL.iter().map(check).collect()
}
