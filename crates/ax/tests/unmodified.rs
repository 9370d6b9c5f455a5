//! The LangGraph agent of `examples/unmodified`, which has never heard of Agent Executor: its
//! harness, its server, or both are killed at random moments while its model speaks and its tools
//! work. It finishes; no answer is paid twice but one that was under way when the server died; what
//! must not happen twice does not, and a person is asked where nobody can know.
//!
//! `AX_UNMODIFIED_ROUNDS` and `AX_SEED` say how often and from where.

#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::print_stdout, reason = "its figures are its purpose")]

#[path = "crash/server.rs"]
#[expect(dead_code, reason = "another test uses more of it")]
mod server;

#[path = "crash/dice.rs"]
#[expect(dead_code, reason = "another test uses more of it")]
mod dice;

#[path = "langgraph/python.rs"]
mod python;

use ax_client::Client;
use ax_fakemodel::{FakeModel, Options, Script};
use ax_proto::v1;
use ax_proto::v1::event::Kind;
use dice::Dice;
use python::root;
use server::Server;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How many questions the agent has.
const CALL_COUNT: usize = 13;
/// What it answers in the end.
const ANSWER: &str = "All 12 shelves are done.";
/// How many shelves are labeled, and how many are sent.
const SHELF_COUNT: usize = 4;
/// How long a tool lingers after its effect, in seconds: long enough to be killed then.
const LINGER_SECONDS: &str = "0.15";
/// How often somebody is killed in a round.
const KILL_COUNT: u64 = 2;
/// How long a call is waited for.
const CALL_MAX: Duration = Duration::from_secs(120);

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Harness,
    Server,
    Both,
}

/// What was counted in all rounds.
#[derive(Debug, Default)]
struct Counts {
    rounds: u64,
    kills: u64,
    server_kills: u64,
    paid: usize,
    paid_again: usize,
    /// Labels that were put on a second time, under the same key.
    labeled_again: usize,
    /// How often a person was asked what became of a call.
    unknown: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unmodified_agent_that_is_killed_pays_no_answer_twice() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().unwrap())
    };
    let (rounds, seed) = (number("AX_UNMODIFIED_ROUNDS", 2), number("AX_SEED", 1));
    let python = python::with(&example().join("requirements.txt"));
    let mut counts = Counts::default();
    for round in 0..rounds {
        play(&python, seed.wrapping_add(round), &mut counts).await;
    }
    let Counts { rounds, kills, server_kills, paid, paid_again, labeled_again, unknown } = counts;
    let figures = serde_json::json!({
        "name": "unmodified", "rounds": rounds, "kills": kills, "server_kills": server_kills,
        "model_calls_paid": paid, "model_calls_again": paid_again,
        "idempotent_calls_again": labeled_again, "once_effects_twice": 0, "unknown": unknown,
        "not_finished": 0, "diverged": 0,
    });
    println!("{figures}");
}

