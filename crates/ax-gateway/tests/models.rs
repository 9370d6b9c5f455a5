//! Model calls through the gateway: real connections, a scripted model, and a session that records.

#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "models/bodies.rs"]
mod bodies;
#[path = "models/conversation.rs"]
mod conversation;
#[path = "models/hostile.rs"]
mod hostile;
#[path = "models/limits.rs"]
mod limits;
#[path = "models/socket.rs"]
mod socket;

use ax_core::id::{Namespace, SessionId, SessionKey};
use ax_core::session::{Body, Frame, Prefix, StepKey};
use ax_fakemodel::{FakeModel, Options, Script};
use ax_gateway::{Config, Desk, Gateway, Listen, Quotas, Rates, Recorded, Setup, Told, Used};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

/// The provider, the path of a stream, the path of a whole answer, and what makes a request.
type Way = (&'static str, &'static str, &'static str, fn(&str) -> Value);

/// Every wire format.
const WIRES: [Way; 5] = [
    ("anthropic", "/v1/messages", "/v1/messages", anthropic),
    ("openai", "/v1/chat/completions", "/v1/chat/completions", chat),
    ("openai", "/v1/responses", "/v1/responses", responses),
    (
        "gemini",
        "/v1beta/models/m:streamGenerateContent?alt=sse",
        "/v1beta/models/m:generateContent",
        gemini,
    ),
    ("gemini", "/v1beta/interactions", "/v1beta/interactions", interactions),
];

fn anthropic(text: &str) -> Value {
    json!({"model": "m", "max_tokens": 100, "stream": true,
        "messages": [{"role": "user", "content": text}]})
}

fn chat(text: &str) -> Value {
    json!({"model": "m", "stream": true, "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": text}]})
}

fn responses(text: &str) -> Value {
    json!({"model": "m", "stream": true, "input": text})
}

fn gemini(text: &str) -> Value {
    json!({"contents": [{"role": "user", "parts": [{"text": text}]}]})
}

fn interactions(text: &str) -> Value {
    json!({"model": "m", "stream": true, "input": text})
}

/// What the log of the session would hold.
#[derive(Debug, Default)]
struct Log {
    begun: Vec<(StepKey, String, Prefix, String)>,
    journal: Vec<Recorded>,
    other: Vec<Frame>,
}

/// A session, its model, and the attempts of its harness.
struct World {
    model: FakeModel,
    section: Value,
    log: Arc<Mutex<Log>>,
    /// How long the log takes.
    sync: Duration,
    /// Whether the session takes no step.
    refuses: bool,
}

/// One attempt.
struct Attempt {
    gateway: Arc<Gateway>,
    http: reqwest::Client,
    env: HashMap<String, String>,
}

impl World {
    async fn new(script: &str) -> Self {
        let script = Script::from_json(script).unwrap();
        let model = FakeModel::start(Options { script, ..Options::default() }).await.unwrap();
        let provider = |name: &str| {
            json!({"provider": name, "baseUrl": model.base_url(), "tries": 3,
                "prices": {"m": {"input": 1.0, "output": 2.0}}})
        };
        let providers = ["anthropic", "openai", "gemini"].map(provider);
        let section = json!({"models": providers});
        Self { model, section, log: Arc::default(), sync: Duration::ZERO, refuses: false }
    }

    async fn attempt(&self) -> Attempt {
        self.attempt_at(Listen::default()).await
    }

