//! `ax agent …`.

use crate::args::{AgentArgs, AgentCommand, Template};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::link::{Context, Link, Need};
use crate::manifest;
use crate::provider::Provider;
use crate::time::rfc3339;
use crate::view::json;
use crate::view::table::aligned;
use ax_engine::Code;
use ax_proto::v1;
use serde_json::json;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) async fn agent(cx: &Context, args: AgentArgs) -> Result<Exit, Failure> {
    match args.command {
        AgentCommand::Init { template, dir, name } => init(cx, template, &dir, name),
        AgentCommand::Validate { file } => validate(cx, &file),
        command => {
            let link = cx.link(Need::Record).await?;
            let done = stored(cx, &link, command).await;
            let closed = link.close().await;
            done.and(closed).map(|()| Exit::Done)
        }
    }
}

async fn stored(cx: &Context, link: &Link, command: AgentCommand) -> Result<(), Failure> {
    match command {
        AgentCommand::Init { .. } | AgentCommand::Validate { .. } => Ok(()),
        AgentCommand::Apply { file } => apply(cx, link, &file).await,
        AgentCommand::List => list(cx, link).await,
        AgentCommand::Show { agent } => {
            let request = v1::GetAgentRequest { agent, ..Default::default() };
            let agent = link.client.get_agent(request).await?.agent.unwrap_or_default();
            if cx.out.json {
                return cx.out.object(&json::typed(&agent, "agent")?);
            }
            let applied = rfc3339(agent.applied_at_millis);
            cx.out.progress(&format!("{}@{}, applied {applied}", agent.name, agent.version));
            cx.out.line(agent.manifest.trim_end())
        }
        AgentCommand::Delete { agent } => {
            let request = v1::DeleteAgentRequest { agent: agent.clone(), ..Default::default() };
            link.client.delete_agent(request).await?;
            let words = format!("deleted {agent}");
            told(cx, &json!({"type": "deleted", "agent": agent}), &words)
        }
    }
}

async fn apply(cx: &Context, link: &Link, file: &Path) -> Result<(), Failure> {
    let (agent, unchanged) = manifest::apply(&link.client, file).await?;
    let mut object = json::typed(&agent, "applied")?;
    if let Some(fields) = object.as_object_mut() {
        drop(fields.insert("unchanged".into(), unchanged.into()));
    }
    let unchanged = if unchanged { ", unchanged" } else { "" };
    told(cx, &object, &format!("{}@{}{unchanged}", agent.name, agent.version))
}

async fn list(cx: &Context, link: &Link) -> Result<(), Failure> {
    let agents = link.client.list_agents(v1::ListAgentsRequest::default()).await?.agents;
    if cx.out.json {
        return agents.iter().try_for_each(|agent| cx.out.object(&json::typed(agent, "agent")?));
    }
    if agents.is_empty() {
        cx.out.progress("there are no agents; `ax agent init` writes one");
        return Ok(());
    }
    let mut rows = Vec::with_capacity(agents.len() + 1);
    if !cx.out.quiet {
        rows.push(["AGENT", "VERSION", "APPLIED"].map(str::to_owned).to_vec());
    }
    rows.extend(agents.iter().map(|agent| {
        let applied = rfc3339(agent.applied_at_millis);
        vec![agent.name.clone(), agent.version.to_string(), applied]
    }));
    aligned(&rows).iter().try_for_each(|line| cx.out.line(line))
}

fn validate(cx: &Context, file: &Path) -> Result<Exit, Failure> {
    let text = manifest::read(file)?;
    let problems = ax_engine::manifest::validate(&text);
    if !problems.is_empty() {
        return Err(manifest::wrong(file, &problems));
    }
    let words = format!("{} is valid", file.display());
    told(cx, &json!({"type": "valid", "file": file.display().to_string()}), &words)?;
    Ok(Exit::Done)
}

