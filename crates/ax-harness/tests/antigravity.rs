//! The adapter for Antigravity, with a program that says what the real one has said.
#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use ax_core::id::{AttemptId, ExecId, Seq};
use ax_core::session::{Answer, AskKind, Body, Failure, Frame, PartKind};
use ax_harness::{
    AntigravityHarness, AskResult, Exit, JournalEntry, JournalKind, Launch, Launcher, Role, Told,
    Turn,
};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use support::{Rig, Running, gone, text};

/// The manifest of an agent that says a recorded turn.
fn agent(turn: &str, env: &[(&str, &str)]) -> Value {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let program = tests.join("support/antigravity_program.py");
    let turn = tests.join(format!("antigravity/{turn}.jsonl"));
    let mut harness = json!({
        "type": "antigravity",
        "model": "gemini-2.5-flash",
        "command": ["python3", program],
        "env": {"GEMINI_API_KEY": "k", "TURN": turn, "HEARD": "{workspace}/heard"},
        "permissions": "allow",
        "stop_grace_ms": 200,
    });
    for (name, value) in env {
        harness["env"][name] = json!(value);
    }
    harness
}

struct Played {
    frames: Vec<Frame>,
    exit: Exit,
}

impl Played {
    fn text(&self, kind: PartKind) -> String {
        let deltas = self.frames.iter().filter_map(|frame| match frame {
            Frame::Delta { part, text, .. } if *part == kind => Some(text.as_str()),
            _ => None,
        });
        deltas.collect()
    }

    fn parts(&self, kind: PartKind) -> Vec<Value> {
        let parts = self.frames.iter().filter_map(|frame| match frame {
            Frame::Output { parts, .. } => Some(parts),
            _ => None,
        });
        parts.flatten().filter(|part| part.kind == kind).map(|part| json(&part.body)).collect()
    }

    /// How the attempt came by the program's session.
    fn how(&self) -> String {
        let how = self.frames.iter().find_map(|frame| match frame {
            Frame::Note { name, data, .. } if name == "antigravity.session" => {
                Some(json(data)["how"].as_str()?.to_owned())
            }
            _ => None,
        });
        how.unwrap()
    }

    fn failed(&self) -> (Failure, bool) {
        match self.frames.last() {
            Some(Frame::Fail { failure, retry }) => (failure.clone(), *retry),
            other => panic!("{other:?}"),
        }
    }
}

fn json(body: &Body) -> Value {
    let Body::Text(text) = body else { panic!("a text") };
    serde_json::from_str(text).unwrap()
}

fn start(rig: &Rig, launch: Launch) -> Running {
    let launcher: Arc<dyn Launcher> = Arc::new(AntigravityHarness::new(rig.options()));
    Running::start(&launcher, launch)
}

/// Answers as the engine does, until a person is asked.
async fn step(running: &mut Running, frames: &mut Vec<Frame>) -> Option<Frame> {
    loop {
        let frame = running.frames.recv().await?;
        frames.push(frame.clone());
        match &frame {
            Frame::Ask { .. } => return Some(frame),
            _ => {
                if let Some(key) = frame.key() {
                    let told = Told::Recorded { key: key.clone(), seq: Seq(9), before: None };
                    running.tell(told).await;
                }
            }
        }
    }
}

async fn play(rig: &Rig, launch: Launch) -> Played {
    let mut running = start(rig, launch);
    let mut frames = Vec::new();
    let asked = step(&mut running, &mut frames).await;
    assert_eq!(asked, None, "nobody is there to answer");
    let exit = running.exit().await;
    rig.assert_nothing_runs();
    Played { frames, exit }
}