    async fn attempt_at(&self, listen: Listen) -> Attempt {
        let (frames, mut said) = mpsc::channel(16);
        let (journal, sent) = {
            let log = self.log.lock().unwrap();
            let sent = log.begun.iter().map(|(.., prefix, _)| prefix.clone()).collect();
            (log.journal.clone(), sent)
        };
        let setup = Setup {
            config: Config::parse(&self.section).unwrap(),
            listen,
            http: ax_gateway::connections().unwrap(),
            frames,
            may_act: Box::new(|| true),
            journal,
            doubts: HashSet::new(),
            sent,
            asks: HashMap::new(),
            scope: String::new(),
            spawn: Arc::new(|_| Box::pin(async { Err(std::io::Error::other("no programs")) })),
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
        let (log, sync, weak) = (Arc::clone(&self.log), self.sync, Arc::downgrade(&gateway));
        let refuses = self.refuses;
        tokio::spawn(async move {
            while let Some(frame) = said.recv().await {
                tokio::time::sleep(sync).await;
                if refuses && let (Some(key), Some(gateway)) = (frame.key(), weak.upgrade()) {
                    gateway.tell(key, Told::Refused("too many keys".into()));
                    continue;
                }
                if let Some(key) = log.lock().unwrap().take(frame)
                    && let Some(gateway) = weak.upgrade()
                {
                    gateway.tell(&key, Told::Recorded);
                }
            }
        });
        let env = gateway.environment().iter().cloned().collect();
        Attempt { gateway, http: reqwest::Client::new(), env }
    }

    /// Waits until there is a note of it in the log, which is a moment after it was said.
    async fn noted(&self, what: &str) {
        let begun_at = std::time::Instant::now();
        while !format!("{:?}", self.log.lock().unwrap().other).contains(what) {
            assert!(begun_at.elapsed() < Duration::from_secs(20), "nothing of {what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn paid(&self) -> usize {
        self.model.ledger().iter().filter(|entry| entry.is_paid()).count()
    }
}

impl Log {
    fn take(&mut self, frame: Frame) -> Option<StepKey> {
        match frame {
            Frame::StepBegin { step, name, prefix, request: Some(Body::Text(request)), .. } => {
                self.begun.push((step, name, prefix.unwrap(), request));
                None
            }
            Frame::StepEnd { step, result: Ok(Body::Text(result)), .. } => {
                let begun = self.begun.iter().rev().find(|(begun, ..)| *begun == step).unwrap();
                let (_, name, prefix, request) = begun.clone();
                let (digest, prefix) = (prefix.chain, Some(prefix));
                let key = step.clone();
                self.journal.push(Recorded {
                    key,
                    name,
                    digest,
                    request,
                    prefix,
                    result: Ok(result),
                });
                Some(step)
            }
            other => {
                self.other.push(other);
                None
            }
        }
    }
}

impl Attempt {
    fn url(&self, provider: &str, path: &str) -> String {
        let name = format!("AX_MODEL_{}_URL", provider.to_uppercase());
        format!("{}{path}", self.env[&name])
    }

    /// Sends a request as the harness would.
    async fn send(&self, provider: &str, path: &str, body: &Value) -> reqwest::Response {
        let key = &self.env["AX_GATEWAY_KEY"];
        let request = self.http.post(self.url(provider, path)).bearer_auth(key);
        request.body(body.to_string()).send().await.unwrap()
    }

    async fn ask(&self, provider: &str, path: &str, body: &Value) -> (u16, String) {
        let response = self.send(provider, path, body).await;
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn text(&self, body: &Value) -> (u16, String) {
        self.ask("anthropic", "/v1/messages", body).await
    }
}

#[tokio::test]
async fn what_passes_through_is_what_the_model_said_and_comes_again_unpaid() {
    for (provider, stream, whole, request) in WIRES {
        for streamed in [true, false] {
            let world = World::new(r#"{"version": 1}"#).await;
            let mut body = request("what passes through is not changed: ü");
            let path = if streamed { stream } else { whole };
            if !streamed && body.get("stream").is_some() {
                body["stream"] = false.into();
            }
            let first = world.attempt().await;
            let (status, said) = first.ask(provider, path, &body).await;
            assert_eq!(status, 200, "{said}");
            let direct = World::new(r#"{"version": 1}"#).await;
            let url = format!("{}{path}", direct.model.base_url());
            let direct = first.http.post(url).body(body.to_string()).send().await.unwrap();
            assert_eq!(said, direct.text().await.unwrap(), "{path}");

            let second = world.attempt().await;
            assert_eq!(second.ask(provider, path, &body).await, (200, said), "{path}");
            assert_eq!(world.paid(), 1, "{path}");
            let log = world.log.lock().unwrap();
            assert_eq!((log.begun.len(), log.journal.len(), log.other.len()), (1, 1, 0));
        }
    }
}

#[tokio::test]
async fn the_same_question_asked_twice_has_two_answers_each_of_which_comes_again() {
    let script = r#"{"version": 1, "turns": [{"times": 1, "text": "one"}, {"text": "two"}]}"#;
    let world = World::new(script).await;
    for _ in 0..3 {
        let attempt = world.attempt().await;
        for word in ["one", "two"] {
            let (_, said) = attempt.text(&anthropic("which?")).await;
            assert!(said.contains(word), "{said}");
        }
    }
    assert_eq!(world.paid(), 2);
}

#[tokio::test]
async fn the_end_of_an_answer_is_held_until_it_is_durable() {
    for (provider, path, _, request) in WIRES {
        let mut world = World::new(r#"{"version": 1}"#).await;
        world.sync = Duration::from_millis(300);
        let attempt = world.attempt().await;
        let mut response = attempt.send(provider, path, &request("a text")).await;
        let mut said = Vec::new();
        while let Some(piece) = response.chunk().await.unwrap() {
            said.extend_from_slice(&piece);
            let text = String::from_utf8_lossy(&said);
            let words =
                ["message_stop", "[DONE]", "response.completed", "STOP", "interaction.completed"];
            if words.iter().any(|word| text.contains(word)) {
                assert_eq!(world.log.lock().unwrap().journal.len(), 1, "{path}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn an_answer_is_read_to_its_end_though_the_harness_is_gone() {
    let script = r#"{"version": 1, "turns": [{"text": "a text that takes a while to be said",
        "pace": {"chunk_chars": 4, "chunk_delay_millis": 30}}]}"#;
    let world = World::new(script).await;
    let attempt = world.attempt().await;
    let mut response = attempt.send("anthropic", "/v1/messages", &anthropic("tell")).await;
    response.chunk().await.unwrap();
    drop(response);
    attempt.gateway.drain().await;
    assert_eq!(world.log.lock().unwrap().journal.len(), 1);
    let next = world.attempt().await;
    let (_, said) = next.text(&anthropic("tell")).await;
    assert!(said.contains("message_stop"), "{said}");
    assert_eq!(world.paid(), 1);
}

#[tokio::test]
async fn a_harness_that_asks_again_what_it_has_not_heard_is_not_charged_twice() {
    let script = r#"{"version": 1, "turns": [{"text": "a text that takes a while to be said",
        "pace": {"chunk_chars": 4, "chunk_delay_millis": 30}}]}"#;
    let world = World::new(script).await;
    let attempt = world.attempt().await;
    let mut response = attempt.send("anthropic", "/v1/messages", &anthropic("tell")).await;
    response.chunk().await.unwrap();
    drop(response);
    // The gateway notices that the connection is gone when it writes to it.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (status, said) = attempt.text(&anthropic("tell")).await;
    assert_eq!(status, 200);
    assert!(said.contains("message_stop"), "{said}");
    assert_eq!((world.paid(), world.log.lock().unwrap().begun.len()), (1, 1));
}

#[tokio::test]
async fn what_a_provider_refuses_for_a_while_is_asked_again_unseen() {
    let fault = r#"{"status": 529, "retry_after_seconds": 0}"#;
    let script = format!(
        r#"{{"version": 1, "turns": [{{"times": 1, "fault": {fault}}},
            {{"times": 1, "fault": {{"cut_after_bytes": 10}}}}, {{"text": "at last"}}]}}"#
    );
    let world = World::new(&script).await;
    let (status, said) = world.attempt().await.text(&anthropic("hello")).await;
    assert_eq!((status, said.contains("at last")), (200, true), "{said}");
    assert_eq!(world.log.lock().unwrap().begun.len(), 1);
}

#[tokio::test]
async fn what_a_provider_goes_on_refusing_is_said_and_can_be_asked_again() {
    let fault = r#"{"status": 503, "retry_after_seconds": 0}"#;
    let script = format!(
        r#"{{"version": 1, "turns": [{{"times": 3, "fault": {fault}}}, {{"text": "at last"}}]}}"#
    );
    let world = World::new(&script).await;
    let attempt = world.attempt().await;
    assert_eq!(attempt.text(&anthropic("hello")).await.0, 503);
    assert!(world.log.lock().unwrap().journal.is_empty(), "a refusal is not an answer");
    assert_eq!(attempt.text(&anthropic("hello")).await.0, 200);
    let log = world.log.lock().unwrap();
    assert_eq!((log.begun.len(), log.journal.len()), (1, 1), "it is the same step");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_recorded_like_an_answer() {
    let script = r#"{"version": 1, "turns": [{"fault": {"status": 400, "message": "no"}}]}"#;
    let world = World::new(script).await;
    for _ in 0..2 {
        let (status, said) = world.attempt().await.text(&anthropic("hello")).await;
        assert_eq!((status, said.contains("\"no\"")), (400, true), "{said}");
    }
    assert_eq!(world.model.ledger().len(), 1);
}

#[tokio::test]
async fn another_model_stands_in_for_one_that_cannot_answer() {
    let script = r#"{"version": 1, "turns": [
        {"when": {"model": "m"}, "fault": {"status": 503, "retry_after_seconds": 0}},
        {"when": {"model": "n"}, "text": "I am n"}]}"#;
    let mut world = World::new(script).await;
    world.section["models"][0]["fallback"] = json!(["n"]);
    let (status, said) = world.attempt().await.text(&anthropic("hello")).await;
    assert_eq!((status, said.contains("I am n")), (200, true), "{said}");
}

#[tokio::test]
async fn a_cut_answer_is_cut_for_the_harness_too_and_asked_again_as_the_same_step() {
    let script = r#"{"version": 1, "turns": [{"times": 1, "fault": {"cut_after_chunks": 5}},
        {"text": "whole"}]}"#;
    let world = World::new(script).await;
    let attempt = world.attempt().await;
    let response = attempt.send("anthropic", "/v1/messages", &anthropic("hello")).await;
    assert!(response.text().await.is_err());
    let (_, said) = attempt.text(&anthropic("hello")).await;
    assert!(said.contains("whole"), "{said}");
    let log = world.log.lock().unwrap();
    assert_eq!((log.begun.len(), log.journal.len()), (1, 1));
}

