//! The LangGraph agent of `examples/langgraph`, killed in the middle of a tool call: it finishes
//! with each model call paid once and each effect once.
//!
//! `AX_LANGGRAPH_PYTHON` names an interpreter that has what the example requires; without it one
//! is made under `target/venvs`, once.

#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "crash/server.rs"]
#[expect(dead_code, reason = "another test uses more of it")]
mod server;

#[path = "langgraph/python.rs"]
#[expect(dead_code, reason = "another test uses more of it")]
mod python;

use ax_client::{Client, Item};
use ax_fakemodel::{FakeModel, Options, Script};
use ax_proto::v1;
use python::root;
use server::Server;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a tool lingers after its effect: long enough to be killed then.
const LINGER_SECONDS: u64 = 4;
/// How long an effect is waited for.
const EFFECT_MAX: Duration = Duration::from_secs(120);
/// What the customer writes, and what the agent answers.
const QUESTION: &str = "Please refund order 1042.";
const ANSWER: &str = "Your kettle, order 1042, is refunded: 40 EUR.";

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Harness,
    Both,
}

/// The example under a server of its own.
struct World {
    dir: tempfile::TempDir,
    model: FakeModel,
    server: Option<Server>,
    client: Client,
    session: String,
    input: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotent_tool_whose_harness_is_killed_has_one_effect() {
    refund_is_cut_short(Victim::Harness).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotent_tool_whose_server_and_harness_are_killed_has_one_effect() {
    refund_is_cut_short(Victim::Both).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_must_not_happen_twice_is_asked_about_when_its_harness_is_killed() {
    notice_is_cut_short(Victim::Harness).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_must_not_happen_twice_is_asked_about_when_server_and_harness_are_killed() {
    notice_is_cut_short(Victim::Both).await;
}

/// The next attempt carries the tool out again under the same key, which does nothing more.
async fn refund_is_cut_short(victim: Victim) {
    let mut world = World::start("refund").await;
    world.effect("refund").await;
    world.kill(victim).await;
    let status = world.rest().await;
    assert_eq!(status.state(), v1::State::Completed, "{status:?}");
    world.finished_once(2).await;
}

/// A person is asked; the agent goes on with what the person says.
async fn notice_is_cut_short(victim: Victim) {
    use v1::answer::{Answer, Choice};
    let mut world = World::start("notify_customer").await;
    world.effect("notify").await;
    world.kill(victim).await;
    let status = world.rest().await;
    assert_eq!(status.state(), v1::State::WaitingAsk, "{status:?}");
    let ask = &status.asks[0];
    assert!(ask.prompt.contains("What became of it?"), "{ask:?}");
    let choice = Choice { choice: "completed".into(), text: "\"sent\"".into() };
    let request = v1::AnswerRequest {
        session: world.session.clone(),
        ask: ask.ask,
        answer: Some(v1::Answer { answer: Some(Answer::Choice(choice)) }),
        ..Default::default()
    };
    world.client.answer(request).await.unwrap();
    let status = world.rest().await;
    assert_eq!(status.state(), v1::State::Completed, "{status:?}");
    world.finished_once(2).await;
}

impl World {
    /// Starts everything and gives the agent its input. The tool lingers after its effect.
    async fn start(slow_tool: &str) -> Self {
        let python = python::with(&example().join("requirements.txt"));
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let text = fs::read_to_string(example().join("model.json")).unwrap();
        let script = Script::from_json(&text).unwrap();
        let model = FakeModel::start(Options { script, ..Options::default() }).await.unwrap();
        let mut server = Server::start(&data, &[]);
        server.ready().await;
        let client = server::client(&data);
        let manifest = manifest(&python, &model, slow_tool, dir.path());
        let dir_text = example().to_str().unwrap().to_owned();
        let request = v1::ApplyAgentRequest { manifest, dir: dir_text, ..Default::default() };
        client.apply_agent(request).await.unwrap();
        let body = Some(v1::Body { body: Some(v1::body::Body::Text(QUESTION.into())) });
        let kind = v1::PartKind::Text.into();
        let part = v1::Part { kind, media_type: "text/plain".into(), name: String::new(), body };
        let request = v1::SubmitRequest {
            session: "customer".into(),
            agent: "langgraph-demo".into(),
            parts: vec![part],
            ..Default::default()
        };
        let sent = client.submit(request).await.unwrap();
        let (session, input) = (sent.session, sent.seq);
        Self { dir, model, server: Some(server), client, session, input }
    }

    fn effects(&self) -> Vec<String> {
        let text = fs::read_to_string(effects_file(self.dir.path())).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until the tool has done what the world can see.
    async fn effect(&mut self, word: &str) {
        let began = Instant::now();
        while !self.effects().iter().any(|line| line.starts_with(word)) {
            let server = self.server.as_mut().unwrap();
            assert!(server.has_ended().is_none(), "{}", server.errors());
            assert!(began.elapsed() < EFFECT_MAX, "no {word}: {:?}", self.show().await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Kills in the middle of the tool call, and starts the server again if it was hit.
    async fn kill(&mut self, victim: Victim) {
        let harness = server::find(&self.mark());
        assert_eq!(harness.len(), 1, "one harness runs");
        if victim == Victim::Harness {
            return harness[0].kill();
        }
        let data = self.dir.path().join("data");
        self.server.take().unwrap().kill();
        harness[0].kill();
        let mut server = Server::start(&data, &[]);
        server.ready().await;
        self.server = Some(server);
    }

    /// What the command line of the harness has, and no other.
    fn mark(&self) -> String {
        mark(self.dir.path())
    }

    async fn show(&self) -> v1::Session {
        let request = v1::GetSessionRequest { session: self.session.clone(), ..Default::default() };
        self.client.get_session(request).await.unwrap().session.unwrap()
    }

    /// Waits until the input is done with, or a person is asked.
    async fn rest(&self) -> v1::Status {
        let mut follow = self.client.follow(v1::FollowRequest {
            session: self.session.clone(),
            after: self.show().await.last,
            until_input: self.input,
            ..Default::default()
        });
        loop {
            match follow.next().await.unwrap() {
                Some(Item::End(end)) => return end.status.unwrap(),
                Some(_) => {}
                None => panic!("it ends with its end"),
            }
        }
    }

    /// Each effect is there once, each model call was paid once, and the answer is the answer.
    async fn finished_once(mut self, attempts: usize) {
        let effects = self.effects();
        let count = |word: &str| effects.iter().filter(|line| line.starts_with(word)).count();
        assert_eq!((count("refund"), count("notify"), effects.len()), (1, 1, 2), "{effects:?}");
        let ledger = self.model.ledger();
        let mut turns: Vec<u64> =
            ledger.iter().filter(|entry| entry.is_paid()).map(|entry| entry.turn).collect();
        turns.sort_unstable();
        assert_eq!(turns, [0, 1, 2, 3], "each model call is paid once");
        let request = v1::ListEventsRequest { session: self.session.clone(), ..Default::default() };
        let events = self.client.list_events(request).await.unwrap().events;
        let is_attempt =
            |event: &&v1::Event| matches!(event.kind, Some(v1::event::Kind::AttemptStarted(_)));
        assert_eq!(events.iter().filter(is_attempt).count(), attempts);
        let said = events.iter().any(|event| format!("{event:?}").contains(ANSWER));
        assert!(said, "the answer is in the log");
        assert!(self.server.take().unwrap().stop().success());
        assert_eq!(server::find(&self.mark()).len(), 0, "nothing is left");
    }
}

fn example() -> PathBuf {
    root().join("examples/langgraph")
}

fn effects_file(dir: &Path) -> PathBuf {
    dir.join("effects.txt")
}

fn mark(dir: &Path) -> String {
    format!("--mark={}", dir.display())
}

/// The manifest of the example, with another interpreter and another model.
fn manifest(python: &Path, model: &FakeModel, slow_tool: &str, dir: &Path) -> String {
    let text = fs::read_to_string(example().join("agent.yaml")).unwrap();
    let (head, command, env) = (
        text.split("    command:").next().unwrap(),
        format!("[\"{}\", agent.py, \"{}\"]", python.display(), mark(dir)),
        [
            ("MODEL_BASE_URL", model.base_url()),
            ("EFFECTS_FILE", effects_file(dir).display().to_string()),
            ("SLOW_TOOL", slow_tool.to_owned()),
            ("TOOL_SECONDS", LINGER_SECONDS.to_string()),
            ("PYTHONPATH", root().join("sdk/python/src").display().to_string()),
            ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
        ],
    );
    assert!(head.contains("type: process"), "the example is what it was: {text}");
    let env: String =
        env.iter().map(|(name, value)| format!("      {name}: {value:?}\n")).collect();
    format!(
        "{head}    command: {command}\n    protocol: jsonl\n    env:\n{env}  limits:\n    \
         retry: {{backoffMin: 10ms, backoffMax: 50ms}}\n"
    )
}