/// Lets the agent work once, and somebody be killed on the way.
async fn play(python: &Path, seed: u64, counts: &mut Counts) {
    let mut dice = Dice::new(seed);
    let dir = tempfile::tempdir().unwrap();
    let (data, mark) = (dir.path().join("data"), format!("--mark={}", dir.path().display()));
    let script = fs::read_to_string(example().join("model.json")).unwrap();
    let script = Script::from_json(&script).unwrap();
    let model = FakeModel::start(Options { script, ..Options::default() }).await.unwrap();
    let mut server = Server::start(&data, &[]);
    server.ready().await;
    let client = server::client(&data);
    let request = v1::ApplyAgentRequest {
        manifest: manifest(python, &model, &mark, dir.path()),
        dir: example().display().to_string(),
        ..Default::default()
    };
    client.apply_agent(request).await.unwrap();
    submit(&client).await;
    let asked_count = Arc::new(AtomicU64::new(0));
    let person = person(client.clone(), effects_file(dir.path()), Arc::clone(&asked_count));
    let person = tokio::spawn(person);
    let mut servers_killed = 0;
    // The moments are places in the conversation, each of them later than the one before.
    for kill in 0..KILL_COUNT {
        let span = CALL_COUNT as u64 / KILL_COUNT;
        let calls = kill * span + dice.between(1, span);
        let pause = Duration::from_millis(dice.between(0, 350));
        let victim = dice.pick(&[Victim::Harness, Victim::Server, Victim::Both]);
        asked(&model, calls, &mut server).await;
        tokio::time::sleep(pause).await;
        counts.kills += 1;
        let harness = server::find(&mark);
        if victim == Victim::Harness {
            harness.iter().for_each(server::Found::kill);
            continue;
        }
        servers_killed += 1;
        server.kill();
        if victim == Victim::Both {
            harness.iter().for_each(server::Found::kill);
        }
        server = Server::start(&data, &[]);
        server.ready().await;
    }
    rest(&client).await;
    person.abort();
    counts.unknown += asked_count.load(Ordering::Relaxed);
    let events = events(&client).await;
    judge(seed, servers_killed, &events, &effects(&effects_file(dir.path())), counts);
    judge_model(seed, servers_killed, &model, counts);
    counts.rounds += 1;
    counts.server_kills += servers_killed as u64;
    assert!(server.stop().success());
    assert_eq!(server::find(&mark).len(), 0, "nothing is left");
}

/// Looks at what the log and the world have of it.
fn judge(
    seed: u64,
    servers_killed: usize,
    events: &[v1::Event],
    effects: &[String],
    counts: &mut Counts,
) {
    let (sent, labeled): (Vec<_>, Vec<_>) =
        effects.iter().partition(|line| line.starts_with("send"));
    let different = |lines: &[&String]| lines.iter().collect::<BTreeSet<_>>().len();
    assert_eq!((sent.len(), different(&sent)), (SHELF_COUNT, SHELF_COUNT), "{seed}: {effects:?}");
    assert_eq!(different(&labeled), SHELF_COUNT, "{seed}: {effects:?}");
    let labeled_again = labeled.len() - SHELF_COUNT;
    assert!(labeled_again <= servers_killed, "{seed}: {effects:?}");
    counts.labeled_again += labeled_again;
    let said = events.iter().any(|event| format!("{event:?}").contains(ANSWER));
    assert!(said, "seed {seed}: the answer is in the log: {:?}", events.last());
    let diverged = events.iter().any(|event| matches!(event.kind, Some(Kind::StepDiverged(_))));
    assert!(!diverged, "seed {seed}: {events:?}");
}

/// Looks at what was paid.
fn judge_model(seed: u64, servers_killed: usize, model: &FakeModel, counts: &mut Counts) {
    let ledger = model.ledger();
    let paid: Vec<_> = ledger.iter().filter(|entry| entry.is_paid()).collect();
    let questions: BTreeSet<_> = paid.iter().map(|entry| &entry.request_hash).collect();
    assert_eq!(questions.len(), CALL_COUNT, "seed {seed}: it asked the same questions");
    let again = paid.len() - questions.len();
    assert!(again <= servers_killed, "seed {seed}: {again} answers were paid again");
    counts.paid += paid.len();
    counts.paid_again += again;
}