#[tokio::test]
async fn the_key_is_known_to_the_provider_and_to_nobody_else() {
    // A value that is in the environment of every test; it stands for a key.
    const VARIABLE: &str = "CARGO_MANIFEST_DIR";
    let key = std::env::var(VARIABLE).unwrap();
    for (provider, path, _, request) in WIRES {
        let (header, value) = match provider {
            "anthropic" => ("x-api-key", key.clone()),
            "openai" => ("authorization", format!("Bearer {key}")),
            _ => ("x-goog-api-key", key.clone()),
        };
        let turn = json!({"when": {"headers": {header: value}}, "text": "you may"});
        let wrong = json!({"fault": {"status": 401, "message": "who is it?"}});
        let script = json!({"version": 1, "turns": [turn, wrong]}).to_string();
        let mut world = World::new(&script).await;
        for provider in world.section["models"].as_array_mut().unwrap() {
            provider["apiKeyEnv"] = VARIABLE.into();
        }
        let attempt = world.attempt().await;
        let (status, said) = attempt.ask(provider, path, &request("hello")).await;
        assert_eq!((status, said.contains("you may")), (200, true), "{path}: {said}");
        let seen = format!("{said} {:?} {:?}", attempt.env, world.log.lock().unwrap());
        assert!(!seen.contains(&key), "{path}");
    }
}