/// What a template writes: the names of files and their content.
fn files(template: Template, name: &str) -> Vec<(&'static str, String)> {
    let manifest = |text: &str| text.replace("NAME", name);
    match template {
        Template::Process => vec![
            ("agent.yaml", manifest(include_str!("../../templates/process.yaml"))),
            ("agent.sh", include_str!("../../templates/agent.sh").into()),
        ],
        Template::Builtin => {
            let provider = Provider::find().unwrap_or(Provider::ANTHROPIC);
            let text = include_str!("../../templates/builtin.yaml")
                .replace("PROVIDER", provider.name)
                .replace("MODEL", provider.model)
                .replace("KEY", provider.key);
            vec![("agent.yaml", manifest(&text))]
        }
        Template::Python => vec![
            ("agent.yaml", manifest(include_str!("../../templates/python.yaml"))),
            ("agent.py", include_str!("../../templates/agent.py").into()),
        ],
        Template::Langgraph => vec![
            ("agent.yaml", {
                let text = include_str!("../../templates/python.yaml");
                let needs = "pip install 'agent-executor[langgraph]'";
                manifest(&text.replace("pip install agent-executor", needs))
            }),
            ("agent.py", include_str!("../../templates/langgraph.py").into()),
        ],
        Template::Adk => vec![
            ("agent.yaml", manifest(include_str!("../../templates/adk.yaml"))),
            ("agent.py", include_str!("../../templates/adk.py").into()),
        ],
        Template::Gateway => vec![
            ("agent.yaml", manifest(include_str!("../../templates/gateway.yaml"))),
            ("agent.py", include_str!("../../templates/gateway.py").into()),
        ],
        Template::Acp => {
            vec![("agent.yaml", manifest(include_str!("../../templates/acp.yaml")))]
        }
        Template::Codex => vec![coding_agent("codex", CODEX, name)],
        Template::ClaudeCode => vec![coding_agent("claude-code", CLAUDE_CODE, name)],
        Template::Opencode => vec![coding_agent("opencode", OPENCODE, name)],
        Template::GeminiCli => vec![coding_agent("gemini-cli", GEMINI_CLI, name)],
        Template::Antigravity => vec![coding_agent("antigravity", ANTIGRAVITY, name)],
        Template::DeepResearch => vec![coding_agent("deep-research", DEEP_RESEARCH, name)],
    }
}

const CODEX: &str = include_str!("../../../../examples/codex/agent.yaml");
const CLAUDE_CODE: &str = include_str!("../../../../examples/claude-code/agent.yaml");
const OPENCODE: &str = include_str!("../../../../examples/opencode/agent.yaml");
const GEMINI_CLI: &str = include_str!("../../../../examples/gemini-cli/agent.yaml");
const ANTIGRAVITY: &str = include_str!("../../../../examples/antigravity-direct/agent.yaml");
const DEEP_RESEARCH: &str = include_str!("../../../../examples/deep-research/agent.yaml");

/// The manifest of an example, under another name.
fn coding_agent(example: &str, manifest: &str, name: &str) -> (&'static str, String) {
    let named = |name: &str| format!("\n  name: {name}\n");
    ("agent.yaml", manifest.replacen(&named(example), &named(name), 1))
}

fn init(
    cx: &Context,
    template: Template,
    dir: &Path,
    name: Option<String>,
) -> Result<Exit, Failure> {
    let failed = |path: &Path, error: io::Error| Failure::file("written", path, &error);
    let named = match template {
        Template::Process => "hello",
        Template::Builtin => "assistant",
        Template::Python => "counter",
        Template::Langgraph => "graph",
        Template::Adk => "shop",
        Template::Gateway => "answers",
        Template::Acp => "coder",
        Template::Codex => "codex",
        Template::ClaudeCode => "claude-code",
        Template::Opencode => "opencode",
        Template::GeminiCli => "gemini-cli",
        Template::Antigravity => "antigravity",
        Template::DeepResearch => "deep-research",
    };
    let name = name.unwrap_or_else(|| named.into());
    let files = files(template, &name);
    if let Some((_, manifest)) = files.first() {
        let problems = ax_engine::manifest::validate(manifest);
        if let Some(problem) = problems.first() {
            return Err(Failure::usage(problem.message.clone()).hint(problem.hint.clone()));
        }
    }
    fs::create_dir_all(dir).map_err(|error| failed(dir, error))?;
    let paths: Vec<PathBuf> = files.iter().map(|(file, _)| dir.join(file)).collect();
    if let Some(taken) = paths.iter().find(|path| path.exists()) {
        return Err(Failure::new(Code::Exists, format!("{} exists already", taken.display()))
            .hint("name another directory"));
    }
    for (path, (_, content)) in paths.iter().zip(&files) {
        fs::write(path, content).map_err(|error| failed(path, error))?;
    }
    if cx.out.json {
        let files: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        cx.out.object(&json!({"type": "written", "agent": name, "files": files}))?;
        return Ok(Exit::Done);
    }
    for path in &paths {
        cx.out.line(&format!("wrote {}", path.display()))?;
    }
    if !cx.out.quiet {
        cx.out.line(&format!("run it: ax run -f {} \"hello there\"", paths[0].display()))?;
    }
    Ok(Exit::Done)
}

fn told(cx: &Context, object: &serde_json::Value, words: &str) -> Result<(), Failure> {
    if cx.out.json { cx.out.object(object) } else { cx.out.line(words) }
}
