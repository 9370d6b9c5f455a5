//! Real coding agents behind the gateway, with a scripted model: Codex, Claude Code, OpenCode and
//! Gemini CLI, as their examples have them. Each remembers what it was told before; each is killed
//! (SIGKILL) while a tool is at work, and goes on: the tool has one effect, and no answer is paid
//! twice.
//!
//! The variables `AX_ACP_CODEX`, `AX_ACP_CLAUDE`, `AX_ACP_OPENCODE` and `AX_ACP_GEMINI` hold the
//! words of the command of each, as a JSON list; an agent whose variable is not set is not tested.
//! `cargo xtask test acp` installs and tests all of them.

#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::print_stdout, reason = "it says which agents there were")]

#[path = "crash/server.rs"]
#[expect(dead_code, reason = "another test uses more of it")]
mod server;

use ax_client::Client;
use ax_fakemodel::{FakeModel, Options, Script};
use ax_proto::v1;
use ax_proto::v1::event::Kind;
use server::Server;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long something is waited for: some agents take ten seconds to start.
const WAIT_MAX: Duration = Duration::from_secs(180);
/// How long the tool lingers after its effect, in seconds: long enough to be killed then.
const LINGER_SECONDS: &str = "2";

/// The model remembers if the agent does; whatever else it is asked, the prompt decides.
const SCRIPT: &str = r#"{"version": 1, "turns": [
    {"when": {"turn": 1, "text": "What was the word?"}, "text": "I have heard it before."}]}"#;

/// An agent, and how its example is made to use the scripted model.
struct Subject {
    /// The name of its example.
    example: &'static str,
    /// The variable with its command.
    variable: &'static str,
    /// The provider whose clients it uses.
    provider: &'static str,
    /// What its model calls the tool.
    tool: &'static str,
    /// How it comes by its session in a later execution.
    how: &'static [&'static str],
}

const CODEX: Subject = Subject {
    example: "codex",
    variable: "AX_ACP_CODEX",
    provider: "openai",
    tool: "mcp__warehouse.send",
    how: &["resume"],
};
const CLAUDE: Subject = Subject {
    example: "claude-code",
    variable: "AX_ACP_CLAUDE",
    provider: "anthropic",
    tool: "mcp__warehouse__send",
    how: &["resume"],
};
const OPENCODE: Subject = Subject {
    example: "opencode",
    variable: "AX_ACP_OPENCODE",
    provider: "openai",
    tool: "warehouse_send",
    how: &["resume"],
};
/// It loses a session that is loaded within the minute in which it began.
const GEMINI: Subject = Subject {
    example: "gemini-cli",
    variable: "AX_ACP_GEMINI",
    provider: "gemini",
    tool: "mcp_warehouse_send",
    how: &["load", "new"],
};