#[tokio::test]
async fn a_harness_that_asks_something_else_than_before_is_stopped() {
    let world = World::new(r#"{"version": 1}"#).await;
    world.attempt().await.text(&anthropic("it is noon")).await;
    let (status, said) = world.attempt().await.text(&anthropic("it is one o'clock")).await;
    assert_eq!(status, 409, "{said}");
    assert!(said.contains("it is noon") && said.contains("one o'clock"), "{said}");
    assert_eq!(world.paid(), 1);
    while world.log.lock().unwrap().other.is_empty() {
        tokio::task::yield_now().await;
    }
    let log = world.log.lock().unwrap();
    let [Frame::Diverged { expected, found, .. }] = &log.other[..] else { panic!("{log:?}") };
    assert!(expected.contains("noon") && found.contains("one"), "{expected} {found}");
}

#[tokio::test]
async fn a_harness_that_may_ask_something_else_is_answered_and_it_is_noted() {
    let mut world = World::new(r#"{"version": 1}"#).await;
    world.section["onDivergence"] = json!("continue");
    world.attempt().await.text(&anthropic("it is noon")).await;
    let (status, _) = world.attempt().await.text(&anthropic("it is one o'clock")).await;
    assert_eq!((status, world.paid()), (200, 2));
    world.noted("gateway.divergence").await;
    let log = world.log.lock().unwrap();
    assert!(matches!(&log.other[..], [Frame::Note { name, .. }] if name == "gateway.divergence"));
}

#[tokio::test]
async fn a_question_that_had_no_answer_is_not_taken_for_another() {
    let fault = r#"{"status": 529, "retry_after_seconds": 0}"#;
    let script = format!(
        r#"{{"version": 1, "turns": [{{"when": {{"text": "one"}}, "times": 3, "fault": {fault}}},
            {{"text": "fine"}}]}}"#
    );
    let world = World::new(&script).await;
    let first = world.attempt().await;
    assert_eq!(first.text(&anthropic("one")).await.0, 529);
    assert_eq!(first.text(&anthropic("two")).await.0, 200);
    let next = world.attempt().await;
    assert_eq!(next.text(&anthropic("one")).await.0, 200, "it is asked again");
    assert_eq!(next.text(&anthropic("two")).await.0, 200);
    assert!(world.log.lock().unwrap().other.is_empty());
}