fn heard(rig: &Rig) -> Vec<Value> {
    let text = std::fs::read_to_string(rig.workspace().join("heard")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_turn_is_said_in_full() {
    let rig = Rig::new();
    let played = play(&rig, rig.launch(agent("tools", &[]))).await;
    assert_eq!((played.exit.clone(), played.frames.last()), (Exit::Said, Some(&support::end())));
    assert_eq!(played.text(PartKind::Thought), "I should look first.");
    assert_eq!(played.text(PartKind::Text), "I look around.All is on its way.");
    let names = |parts: Vec<Value>| -> Vec<String> {
        parts.iter().map(|part| part["name"].as_str().unwrap().to_owned()).collect()
    };
    let expect = ["run_command", "mcp_warehouse_send", "view_file"];
    assert_eq!(names(played.parts(PartKind::ToolCall)), expect);
    assert_eq!(names(played.parts(PartKind::ToolResult)), expect);
    assert_eq!(played.parts(PartKind::ToolResult)[0]["result"]["exit_code"], 0);
    assert_eq!(played.how(), "new");
    let heard = heard(&rig);
    let config = &heard[0]["config"];
    assert_eq!(config["sessionContinuationMode"], "CREATE_ONLY");
    assert_eq!(config["models"][0]["geminiApiEndpoint"], json!({"apiKey": "k"}));
    assert_eq!(heard[1], json!({"userInput": {"parts": [{"text": "hello"}]}}));
    let hooks = heard[2..].iter().all(|told| told["callHookResponse"].is_object());
    assert!(hooks, "{heard:?}");
}

#[tokio::test]
async fn the_next_input_goes_to_the_same_trajectory_and_a_new_place_is_told_what_was_said() {
    let rig = Rig::new();
    drop(play(&rig, rig.launch(agent("tools", &[]))).await);
    let mut next = rig.launch(agent("tools", &[]));
    next.exec = ExecId(2);
    next.history = vec![
        Turn { role: Role::User, parts: vec![text("say one")] },
        Turn { role: Role::Agent, parts: vec![text("one")] },
    ];
    assert_eq!(play(&rig, next.clone()).await.how(), "resume");
    let elsewhere = Rig::new();
    next.workspace = elsewhere.workspace();
    assert_eq!(play(&elsewhere, next.clone()).await.how(), "trajectory");
    let told = &heard(&elsewhere)[0]["config"]["initialTrajectory"];
    assert!(told.as_str().is_some_and(|told| !told.is_empty()), "{told}");
    let as_text = Rig::new();
    next.workspace = as_text.workspace();
    next.agent.harness["history"] = json!("text");
    assert_eq!(play(&as_text, next).await.how(), "text");
    let parts = heard(&as_text)[1]["userInput"]["parts"].clone();
    assert!(parts[0]["text"].as_str().unwrap().contains("User: say one"), "{parts}");
    assert_eq!(parts[1], json!({"text": "hello"}));
}

#[tokio::test]
async fn a_person_decides_and_is_not_asked_again() {
    let rig = Rig::new();
    let mut harness = agent("denied", &[]);
    harness["permissions"] = json!("ask");
    let mut running = start(&rig, rig.launch(harness.clone()));
    let mut frames = Vec::new();
    let Some(Frame::Ask { key, kind: AskKind::Approval, prompt, .. }) =
        step(&mut running, &mut frames).await
    else {
        panic!("{frames:?}")
    };
    assert_eq!(prompt, "May the agent do this? run_command: rm -r /");
    let made = frames.iter().any(|frame| matches!(frame, Frame::Output { key: Some(_), .. }));
    assert!(made, "the call is recorded before a person is asked");
    running.tell(Told::Park { grace_millis: 100 }).await;
    assert_eq!(gone(running.exit().await).code, "parked");
    let mut again = rig.launch(harness);
    again.attempt = AttemptId(2);
    let result = AskResult::Answered(Answer::Deny("not that".into()));
    again.journal = vec![JournalEntry { key, seq: Seq(5), kind: JournalKind::Ask(Some(result)) }];
    let played = play(&rig, again).await;
    assert_eq!(played.exit, Exit::Said);
    let why = "a person did not permit it: not that";
    assert_eq!(played.parts(PartKind::ToolResult)[0]["error"], why);
    let told = heard(&rig).pop().unwrap();
    let expect = json!({"decision": "DENY", "reason": why});
    assert_eq!(told["callHookResponse"]["preToolResult"], expect);
}

#[tokio::test]
async fn a_question_of_the_agent_is_answered() {
    let rig = Rig::new();
    let mut running = start(&rig, rig.launch(agent("question", &[])));
    let mut frames = Vec::new();
    let Some(Frame::Ask { key, kind: AskKind::Choice, choices, .. }) =
        step(&mut running, &mut frames).await
    else {
        panic!("{frames:?}")
    };
    assert_eq!(choices, ["red", "green"]);
    let result = AskResult::Answered(Answer::Choice("green".into(), String::new()));
    running.tell(Told::Answered { key, result }).await;
    assert_eq!(step(&mut running, &mut frames).await, None);
    assert_eq!(running.exit().await, Exit::Said);
    let mut responses =
        heard(&rig).into_iter().filter_map(|told| told.get("questionResponse").cloned());
    let answers = json!([{"multipleChoiceAnswer": {"selectedChoiceIndices": [1]}}]);
    assert_eq!(responses.next_back().unwrap()["response"]["answers"], answers);
}

#[tokio::test]
async fn a_program_that_dies_at_any_message_loses_the_attempt_only() {
    let said = include_str!("antigravity/tools.jsonl").lines().count();
    for at in [0, 1, 4, 9, 20, said - 1] {
        let rig = Rig::new();
        let played = play(&rig, rig.launch(agent("tools", &[("DIES_AT", &at.to_string())]))).await;
        let failure = gone(played.exit);
        assert_eq!(failure.code, "agent_gone", "at {at}: {failure:?}");
        let mut again = rig.launch(agent("tools", &[]));
        again.attempt = AttemptId(2);
        let played = play(&rig, again).await;
        assert_eq!((played.exit.clone(), played.how()), (Exit::Said, "new".into()), "at {at}");
    }
}

#[tokio::test]
async fn what_the_model_breaks_is_not_tried_again() {
    let rig = Rig::new();
    let (failure, retry) = play(&rig, rig.launch(agent("model-error", &[]))).await.failed();
    assert_eq!((failure.code.as_str(), retry), ("agent", false));
    assert!(failure.message.contains("status 400 on demand"), "{failure:?}");
}

#[tokio::test]
async fn a_program_that_refuses_says_why() {
    let rig = Rig::new();
    let played = play(&rig, rig.launch(agent("tools", &[("REFUSES", "1")]))).await;
    let failure = gone(played.exit);
    assert_eq!(failure.code, "output_closed");
    assert!(failure.message.contains("there is no such session"), "{failure:?}");
}

#[tokio::test]
async fn another_program_is_named_as_such() {
    let check = async |command: Value, expect: &str| {
        let rig = Rig::new();
        let mut harness = agent("tools", &[]);
        harness["command"] = command;
        harness["ready_ms"] = json!(1_000);
        let failure = gone(play(&rig, rig.launch(harness)).await.exit);
        assert_eq!(failure.code, expect, "{failure:?}");
    };
    check(json!(["cat"]), "protocol").await;
    check(json!(["sleep", "1000"]), "not_ready").await;
    check(json!(["sh", "-c", "exit 3"]), "agent_gone").await;
    check(json!(["/does/not/exist"]), "spawn").await;
}

#[tokio::test]
async fn an_agent_without_a_model_is_refused_at_once() {
    let rig = Rig::new();
    let mut harness = agent("tools", &[]);
    harness["env"].as_object_mut().unwrap().remove("GEMINI_API_KEY");
    let (failure, retry) = play(&rig, rig.launch(harness)).await.failed();
    assert_eq!((failure.code.as_str(), retry), ("config", false));
}