#[tokio::test(flavor = "multi_thread")]
async fn codex_remembers_and_survives() {
    play(&CODEX).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_code_remembers_and_survives() {
    play(&CLAUDE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn opencode_remembers_and_survives() {
    play(&OPENCODE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gemini_cli_remembers_and_survives() {
    play(&GEMINI).await;
}

/// Everything about one agent.
struct Stage {
    client: Client,
    dir: tempfile::TempDir,
    model: FakeModel,
}

async fn play(subject: &Subject) {
    let Ok(command) = std::env::var(subject.variable) else {
        println!("{} is not there: {} is not set", subject.example, subject.variable);
        return;
    };
    let command: Vec<String> = serde_json::from_str(&command).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::start(&data, &[]);
    server.ready().await;
    let client = server::client(&data);
    let script = Script::from_json(SCRIPT).unwrap();
    let model = FakeModel::start(Options { script, ..Options::default() }).await.unwrap();
    let stage = Stage { client, dir, model };
    stage.apply(subject, &command).await;
    stage.remembers(subject).await;
    stage.survives(subject).await;
    assert!(server.stop().success());
    assert_eq!(stage.processes().len(), 0, "nothing is left");
}

impl Stage {
    fn effects(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join("effects.txt")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Applies the manifest of the example, with another model and a tool server.
    async fn apply(&self, subject: &Subject, command: &[String]) {
        let example = root().join("examples").join(subject.example);
        let text = fs::read_to_string(example.join("agent.yaml")).unwrap();
        let begins = text.find("    command:").unwrap();
        let ends = begins + text[begins..].find("\n    env:").unwrap();
        let program = serde_json::to_string(command).unwrap();
        let mut manifest = format!("{}    command: {program}{}", &text[..begins], &text[ends..]);
        manifest = manifest.replace("{policy: ask}", "{policy: allow}");
        let provider = format!("- provider: {}", subject.provider);
        assert!(manifest.contains(&provider), "{manifest}");
        let replaced = format!("{provider}\n        baseUrl: \"{}\"", self.model.base_url());
        manifest = manifest.replace(&provider, &replaced);
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/acp/tools.py");
        let effects = self.dir.path().join("effects.txt");
        manifest.push_str(&format!(
            "    tools:\n      - name: warehouse\n        command: [python3, {tools:?}]\n        \
             env: {{EFFECTS: {effects:?}, TOOL_SECONDS: \"{LINGER_SECONDS}\"}}\n  \
             limits:\n    retry: {{backoffMin: 10ms, backoffMax: 50ms}}\n"
        ));
        let dir = example.display().to_string();
        let request = v1::ApplyAgentRequest { manifest, dir, ..Default::default() };
        self.client.apply_agent(request).await.unwrap();
    }

    /// Two inputs: the second goes to the agent's session of the first.
    async fn remembers(&self, subject: &Subject) {
        let session = format!("{}-remembers", subject.example);
        self.ask(subject, &session, "The word is heliotrope.").await;
        self.rest(&session, 1).await;
        self.ask(subject, &session, "What was the word?").await;
        self.rest(&session, 2).await;
        let events = self.events(&session).await;
        let how = notes(&events, "acp.session");
        assert!(how[0].contains("\"how\":\"new\""), "{how:?}");
        let as_known = |word: &&str| how[1].contains(&format!("\"how\":\"{word}\""));
        assert!(subject.how.iter().any(as_known), "{how:?}");
        let second = events.iter().rposition(|it| matches!(it.kind, Some(Kind::InputReceived(_))));
        let said = said(&events[second.unwrap()..]);
        // A session that is lost is told as text, which the model says back.
        let told = how[1].contains("\"how\":\"new\"") && said.contains("heliotrope");
        assert!(said.contains("I have heard it before.") || told, "{said}");
    }

    /// The agent is killed while its tool is at work, in the first turn and in the second.
    async fn survives(&self, subject: &Subject) {
        let session = format!("{}-survives", subject.example);
        for turn in 1..=2 {
            let paid_before = self.paid();
            let input = format!("CALL {} {{\"shelf\": {turn}}}", subject.tool);
            self.ask(subject, &session, &input).await;
            self.until(|| self.effects().len() >= turn).await;
            let agents = self.processes();
            assert!(!agents.is_empty());
            agents.iter().for_each(server::Found::kill);
            self.rest(&session, turn).await;
            assert_eq!(self.effects().len(), turn, "one effect: {:?}", self.effects());
            let paid = &self.paid()[paid_before.len()..].to_vec();
            let different: BTreeSet<_> = paid.iter().collect();
            assert_eq!(paid.len(), different.len(), "no answer is paid twice");
        }
        let events = self.events(&session).await;
        let lost = events.iter().filter(|it| matches!(it.kind, Some(Kind::AttemptLost(_)))).count();
        assert_eq!(lost, 2, "it was killed twice");
        let diverged = notes(&events, "gateway.divergence");
        assert!(diverged.is_empty(), "{diverged:?}");
        assert!(said(&events).contains("is on its way"), "{}", said(&events));
    }

    fn paid(&self) -> Vec<String> {
        let ledger = self.model.ledger();
        let paid = ledger.iter().filter(|entry| entry.is_paid());
        paid.map(|entry| entry.request_hash.clone()).collect()
    }

    /// The processes of the agent: what has its directory in its environment, but tool servers.
    fn processes(&self) -> Vec<server::Found> {
        let mark = format!("AX_WORKSPACE={}", self.dir.path().display());
        let of_agent = |found: &server::Found| {
            let read = |file: &str| fs::read(format!("/proc/{}/{file}", found.pid));
            let environment = read("environ").unwrap_or_default();
            let command =
                String::from_utf8_lossy(&read("cmdline").unwrap_or_default()).into_owned();
            String::from_utf8_lossy(&environment).contains(&mark) && !command.contains("tools.py")
        };
        server::find("").into_iter().filter(of_agent).collect()
    }

    async fn ask(&self, subject: &Subject, session: &str, text: &str) {
        let body = Some(v1::Body { body: Some(v1::body::Body::Text(text.into())) });
        let kind = v1::PartKind::Text.into();
        let part = v1::Part { kind, media_type: "text/plain".into(), name: String::new(), body };
        let request = v1::SubmitRequest {
            session: session.into(),
            agent: subject.example.into(),
            parts: vec![part],
            ..Default::default()
        };
        self.client.submit(request).await.unwrap();
    }

    async fn until(&self, holds: impl Fn() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < WAIT_MAX, "it does not get on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until so many executions have come to their end.
    async fn rest(&self, session: &str, executions: usize) {
        let began = Instant::now();
        loop {
            let events = self.events(session).await;
            let ended = events.iter().filter(|it| {
                let failed = matches!(it.kind, Some(Kind::ExecutionFailed(_)));
                assert!(!failed, "{it:?}");
                matches!(it.kind, Some(Kind::ExecutionCompleted(_)))
            });
            if ended.count() >= executions {
                return;
            }
            assert!(began.elapsed() < WAIT_MAX, "it does not end: {:?}", events.last());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn events(&self, session: &str) -> Vec<v1::Event> {
        let request =
            v1::ListEventsRequest { session: session.into(), limit: 1_000, ..Default::default() };
        self.client.list_events(request).await.unwrap().events
    }
}

fn notes(events: &[v1::Event], wanted: &str) -> Vec<String> {
    let notes = events.iter().filter_map(|event| match &event.kind {
        Some(Kind::Note(note)) if note.name == wanted => Some(format!("{:?}", note.data)),
        _ => None,
    });
    notes.map(|text| text.replace("\\\"", "\"")).collect()
}

/// All text that was said.
fn said(events: &[v1::Event]) -> String {
    let deltas = events.iter().filter_map(|event| match &event.kind {
        Some(Kind::OutputDelta(delta)) => Some(delta.text.as_str()),
        _ => None,
    });
    deltas.collect()
}

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}
