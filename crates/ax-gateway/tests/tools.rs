//! Tool calls through the gateway: a real client, a real tool server, and a session that records.

#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "tools/hostile.rs"]
mod hostile;
#[path = "tools/passing.rs"]
mod passing;
#[path = "tools/probe.rs"]
mod probe;

use ax_core::id::{Namespace, SessionId, SessionKey};
use ax_core::session::{Answer, Body, Digest, EffectClass, Failure, Frame, StepKey};
use ax_gateway::{
    Config, Desk, Gateway, Listen, Quotas, Rates, Recorded, Setup, Spawn, Spawned, Told,
    ToolCommand, Used,
};
use rmcp::model::{CallToolRequestParams, CallToolResult};
use rmcp::service::RunningService;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::{RoleClient, ServiceExt};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

/// What the log of the session would hold.
#[derive(Debug, Default)]
struct Log {
    begun: Vec<(StepKey, EffectClass, Digest)>,
    journal: Vec<Recorded>,
    asks: HashMap<StepKey, Option<Answer>>,
    /// What was noted, by key.
    notes: HashMap<StepKey, String>,
}

struct World {
    dir: tempfile::TempDir,
    section: Value,
    log: Arc<Mutex<Log>>,
    /// What a person says to every question.
    answer: Option<Answer>,
}