#[tokio::test]
async fn an_answer_that_was_left_aside_is_there_when_it_is_asked_for() {
    let mut world = World::new(r#"{"version": 1}"#).await;
    world.section["onDivergence"] = json!("continue");
    world.attempt().await.text(&anthropic("b")).await;
    let next = world.attempt().await;
    assert_eq!(next.text(&anthropic("a")).await.0, 200);
    assert_eq!(next.text(&anthropic("b")).await.0, 200);
    assert_eq!(world.paid(), 2, "b is not paid again");
}

#[tokio::test]
async fn a_quota_that_is_used_up_is_no_answer_for_good() {
    let script = r#"{"version": 1, "turns": [
        {"when": {"model": "m"}, "fault": {"status": 429, "message": "insufficient_quota"}},
        {"text": "from another"}]}"#;
    let mut world = World::new(script).await;
    let (status, _) = world.attempt().await.text(&anthropic("hello")).await;
    assert_eq!((status, world.model.ledger().len()), (429, 1), "asking at once does not help");
    assert!(world.log.lock().unwrap().journal.is_empty());
    world.section["models"][0]["fallback"] = json!(["n"]);
    assert_eq!(world.attempt().await.text(&anthropic("hello")).await.0, 200);
}

#[tokio::test]
async fn what_the_session_does_not_take_is_not_asked_on_and_on() {
    let script = r#"{"version": 1, "turns": [{"text": "x", "pace": {"latency_millis": 60000}}]}"#;
    let mut world = World::new(script).await;
    world.refuses = true;
    let attempt = world.attempt().await;
    let body = anthropic("hello");
    let (answer, failure) = tokio::join!(attempt.text(&body), attempt.gateway.failed());
    assert_eq!((answer.0, failure.code.as_str()), (503, "gateway"));
}

