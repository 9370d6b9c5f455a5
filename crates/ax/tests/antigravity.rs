//! The real program of Google Antigravity behind the gateway, with a scripted model, as its example
//! has it. It remembers what it was told before, in branches too. It is killed (SIGKILL) while a
//! tool is at work, with its server or alone, and goes on: the tool has one effect, and no answer
//! is paid twice. A person permits something after it was let go.
//!
//! The variable `AX_ANTIGRAVITY` names the program; without it nothing is tested.
//! `cargo xtask test antigravity` installs and tests it.

#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::print_stdout, reason = "it says whether the program was there")]

#[path = "crash/server.rs"]
#[expect(dead_code, reason = "another test uses more of it")]
mod server;

use ax_client::Client;
use ax_fakemodel::{FakeModel, Options, Script};
use ax_proto::v1;
use ax_proto::v1::answer::{Answer, Approve, Choice, Deny};
use ax_proto::v1::event::Kind;
use server::Server;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long something is waited for.
const WAIT_MAX: Duration = Duration::from_secs(120);
/// How long the tool lingers after its effect, in seconds: long enough to be killed then.
const LINGER_SECONDS: &str = "2";
/// The name of the example's agent.
const AGENT: &str = "antigravity";

/// The model remembers if the agent does; whatever else it is asked, the prompt decides.
const SCRIPT: &str = r#"{"version": 1, "turns": [
    {"when": {"turn": 1, "text": "What was the word?"}, "text": "I have heard it before."}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn it_remembers_and_so_do_its_branches() {
    let Some((stage, server)) = Stage::set().await else { return };
    let session = "remembers";
    stage.ask(session, "The word is heliotrope.").await;
    stage.rest(session, 1).await;
    let after_first = stage.events(session).await.last().unwrap().seq;
    stage.ask(session, "What was the word?").await;
    stage.rest(session, 2).await;
    let events = stage.events(session).await;
    assert_eq!(ways(&events), ["new", "resume"]);
    assert!(said(&events).contains("I have heard it before."), "{}", said(&events));
    let before = events.len();
    let request = v1::BranchRequest {
        session: session.into(),
        at: after_first,
        names: vec!["branch".into()],
        ..Default::default()
    };
    stage.client.branch(request).await.unwrap();
    for execution in 2..=3 {
        stage.ask("branch", "What was the word?").await;
        stage.rest("branch", execution).await;
    }
    let events = stage.events("branch").await;
    assert_eq!(ways(&events), ["new", "trajectory", "resume"]);
    assert!(said(&events).contains("I have heard it before."), "{}", said(&events));
    assert_eq!(stage.events(session).await.len(), before, "the parent never notices");
    stage.leave(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_a_tool_it_goes_on_with_one_effect() {
    let Some((stage, server)) = Stage::set().await else { return };
    let session = "killed";
    for turn in 1..=2 {
        let paid_before = stage.paid().len();
        let input = format!("CALL mcp_warehouse_send {{\"shelf\": {turn}}}");
        stage.ask(session, &input).await;
        stage.until(|| stage.effects().len() >= turn).await;
        let programs = stage.processes();
        assert!(!programs.is_empty());
        programs.iter().for_each(server::Found::kill);
        stage.rest(session, turn).await;
        assert_eq!(stage.effects().len(), turn, "one effect: {:?}", stage.effects());
        let paid = &stage.paid()[paid_before..].to_vec();
        let different: BTreeSet<_> = paid.iter().collect();
        assert_eq!(paid.len(), different.len(), "no answer is paid twice");
    }
    let events = stage.events(session).await;
    assert_eq!(lost(&events), 2, "it was killed twice");
    let diverged = notes(&events, "gateway.divergence");
    assert!(diverged.is_empty(), "{diverged:?}");
    assert!(said(&events).contains("is on its way"), "{}", said(&events));
    // Both turns were begun twice, and each call is in the log once.
    assert_eq!(parts(&events, v1::PartKind::ToolCall), ["mcp_warehouse_send"; 2]);
    assert_eq!(parts(&events, v1::PartKind::ToolResult), ["mcp_warehouse_send"; 2]);
    stage.leave(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_with_its_server_in_a_tool_it_has_no_effect_twice() {
    let Some((stage, server)) = Stage::set().await else { return };
    let session = "both";
    stage.ask(session, "CALL mcp_warehouse_send {\"shelf\": 1}").await;
    stage.until(|| stage.effects().len() == 1).await;
    server.kill();
    let mut server = Server::start(&stage.data(), &[]);
    server.ready().await;
    // Nobody else can know what became of the call.
    let ask = stage.asked(session).await;
    assert!(ask.prompt.contains("What became of it?"), "{ask:?}");
    let (choice, text) = ("completed".to_owned(), "\"it is on its way\"".to_owned());
    stage.answer(session, Answer::Choice(Choice { choice, text })).await;
    stage.rest(session, 1).await;
    assert_eq!(stage.effects(), ["send 1"]);
    let events = stage.events(session).await;
    assert!(said(&events).contains("is on its way"), "{}", said(&events));
    let paid = stage.paid();
    let different: BTreeSet<_> = paid.iter().collect();
    assert_eq!(paid.len(), different.len(), "no answer is paid twice");
    stage.leave(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_permits_what_it_does_after_it_was_let_go() {
    let Some((stage, server)) = Stage::set().await else { return };
    let command = |text: &str| {
        let file = stage.dir.path().join("commands.txt");
        let arguments = serde_json::json!({
            "CommandLine": format!("echo {text} >> {}", file.display()),
            "Cwd": "/tmp", "WaitMsBeforeAsync": 5000, "Blocking": true,
            "toolAction": "x", "toolSummary": "y",
        });
        format!("CALL run_command {arguments}")
    };
    let ran = || fs::read_to_string(stage.dir.path().join("commands.txt")).unwrap_or_default();
    stage.ask("permits", &command("yes")).await;
    let ask = stage.asked("permits").await;
    assert!(ask.prompt.starts_with("May the agent do this? run_command: echo yes"), "{ask:?}");
    stage.until(|| stage.processes().is_empty()).await;
    assert_eq!(ran(), "");
    stage.answer("permits", Answer::Approve(Approve {})).await;
    stage.rest("permits", 1).await;
    assert_eq!(ran(), "yes\n");
    stage.ask("refuses", &command("no")).await;
    drop(stage.asked("refuses").await);
    stage.answer("refuses", Answer::Deny(Deny { reason: "too risky".into() })).await;
    stage.rest("refuses", 1).await;
    assert_eq!(ran(), "yes\n");
    let told = said(&stage.events("refuses").await);
    assert!(told.contains("a person did not permit it: too risky"), "{told}");
    let question = serde_json::json!({"toolAction": "x", "toolSummary": "y", "questions":
        [{"question": "Which?", "options": ["red", "green"], "is_multi_select": false}]});
    stage.ask("chooses", &format!("CALL ask_question {question}")).await;
    let ask = stage.asked("chooses").await;
    assert_eq!((ask.prompt.as_str(), ask.choices.len()), ("Which?", 2));
    let (choice, text) = ("green".to_owned(), String::new());
    stage.answer("chooses", Answer::Choice(Choice { choice, text })).await;
    stage.rest("chooses", 1).await;
    let told = said(&stage.events("chooses").await);
    assert!(told.contains("A1: green"), "{told}");
    stage.leave(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canceled_turn_ends_and_the_next_input_works() {
    let Some((stage, server)) = Stage::set().await else { return };
    let session = "cancels";
    stage.ask(session, "CALL mcp_warehouse_send {\"shelf\": 1}").await;
    stage.until(|| stage.effects().len() == 1).await;
    let request = v1::CancelRequest { session: session.into(), ..Default::default() };
    stage.client.cancel(request).await.unwrap();
    stage.until(|| stage.processes().is_empty()).await;
    stage.ask(session, "hello").await;
    stage.rest(session, 1).await;
    let events = stage.events(session).await;
    let canceled = |event: &&v1::Event| matches!(event.kind, Some(Kind::ExecutionCanceled(_)));
    assert_eq!(events.iter().filter(canceled).count(), 1);
    stage.leave(server);
}

/// Everything about one test.
struct Stage {
    client: Client,
    dir: tempfile::TempDir,
    model: FakeModel,
}

impl Stage {
    /// Starts a server, a model and an agent; none if the program is not there.
    async fn set() -> Option<(Self, Server)> {
        let Ok(program) = std::env::var("AX_ANTIGRAVITY") else {
            println!("AX_ANTIGRAVITY is not set: nothing is tested");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let mut server = Server::start(&data, &[]);
        server.ready().await;
        let script = Script::from_json(SCRIPT).unwrap();
        let model = FakeModel::start(Options { script, ..Options::default() }).await.unwrap();
        let stage = Self { client: server::client(&data), dir, model };
        stage.apply(&program).await;
        Some((stage, server))
    }

    fn leave(&self, server: Server) {
        assert!(server.stop().success());
        assert_eq!(self.processes().len(), 0, "nothing is left");
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn effects(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join("effects.txt")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Applies the manifest of the example, with another model and a tool server.
    async fn apply(&self, program: &str) {
        let example = root().join("examples/antigravity-direct");
        let mut manifest = fs::read_to_string(example.join("agent.yaml")).unwrap();
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/acp/tools.py");
        let effects = self.dir.path().join("effects.txt");
        let provider = "- provider: gemini";
        let model = format!("{provider}\n        baseUrl: \"{}\"", self.model.base_url());
        let command = format!("command: [{program:?}]");
        for (old, new) in [("venv: .venv", &command), (provider, &model)] {
            assert!(manifest.contains(old), "{manifest}");
            manifest = manifest.replace(old, new);
        }
        manifest.push_str(&format!(
            "    tools:\n      - name: warehouse\n        command: [python3, {tools:?}]\n        \
             env: {{EFFECTS: {effects:?}, TOOL_SECONDS: \"{LINGER_SECONDS}\"}}\n        \
             tools:\n          - {{tool: send, effect: once}}\n  \
             limits:\n    retry: {{backoffMin: 10ms, backoffMax: 50ms}}\n"
        ));
        let commands = self.dir.path().join("commands.txt");
        // The tool server is not beside the example; it and commands write elsewhere.
        let mounts = format!(
            "spec:\n  sandbox:\n    mounts:\n      - {{source: {:?}}}\n      \
             - {{source: {effects:?}, writable: true}}\n      \
             - {{source: {commands:?}, writable: true}}\n",
            tools.parent().unwrap()
        );
        for file in [&effects, &commands] {
            fs::write(file, "").unwrap();
        }
        let manifest = manifest.replacen("spec:\n", &mounts, 1);
        let dir = example.display().to_string();
        let request = v1::ApplyAgentRequest { manifest, dir, ..Default::default() };
        self.client.apply_agent(request).await.unwrap();
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

    async fn ask(&self, session: &str, text: &str) {
        let body = Some(v1::Body { body: Some(v1::body::Body::Text(text.into())) });
        let kind = v1::PartKind::Text.into();
        let part = v1::Part { kind, media_type: "text/plain".into(), name: String::new(), body };
        let request = v1::SubmitRequest {
            session: session.into(),
            agent: AGENT.into(),
            parts: vec![part],
            ..Default::default()
        };
        self.client.submit(request).await.unwrap();
    }

    /// Waits until a person is asked something.
    async fn asked(&self, session: &str) -> v1::OpenAsk {
        let began = Instant::now();
        loop {
            let request = v1::GetSessionRequest { session: session.into(), ..Default::default() };
            let found = self.client.get_session(request).await.unwrap().session.unwrap();
            if let Some(ask) = found.status.unwrap_or_default().asks.into_iter().next() {
                return ask;
            }
            assert!(began.elapsed() < WAIT_MAX, "{:?}", self.events(session).await.last());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn answer(&self, session: &str, answer: Answer) {
        let request = v1::AnswerRequest {
            session: session.into(),
            answer: Some(v1::Answer { answer: Some(answer) }),
            ..Default::default()
        };
        self.client.answer(request).await.unwrap();
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

/// How each attempt came by the program's session.
fn ways(events: &[v1::Event]) -> Vec<String> {
    let notes = notes(events, "antigravity.session");
    let how = notes.iter().map(|note| {
        let (_, rest) = note.split_once("\"how\":\"").unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    });
    how.collect()
}

fn lost(events: &[v1::Event]) -> usize {
    events.iter().filter(|it| matches!(it.kind, Some(Kind::AttemptLost(_)))).count()
}

/// The names of the parts of a kind.
fn parts(events: &[v1::Event], kind: v1::PartKind) -> Vec<String> {
    let messages = events.iter().filter_map(|event| match &event.kind {
        Some(Kind::OutputMessage(message)) => Some(&message.parts),
        _ => None,
    });
    messages.flatten().filter(|part| part.kind() == kind).map(|part| part.name.clone()).collect()
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