/// Waits until the model was asked so often for something new.
async fn asked(model: &FakeModel, calls: u64, server: &mut Server) {
    let began = Instant::now();
    loop {
        let ledger = model.ledger();
        let questions: BTreeSet<_> = ledger.iter().map(|entry| &entry.request_hash).collect();
        if questions.len() as u64 >= calls {
            return;
        }
        assert!(server.has_ended().is_none(), "{}", server.errors());
        assert!(began.elapsed() < CALL_MAX, "it does not get on: {}", server.errors());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn submit(client: &Client) {
    let body = Some(v1::Body { body: Some(v1::body::Body::Text("How many boxes?".into())) });
    let kind = v1::PartKind::Text.into();
    let part = v1::Part { kind, media_type: "text/plain".into(), name: String::new(), body };
    let request = v1::SubmitRequest {
        session: "boxes".into(),
        agent: "warehouse".into(),
        parts: vec![part],
        ..Default::default()
    };
    client.submit(request).await.unwrap();
}

/// Waits until the session has an end.
async fn rest(client: &Client) {
    let began = Instant::now();
    loop {
        let status = status(client).await;
        match status.state() {
            v1::State::Completed => return,
            v1::State::Failed => panic!("{status:?}"),
            _ => assert!(began.elapsed() < CALL_MAX, "it does not end: {status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Says what became of calls that nobody else knows of; counts them.
async fn person(client: Client, file: PathBuf, asked: Arc<AtomicU64>) {
    use v1::answer::{Answer, Choice};
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let status = status(&client).await;
        let Some(ask) = status.asks.first() else { continue };
        assert!(ask.prompt.contains("What became of it?"), "{ask:?}");
        let sent = effects(&file).iter().filter(|line| line.starts_with("send")).count();
        let events = events(&client).await;
        let steps: BTreeSet<_> = events.iter().filter_map(sending).collect();
        // All but the one that is asked about are known to have come to their end.
        let choice = if sent == steps.len() { "completed" } else { "retry" };
        let choice = Choice { choice: choice.into(), text: "\"it is on its way\"".into() };
        let request = v1::AnswerRequest {
            session: "boxes".into(),
            ask: ask.ask,
            answer: Some(v1::Answer { answer: Some(Answer::Choice(choice)) }),
            ..Default::default()
        };
        client.answer(request).await.unwrap();
        asked.fetch_add(1, Ordering::Relaxed);
    }
}

/// The key of a step that must not happen twice, if the event begins one.
fn sending(event: &v1::Event) -> Option<&str> {
    match &event.kind {
        Some(Kind::StepStarted(step)) if step.effect() == v1::EffectClass::Once => Some(&step.step),
        _ => None,
    }
}

async fn status(client: &Client) -> v1::Status {
    let request = v1::GetSessionRequest { session: "boxes".into(), ..Default::default() };
    client.get_session(request).await.unwrap().session.unwrap().status.unwrap()
}

async fn events(client: &Client) -> Vec<v1::Event> {
    let request =
        v1::ListEventsRequest { session: "boxes".into(), limit: 1_000, ..Default::default() };
    client.list_events(request).await.unwrap().events
}

fn effects_file(dir: &Path) -> PathBuf {
    dir.join("effects.txt")
}

fn effects(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn example() -> PathBuf {
    root().join("examples/unmodified")
}

/// The manifest of the example, with another interpreter and another model.
fn manifest(python: &Path, model: &FakeModel, mark: &str, dir: &Path) -> String {
    let text = fs::read_to_string(example().join("agent.yaml")).unwrap();
    let command = format!("command: [\"{}\", agent.py, \"{mark}\"]", python.display());
    let program = format!("command: [\"{}\", \"warehouse.py\"]", python.display());
    let effects = format!(
        "{{EFFECTS: \"{}\", TOOL_SECONDS: \"{LINGER_SECONDS}\"}}",
        effects_file(dir).display()
    );
    let changed = text
        .replace("command: [\"python3\", \"warehouse.py\"]", &program)
        .replace("{EFFECTS: \"effects.txt\"}", &effects)
        .replace("command: [\"python3\", \"agent.py\"]", &command)
        .replace("http://127.0.0.1:8484", &model.base_url());
    let all = [&command, &program, &effects, &model.base_url()];
    assert!(all.into_iter().all(|part| changed.contains(part)), "{changed}");
    format!("{changed}  limits:\n    retry: {{backoffMin: 10ms, backoffMax: 50ms}}\n")
}