#[tokio::test]
async fn a_model_without_a_name_has_a_name_in_the_log() {
    let world = World::new(r#"{"version": 1}"#).await;
    let attempt = world.attempt().await;
    for (model, expect) in [("", 1), (&*"ü".repeat(300), 200)] {
        let mut body = anthropic("hello");
        body["model"] = model.into();
        assert_eq!(attempt.text(&body).await.0, 200);
        assert_eq!(world.log.lock().unwrap().begun.last().unwrap().1.len(), expect);
    }
}

#[tokio::test]
async fn conversations_side_by_side_come_again_in_any_order() {
    let world = World::new(r#"{"version": 1}"#).await;
    let first = world.attempt().await;
    for text in ["a", "b", "c"] {
        first.text(&anthropic(text)).await;
    }
    // The next attempt asks them in another order, and one that was not asked before first.
    let next = world.attempt().await;
    let (d, c, b, a) = (anthropic("d"), anthropic("c"), anthropic("b"), anthropic("a"));
    let answers = tokio::join!(next.text(&d), next.text(&c), next.text(&b), next.text(&a));
    assert_eq!([answers.0.0, answers.1.0, answers.2.0, answers.3.0], [200; 4]);
    assert_eq!((world.paid(), world.log.lock().unwrap().other.len()), (4, 0));
}

#[tokio::test]
async fn who_has_not_the_word_of_the_harness_is_refused() {
    let world = World::new(r#"{"version": 1}"#).await;
    let (first, second) = (world.attempt().await, world.attempt().await);
    let body = anthropic("hello").to_string();
    let url = first.url("anthropic", "/v1/messages");
    for key in [None, Some("sk-real"), Some(second.env["AX_GATEWAY_KEY"].as_str())] {
        let mut request = first.http.post(&url).body(body.clone());
        if let Some(key) = key {
            request = request.header("x-api-key", key);
        }
        assert_eq!(request.send().await.unwrap().status(), 401, "{key:?}");
    }
    assert!(world.model.ledger().is_empty());
}

#[tokio::test]
async fn a_harness_that_floods_its_gateway_harms_nobody_else() {
    let world = World::new(r#"{"version": 1}"#).await;
    let (hostile, other) = (world.attempt().await, world.attempt().await);
    let port: u16 = hostile.env["AX_GATEWAY_URL"].rsplit(':').next().unwrap().parse().unwrap();
    let mut held = Vec::new();
    for _ in 0..400 {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(b"POST /anthropic/v1/messages HTTP/1.1\r\nhost: x\r\n").await.unwrap();
        held.push(stream);
    }
    assert_eq!(other.text(&anthropic("hello")).await.0, 200);
    drop(held);
    assert_eq!(hostile.text(&anthropic("hello")).await.0, 200, "it recovers when they are gone");

    let key = &hostile.env["AX_GATEWAY_KEY"];
    let large = vec![b' '; (32 << 20) + 1];
    let request = hostile.http.post(hostile.url("anthropic", "/v1/messages")).bearer_auth(key);
    // It is answered before it is read to its end, so that the connection may break.
    let refused = request.body(large).send().await.map(|response| response.status().as_u16());
    assert!(refused.is_err() || refused.is_ok_and(|status| status == 413));
    assert_eq!(world.model.ledger().len(), 2);
}

#[tokio::test]
async fn what_is_no_model_call_goes_nowhere() {
    let world = World::new(r#"{"version": 1}"#).await;
    let attempt = world.attempt().await;
    for (provider, path) in [
        ("anthropic", "/v1/files"),
        ("anthropic", "/v1/../../messages"),
        ("anthropic", "//example.com/v1/messages"),
        ("anthropic", "/%2e%2e/v1/messages"),
        ("openai", "/v1/fine_tuning/jobs"),
        ("openai", "/v1/threads/x/messages"),
        ("gemini", "/v1beta/models/m:batchGenerateContent"),
    ] {
        let (status, said) = attempt.ask(provider, path, &json!({})).await;
        assert_eq!(status, 404, "{path}: {said}");
    }
    // What clients make plain before they send it, sent as it is.
    let port: u16 = attempt.env["AX_GATEWAY_URL"].rsplit(':').next().unwrap().parse().unwrap();
    for path in
        ["/anthropic/\\..\\v1/messages", "/anthropic/../v1/messages", "/anthropic//v1/messages"]
    {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        assert!(said.starts_with("HTTP/1.1 404") || said.starts_with("HTTP/1.1 400"), "{said}");
    }
    for body in ["", "[]", "{", "null"] {
        let key = &attempt.env["AX_GATEWAY_KEY"];
        let request = attempt.http.post(attempt.url("openai", "/v1/responses")).bearer_auth(key);
        assert_eq!(request.body(body).send().await.unwrap().status(), 400, "{body}");
    }
    assert!(world.model.ledger().is_empty());
}