struct Attempt {
    gateway: Arc<Gateway>,
    client: RunningService<RoleClient, ()>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/tools.py");
        let section = json!({"tools": [{
            "name": "shop",
            "command": ["python3", script],
            "env": {"EFFECTS": dir.path().join("effects")},
            "tools": [
                {"tool": "get", "effect": "read"},
                {"tool": "put", "effect": "idempotent"},
                {"tool": "pay", "policy": "ask"},
                {"tool": "secret", "policy": "deny"},
            ],
        }]});
        Self { dir, section, log: Arc::default(), answer: Some(Answer::Approve) }
    }

    async fn attempt(&self) -> Attempt {
        let (frames, mut said) = mpsc::channel(16);
        let (journal, asks, doubts) = {
            let log = self.log.lock().unwrap();
            (log.journal.clone(), log.asks.clone(), log.doubts())
        };
        let setup = Setup {
            config: Config::parse(&self.section).unwrap(),
            listen: Listen::default(),
            http: ax_gateway::connections().unwrap(),
            frames,
            may_act: Box::new(|| true),
            journal,
            doubts,
            sent: Vec::new(),
            asks,
            scope: "default/1/1".into(),
            spawn: spawn(),
            used: Used::default(),
            rates: Rates::default(),
            rated: String::new(),
            quotas: Quotas::default(),
            namespace: String::new(),
            session: SessionKey::new(Namespace::default(), SessionId(1)),
            desk: Desk::default(),
            trace: None,
            files: std::env::temp_dir(),
        };
        let gateway = Arc::new(Gateway::open(setup).await.unwrap());
        let (log, weak) = (Arc::clone(&self.log), Arc::downgrade(&gateway));
        let answer = self.answer.clone();
        tokio::spawn(async move {
            while let Some(frame) = said.recv().await {
                let told = log.lock().unwrap().take(frame, answer.as_ref());
                if let Some((key, told)) = told
                    && let Some(gateway) = weak.upgrade()
                {
                    gateway.tell(&key, told);
                }
            }
        });
        let variables: HashMap<_, _> = gateway.environment().iter().cloned().collect();
        let url = variables["AX_MCP_SHOP_URL"].clone();
        let client = ().serve(StreamableHttpClientTransport::from_uri(url)).await.unwrap();
        Attempt { gateway, client }
    }

    fn effects(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join("effects")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    async fn effect(&self, word: &str) {
        while !self.effects().iter().any(|line| line.starts_with(word)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Starts tool servers without a supervisor.
fn spawn() -> Spawn {
    Arc::new(|program: ToolCommand| {
        Box::pin(async move {
            let words: Vec<PathBuf> = program.command.iter().map(PathBuf::from).collect();
            let mut child = tokio::process::Command::new(&words[0])
                .args(&words[1..])
                .envs(program.env)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()?;
            let (output, input) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
            tokio::spawn(async move {
                tokio::select! {
                    () = program.stop.cancelled() => drop(child.kill().await),
                    _ended = child.wait() => {}
                }
            });
            Ok(Spawned { output: Box::new(output), input: Box::new(input) })
        })
    })
}

impl Log {
    /// The steps that were begun, whose outcome is not recorded and can be found out.
    fn doubts(&self) -> HashSet<StepKey> {
        let last = |key: &StepKey| self.begun.iter().rev().find(|begun| begun.0 == *key).unwrap().1;
        let open = |key: &&StepKey| self.journal.iter().all(|recorded| recorded.key != **key);
        let steps = self.begun.iter().map(|begun| &begun.0).filter(open);
        steps.filter(|key| last(key) == EffectClass::Probed).cloned().collect()
    }

    fn take(&mut self, frame: Frame, answer: Option<&Answer>) -> Option<(StepKey, Told)> {
        match frame {
            Frame::StepBegin { step, effect, digest, .. } => {
                self.begun.push((step.clone(), effect, digest));
                effect.is_once().then_some((step, Told::Granted))
            }
            Frame::StepEnd { step, result: Ok(Body::Text(result)), .. } => {
                let (_, _, digest) =
                    *self.begun.iter().rev().find(|begun| begun.0 == step).unwrap();
                let recorded = Recorded {
                    key: step.clone(),
                    name: String::new(),
                    digest,
                    request: String::new(),
                    prefix: None,
                    result: Ok(result),
                };
                self.journal.push(recorded);
                Some((step, Told::Recorded))
            }
            Frame::Ask { key, .. } => {
                let answer = answer?.clone();
                self.asks.insert(key.clone(), Some(answer.clone()));
                Some((key, Told::Answered(Some(answer))))
            }
            Frame::Note { key: Some(key), data: Body::Text(data), .. } => {
                self.notes.insert(key, data);
                None
            }
            other => panic!("{other:?}"),
        }
    }
}

impl Attempt {
    fn url(&self) -> String {
        let all: HashMap<_, _> = self.gateway.environment().iter().cloned().collect();
        all["AX_MCP_SHOP_URL"].clone()
    }

    async fn call(&self, tool: &'static str, arguments: &Value) -> CallToolResult {
        let arguments = arguments.as_object().unwrap().clone();
        let params = CallToolRequestParams::new(tool).with_arguments(arguments);
        self.client.peer().call_tool(params).await.unwrap()
    }

    async fn text(&self, tool: &'static str, arguments: &Value) -> (bool, String) {
        let result = self.call(tool, arguments).await;
        let error = result.is_error.unwrap_or(false);
        (error, serde_json::to_value(&result).unwrap()["content"][0]["text"].to_string())
    }
}

#[tokio::test]
async fn a_call_has_one_effect_however_many_attempts_make_it() {
    let world = World::new();
    for _ in 0..3 {
        let attempt = world.attempt().await;
        for tool in ["get", "put"] {
            let (error, text) = attempt.text(tool, &json!({"n": 1})).await;
            assert!(!error, "{text}");
        }
        // An error of the protocol is one for the harness, too.
        let wrong = attempt.client.peer().call_tool(CallToolRequestParams::new("wrong")).await;
        assert!(wrong.unwrap_err().to_string().contains("this is wrong"));
    }
    let effects = world.effects();
    assert_eq!(effects.len(), 3, "{effects:?}");
    assert_eq!(world.log.lock().unwrap().journal.len(), 3);
}

#[tokio::test]
async fn what_a_person_said_became_of_a_call_is_its_result() {
    let world = World::new();
    world.attempt().await.text("get", &json!({})).await;
    for (said, expect) in [
        (Ok(r#""it is done""#), (false, "it is done")),
        (Ok("null"), (false, "not known")),
        (Ok(r#"{"content": [{"type": "text", "text": "as it is"}]}"#), (false, "as it is")),
        (Err("it failed"), (true, "it failed")),
    ] {
        let failure = |message: &str| Failure { code: "c".into(), message: message.into() };
        let result = said.map(str::to_owned).map_err(failure);
        world.log.lock().unwrap().journal[0].result = result;
        let (error, text) = world.attempt().await.text("get", &json!({})).await;
        assert!(error == expect.0 && text.contains(expect.1), "{text}");
    }
    assert_eq!(world.effects().len(), 1);
}

#[tokio::test]
async fn the_same_call_made_twice_is_two_calls_with_keys_of_their_own() {
    let world = World::new();
    for _ in 0..2 {
        let attempt = world.attempt().await;
        attempt.text("put", &json!({"n": 1})).await;
        attempt.text("put", &json!({"n": 1})).await;
    }
    let effects = world.effects();
    assert_eq!(effects.len(), 2);
    assert!(effects[0].contains("default/1/1/gw:tool:shop:"), "{effects:?}");
    assert_ne!(effects[0], effects[1]);
}

#[tokio::test]
async fn what_is_denied_is_not_offered_and_not_called() {
    let world = World::new();
    let attempt = world.attempt().await;
    let tools = attempt.client.peer().list_all_tools().await.unwrap();
    let names: Vec<_> = tools.iter().map(|tool| tool.name.as_ref()).collect();
    assert_eq!(names, ["get", "put", "pay", "die", "wrong", "late", "find"]);
    // A person may have to say what a call returned that must not happen twice.
    let formed = tools.iter().filter(|tool| tool.output_schema.is_some());
    assert!(formed.map(|tool| tool.name.as_ref()).eq(["get", "put"]));
    let (error, text) = attempt.text("secret", &json!({})).await;
    assert!(error && text.contains("does not allow"), "{text}");
    attempt.text("secret", &json!({})).await;
    assert!(world.effects().is_empty());
    let notes: Vec<_> = world.log.lock().unwrap().notes.values().cloned().collect();
    assert!(notes.len() == 1 && notes[0].contains("shop.secret"), "{notes:?}");
}

#[tokio::test]
async fn a_condition_decides_by_the_arguments_and_what_it_cannot_decide_is_denied() {
    let mut world = World::new();
    world.section["tools"][0]["tools"] = json!([
        {"tool": "pay", "when": "args.amount <= 50"},
        {"tool": "pay", "when": "args.amount <= 500", "policy": "ask"},
        {"tool": "*", "policy": "deny"},
    ]);
    world.answer = Some(Answer::Deny("too much".into()));
    let attempt = world.attempt().await;
    for (arguments, expect) in [
        (json!({"amount": 50}), "pay done"),
        (json!({"amount": 51}), "too much"),
        (json!({"amount": 501}), "does not allow"),
        (json!({"amount": "50"}), "cannot be said"),
        (json!({}), "cannot be said"),
    ] {
        let (error, text) = attempt.text("pay", &arguments).await;
        assert!(text.contains(expect) && error == (expect != "pay done"), "{arguments}: {text}");
    }
    assert_eq!(world.effects().len(), 1);
    assert_eq!(world.log.lock().unwrap().notes.len(), 3);
}

#[tokio::test]
async fn a_person_decides_and_need_not_decide_twice() {
    let world = World::new();
    for _ in 0..2 {
        assert!(!world.attempt().await.text("pay", &json!({"to": "a"})).await.0);
    }
    assert_eq!(world.effects().len(), 1);

    let mut world = World::new();
    world.answer = Some(Answer::Deny("too much".into()));
    for _ in 0..2 {
        let (error, text) = world.attempt().await.text("pay", &json!({"to": "a"})).await;
        assert!(error && text.contains("too much"), "{text}");
    }
    assert!(world.effects().is_empty());
}

#[tokio::test]
async fn an_answer_that_comes_in_a_later_attempt_is_waited_for_without_the_tool() {
    let mut world = World::new();
    world.answer = None;
    let first = world.attempt().await;
    let arguments = json!({"to": "a"});
    let waits = first.text("pay", &arguments);
    assert!(tokio::time::timeout(Duration::from_millis(500), waits).await.is_err());
    assert!(world.effects().is_empty());
    drop(first);
    world.answer = Some(Answer::Approve);
    assert!(!world.attempt().await.text("pay", &json!({"to": "a"})).await.0);
    assert_eq!(world.effects().len(), 1);
}

#[tokio::test]
async fn a_result_is_waited_for_though_the_harness_is_gone() {
    let world = World::new();
    let attempt = world.attempt().await;
    let arguments = json!({"seconds": 0.5});
    tokio::select! {
        _result = attempt.call("put", &arguments) => panic!("it takes a while"),
        () = world.effect("put") => {}
    }
    attempt.gateway.drain().await;
    assert_eq!(world.log.lock().unwrap().journal.len(), 1);
    assert!(!world.attempt().await.text("put", &arguments).await.0);
    assert_eq!(world.effects().len(), 1);
}

#[tokio::test]
async fn a_harness_that_asks_again_what_it_has_not_heard_calls_nothing_twice() {
    let world = World::new();
    let attempt = world.attempt().await;
    let url = attempt.url();
    let arguments = json!({"seconds": 1.0});
    let other = ().serve(StreamableHttpClientTransport::from_uri(url)).await.unwrap();
    let params =
        CallToolRequestParams::new("put").with_arguments(arguments.as_object().unwrap().clone());
    let breaks = tokio::spawn(async move { other.peer().call_tool(params).await });
    world.effect("put").await;
    breaks.abort();
    // The gateway notices that the connection is gone.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!attempt.text("put", &arguments).await.0);
    assert_eq!(world.effects().len(), 1);
}

#[tokio::test]
async fn a_tool_server_that_cannot_be_started_has_done_nothing() {
    let mut world = World::new();
    world.section["tools"][0]["command"] = json!(["python3", "-c", "import nothing_of_the_kind"]);
    world.section["tools"][0]["tools"] = json!([]);
    let attempt = world.attempt().await;
    let arguments = json!({});
    let (error, text) = tokio::select! {
        result = attempt.text("pay", &arguments) => result,
        failure = attempt.gateway.failed() => panic!("nobody is to be asked: {failure:?}"),
    };
    assert!(error, "{text}");
}

#[tokio::test]
async fn a_tool_server_that_breaks_is_called_again_if_that_changes_nothing() {
    let mut world = World::new();
    world.section["tools"][0]["tools"] = json!([{"tool": "*", "effect": "idempotent"}]);
    let attempt = world.attempt().await;
    let (error, text) = attempt.text("die", &json!({})).await;
    assert!(error && text.contains("broke"), "{text}");
    assert_eq!(world.effects().len(), 3);
    assert!(!attempt.text("get", &json!({})).await.0, "it is started again");
}

#[tokio::test]
async fn nobody_guesses_what_became_of_a_call_that_must_not_happen_twice() {
    let world = World::new();
    let attempt = world.attempt().await;
    let params = CallToolRequestParams::new("die");
    let (result, failure) =
        tokio::join!(attempt.client.peer().call_tool(params), attempt.gateway.failed());
    assert!(result.is_err());
    assert_eq!(failure.code, "tool_server");
    assert_eq!(world.effects().len(), 1);
    let log = world.log.lock().unwrap();
    assert_eq!((log.begun.len(), log.journal.len()), (1, 0), "it stays open");
}

#[tokio::test]
async fn who_has_not_the_word_of_the_harness_gets_no_tools() {
    let world = World::new();
    let attempt = world.attempt().await;
    let url = attempt.url();
    let (plain, _) = url.split_once('?').unwrap();
    for url in [plain.to_owned(), format!("{plain}?key=x"), plain.replace("shop", "other")] {
        let request = reqwest::Client::new().post(&url).body("{}");
        let status = request.send().await.unwrap().status().as_u16();
        assert!([401, 404].contains(&status), "{url}: {status}");
    }
}
