//! The adapter for agents of the Agent Client Protocol, with an agent that behaves, and one that
//! does not.
#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use ax_core::id::{AttemptId, ExecId, Seq};
use ax_core::session::{Answer, AskKind, Body, Failure, Frame, PartKind, StepKey};
use ax_harness::{
    AcpHarness, AskResult, Content, Exit, JournalEntry, JournalKind, Launch, Launcher, Role, Told,
    Turn,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use support::{Rig, Running, gone, text, until};

/// The steps of the protocol at which an agent can die before its turn.
const STEPS: [&str; 4] = ["initialize", "authenticate", "session/new", "session/prompt"];

/// The manifest of the agent of the tests, with more in its environment.
fn agent(env: &[(&str, &str)]) -> Value {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/acp_agent.py");
    let mut harness = json!({
        "type": "acp",
        "command": ["python3", program],
        "env": {"STATE": "{state}", "HEARD": "{workspace}/heard"},
        "authMethod": "key",
        "stop_grace_ms": 200,
    });
    for (name, value) in env {
        harness["env"][name] = json!(value);
    }
    harness
}

/// Everything that became of an attempt.
struct Played {
    frames: Vec<Frame>,
    exit: Exit,
}

impl Played {
    /// The text of a kind that the agent said.
    fn text(&self, kind: PartKind) -> String {
        let deltas = self.frames.iter().filter_map(|frame| match frame {
            Frame::Delta { part, text, .. } if *part == kind => Some(text.as_str()),
            _ => None,
        });
        deltas.collect()
    }

    fn said(&self) -> String {
        self.text(PartKind::Text)
    }

    fn parts(&self, kind: PartKind) -> Vec<Value> {
        let parts = self.frames.iter().filter_map(|frame| match frame {
            Frame::Output { parts, .. } => Some(parts),
            _ => None,
        });
        let of_kind = parts.flatten().filter(|part| part.kind == kind);
        of_kind.map(|part| json(&part.body)).collect()
    }

    fn notes(&self, wanted: &str) -> Vec<Value> {
        let notes = self.frames.iter().filter_map(|frame| match frame {
            Frame::Note { name, data, .. } if name == wanted => Some(json(data)),
            _ => None,
        });
        notes.collect()
    }

    /// The agent's name for its session, and how it was come by.
    fn session(&self) -> (String, String) {
        let note = &self.notes("acp.session")[0];
        (note["session"].as_str().unwrap().into(), note["how"].as_str().unwrap().into())
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
    let launcher: Arc<dyn Launcher> = Arc::new(AcpHarness::new(rig.options()));
    Running::start(&launcher, launch)
}

/// Answers as the engine does, until there is something that it does not know.
async fn step(running: &mut Running, frames: &mut Vec<Frame>) -> Option<Frame> {
    loop {
        let frame = running.frames.recv().await?;
        frames.push(frame.clone());
        match &frame {
            Frame::Note { key: Some(key), .. } => {
                let told = Told::Recorded { key: key.clone(), seq: Seq(9), before: None };
                running.tell(told).await;
            }
            Frame::Ask { .. } => return Some(frame),
            _ => {}
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

fn launch(rig: &Rig, harness: Value, words: &str) -> Launch {
    let mut launch = rig.launch(harness);
    launch.input = vec![text(words)];
    launch
}

fn next_attempt(mut launch: Launch) -> Launch {
    launch.attempt = AttemptId(launch.attempt.0 + 1);
    launch
}

fn next_input(rig: &Rig, harness: Value, words: &str, exec: u32) -> Launch {
    let mut launch = launch(rig, harness, words);
    launch.exec = ExecId(exec);
    launch.history = vec![
        Turn { role: Role::User, parts: vec![text("say one")] },
        Turn { role: Role::Agent, parts: vec![text("one")] },
    ];
    launch
}

fn heard(rig: &Rig) -> Vec<Value> {
    let text = std::fs::read_to_string(rig.workspace().join("heard")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn heard_methods(rig: &Rig) -> Vec<String> {
    let methods = heard(rig).into_iter().filter_map(|it| Some(it["method"].as_str()?.to_owned()));
    methods.collect()
}

#[tokio::test]
async fn a_turn_is_said_in_full() {
    let rig = Rig::new();
    let words = "think hm\nsay hello\nplan two steps\ntool ls\nsay done";
    let played = play(&rig, launch(&rig, agent(&[]), words)).await;
    assert_eq!(played.exit, Exit::Said);
    assert_eq!(played.frames.last(), Some(&Frame::End { result: None }));
    assert_eq!((played.text(PartKind::Thought), played.said()), ("hm".into(), "hellodone".into()));
    let call = json!({"id": "call-ls", "name": "execute", "kind": "execute", "title": "ls",
        "arguments": {"command": "ls"}});
    assert_eq!(played.parts(PartKind::ToolCall), [call]);
    let result = &played.parts(PartKind::ToolResult)[0];
    assert_eq!((&result["result"], &result["status"]), (&json!("ls is done"), &json!("completed")));
    assert_eq!(played.notes("acp.plan")[0]["entries"], json!([{"content": "two steps"}]));
    assert_eq!(played.notes("acp.stop")[0]["stopReason"], "end_turn");
    assert_eq!(played.session().1, "new");
    let recorded = played.frames.iter().position(|frame| frame.key().is_some()).unwrap();
    let spoken = played.frames.iter().position(|frame| matches!(frame, Frame::Delta { .. }));
    assert!(recorded < spoken.unwrap(), "the session is recorded before anything is said");
    let expect = ["initialize", "authenticate", "session/new", "session/prompt", "session/close"];
    assert_eq!(heard_methods(&rig), expect);
    let offered = &heard(&rig)[0]["params"]["clientCapabilities"];
    let none = json!({"fs": {"readTextFile": false, "writeTextFile": false}, "terminal": false});
    assert_eq!(*offered, none, "no files and no terminals");
}

#[tokio::test]
async fn the_next_input_goes_to_the_same_session() {
    for (offers, how) in [("load", "load"), ("load,resume,close", "resume")] {
        let rig = Rig::new();
        let harness = agent(&[("OFFERS", offers)]);
        let first = play(&rig, launch(&rig, harness.clone(), "say one")).await;
        let second = play(&rig, next_input(&rig, harness, "remember", 2)).await;
        assert_eq!(second.session(), (first.session().0, how.into()));
        assert_eq!(second.said(), "[\"say one\", \"remember\"]", "nothing old is said again");
    }
}

#[tokio::test]
async fn an_agent_without_a_memory_is_told_what_was_said() {
    for offers in ["none", "load,resume"] {
        let rig = Rig::new();
        let harness = agent(&[("OFFERS", offers)]);
        drop(play(&rig, launch(&rig, harness.clone(), "say one")).await);
        for entry in std::fs::read_dir(rig.workspace().join(".ax/acp/live/state")).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        let second = play(&rig, next_input(&rig, harness, "remember", 2)).await;
        assert_eq!(second.session().1, "new");
        assert!(second.said().contains("User: say one\\n\\nYou: one"), "{}", second.said());
        let lost = second.notes("acp.session_lost").len();
        assert_eq!(lost, if offers == "none" { 0 } else { 2 });
    }
}

#[tokio::test]
async fn an_attempt_does_as_the_one_before_it_did() {
    let rig = Rig::new();
    drop(play(&rig, launch(&rig, agent(&[]), "say one")).await);
    let mut again = next_attempt(next_input(&rig, agent(&[]), "remember", 2));
    let kind = JournalKind::Note { name: "acp.session".into() };
    again.journal = vec![JournalEntry { key: "acp:session:1:new".into(), seq: Seq(5), kind }];
    let played = play(&rig, again).await;
    assert_eq!(played.session().1, "new", "the session could not be taken up then");
    assert!(played.said().contains("User: say one"), "{}", played.said());
}

#[tokio::test]
async fn an_agent_that_dies_at_any_step_is_begun_again() {
    for step in STEPS {
        for what in ["die", "exit"] {
            let rig = Rig::new();
            let fault = format!("{step}:{what}");
            let launch = launch(&rig, agent(&[("FAULT", &fault)]), "say one\nremember");
            let first = play(&rig, launch.clone()).await;
            assert_eq!(gone(first.exit).code, "agent_gone", "{fault}");
            let second = play(&rig, next_attempt(launch)).await;
            assert_eq!(second.exit, Exit::Said, "{fault}");
            assert_eq!(second.session().1, "new", "{fault}");
            assert_eq!(second.said(), "one[\"say one\\nremember\"]", "{fault}");
        }
    }
}

#[tokio::test]
async fn a_turn_that_was_cut_begins_again_from_where_it_began() {
    let rig = Rig::new();
    let first = play(&rig, launch(&rig, agent(&[]), "say one")).await;
    let cut = next_input(&rig, agent(&[]), "say half\ntool t\ndie\nremember", 2);
    let died = play(&rig, cut.clone()).await;
    assert_eq!(gone(died.exit).code, "agent_gone");
    let again = play(&rig, next_attempt(cut)).await;
    assert_eq!(again.session(), (first.session().0, "resume".into()));
    let known = "half[\"say one\", \"say half\\ntool t\\ndie\\nremember\"]";
    assert_eq!(again.said(), known, "the half turn is not known");
    let effects = std::fs::read_to_string(rig.workspace().join("effects")).unwrap();
    assert_eq!(effects, "t\nt\n", "its own tools are used again");
}

#[tokio::test]
async fn an_agent_can_be_told_to_go_on_instead() {
    let rig = Rig::new();
    let mut harness = agent(&[]);
    harness["afterCrash"] = json!("continue");
    let cut = launch(&rig, harness, "die\nremember");
    assert_eq!(gone(play(&rig, cut.clone()).await.exit).code, "agent_gone");
    let mut again = next_attempt(cut);
    let kind = JournalKind::Note { name: "acp.session".into() };
    again.journal = vec![JournalEntry { key: "acp:session:1:new".into(), seq: Seq(5), kind }];
    let again = play(&rig, again).await;
    assert_eq!(again.session().1, "resume");
    let known: Vec<String> = serde_json::from_str(&again.said()).unwrap();
    assert_eq!(known.len(), 3, "{known:?}");
    assert!(known[1].starts_with("You were interrupted"), "{known:?}");
}

#[tokio::test]
async fn a_permission_is_asked_for_and_given_in_another_attempt() {
    let rig = Rig::new();
    let launch = launch(&rig, agent(&[]), "may write\nmay write\nsay done");
    let mut running = start(&rig, launch.clone());
    let mut frames = Vec::new();
    let ask = step(&mut running, &mut frames).await.unwrap();
    let Frame::Ask { key, kind, prompt, details, .. } = ask else { panic!("{ask:?}") };
    assert_eq!((kind, prompt.as_str()), (AskKind::Approval, "May the agent do this? write"));
    assert_eq!(json(&details.unwrap())["rawInput"]["path"], "write");
    running.tell(Told::Park { grace_millis: 1_000 }).await;
    assert_eq!(gone(running.exit().await).code, "parked");
    let mut launch = next_attempt(launch);
    launch.journal = vec![answered(&key, Answer::Approve)];
    let mut running = start(&rig, launch);
    let mut frames = Vec::new();
    let ask = step(&mut running, &mut frames).await.unwrap();
    let second = ask.key().unwrap().clone();
    assert_ne!(second, key, "it is asked for twice");
    let deny = AskResult::Answered(Answer::Deny("not again".into()));
    running.tell(Told::Answered { key: second, result: deny }).await;
    assert!(step(&mut running, &mut frames).await.is_none());
    let exit = running.exit().await;
    let played = Played { frames, exit };
    assert_eq!(played.exit, Exit::Said);
    assert_eq!(played.said(), "write: once\nwrite: no\ndone");
}

fn answered(key: &StepKey, answer: Answer) -> JournalEntry {
    let kind = JournalKind::Ask(Some(AskResult::Answered(answer)));
    JournalEntry { key: key.clone(), seq: Seq(5), kind }
}

#[tokio::test]
async fn rules_give_and_refuse_permissions() {
    let rig = Rig::new();
    let mut harness = agent(&[]);
    harness["permissions"] = json!([
        {"title": "secret*", "policy": "deny"},
        {"kind": "edit", "policy": "allow"},
    ]);
    let played = play(&rig, launch(&rig, harness, "may secrets\nmay notes")).await;
    assert_eq!(played.said(), "secrets: no\nnotes: once\n");
    assert_eq!(played.notes("acp.permission").len(), 2, "what rules said is in the log");
}

#[tokio::test]
async fn a_canceled_turn_is_canceled_at_the_agent() {
    for words in ["say a\nwait", "say a\nmay write"] {
        let rig = Rig::new();
        let mut running = start(&rig, launch(&rig, agent(&[]), words));
        let mut frames = Vec::new();
        if words.contains("may") {
            assert!(step(&mut running, &mut frames).await.is_some());
        } else {
            let key: StepKey = "acp:session:1:new".into();
            running.tell(Told::Recorded { key, seq: Seq(9), before: None }).await;
            while !matches!(running.next().await, Frame::Delta { .. }) {}
        }
        let reason = String::new();
        running.tell(Told::Cancel { grace_millis: 10_000, reason }).await;
        assert_eq!(gone(running.exit().await).code, "canceled", "{words}");
        let methods = heard_methods(&rig);
        assert!(methods.contains(&"session/cancel".into()), "{words}: {methods:?}");
        rig.assert_nothing_runs();
    }
}

#[tokio::test]
async fn an_agent_that_does_not_heed_a_cancellation_is_ended() {
    let rig = Rig::new();
    let mut running = start(&rig, launch(&rig, agent(&[]), "say a\nignore"));
    let key: StepKey = "acp:session:1:new".into();
    running.tell(Told::Recorded { key, seq: Seq(9), before: None }).await;
    while !matches!(running.next().await, Frame::Delta { .. }) {}
    running.tell(Told::Cancel { grace_millis: 100, reason: String::new() }).await;
    assert_eq!(gone(running.exit().await).code, "canceled");
    rig.assert_nothing_runs();
}

#[tokio::test]
async fn a_killed_attempt_leaves_nothing() {
    let rig = Rig::new();
    let running = start(&rig, launch(&rig, agent(&[("FAULT", "session/new:hang")]), "say a"));
    let file = rig.workspace().join("faulted");
    until("the agent hangs", || file.exists()).await;
    running.kill.cancel();
    assert_eq!(gone(running.exit().await).code, "killed");
    rig.assert_nothing_runs();
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_the_attempt() {
    for (what, code, words) in [
        ("malformed", "protocol", "\"Loading models...\""),
        ("huge", "protocol", "33554432 bytes"),
        ("stray", "protocol", "4242"),
        ("close", "output_closed", "closed its output"),
    ] {
        let rig = Rig::new();
        let fault = format!("session/prompt:{what}");
        let played = play(&rig, launch(&rig, agent(&[("FAULT", &fault)]), "say a")).await;
        let failure = gone(played.exit);
        assert_eq!(failure.code, code, "{failure:?}");
        assert!(failure.message.contains(words), "{failure:?}");
    }
}

#[tokio::test]
async fn an_agent_that_never_answers_is_given_up() {
    for (step, millis) in [("initialize", 300), ("session/new", 5_000)] {
        let rig = Rig::new();
        let mut harness = agent(&[("FAULT", &format!("{step}:hang"))]);
        harness["ready_ms"] = json!(millis);
        let failure = gone(play(&rig, launch(&rig, harness, "say a")).await.exit);
        assert_eq!(failure.code, "not_ready");
        assert!(failure.message.starts_with(step), "{failure:?}");
    }
}

#[tokio::test]
async fn what_the_agent_refuses_ends_the_execution_unless_it_may_pass() {
    for (fault, code, retry) in [
        ("authenticate:refuse -32000", "auth_required", false),
        ("session/new:refuse -32603", "agent", true),
        ("session/prompt:refuse -32602", "agent", false),
    ] {
        let rig = Rig::new();
        let played = play(&rig, launch(&rig, agent(&[("FAULT", fault)]), "say a")).await;
        let (failure, again) = played.failed();
        assert_eq!((failure.code.as_str(), again), (code, retry), "{failure:?}");
    }
    for (words, code) in [("stop refusal", "refusal"), ("stop max_tokens", "max_tokens")] {
        let rig = Rig::new();
        let played = play(&rig, launch(&rig, agent(&[]), words)).await;
        assert_eq!(played.failed().0.code, code);
    }
    let rig = Rig::new();
    let played = play(&rig, launch(&rig, agent(&[("VERSION", "2")]), "say a")).await;
    assert_eq!(played.failed().0.message, "the agent speaks version 2, not 1");
}

#[tokio::test]
async fn what_is_not_offered_is_refused_and_noted() {
    let rig = Rig::new();
    let played = play(&rig, launch(&rig, agent(&[]), "want fs/read_text_file\nwant x/y")).await;
    assert_eq!(played.exit, Exit::Said);
    assert_eq!(played.said().matches("-32601").count(), 2, "{}", played.said());
    let refused = played.notes("acp.refused");
    assert_eq!(refused[0]["method"], "fs/read_text_file");
}

#[tokio::test]
async fn a_flood_arrives_in_order_and_in_full() {
    let rig = Rig::new();
    let played = play(&rig, launch(&rig, agent(&[]), "flood 20000")).await;
    let expect: String = (0..20_000).map(|number| format!("{number};")).collect();
    assert_eq!(played.said(), expect);
}

#[tokio::test]
async fn tool_servers_of_the_gateway_are_handed_over() {
    let rig = Rig::new();
    let with_tools = |offers: &str| {
        let mut launch = launch(&rig, agent(&[("OFFERS", offers)]), "servers");
        launch.agent.gateway = json!({"tools": [{"name": "my-shop"}]});
        launch.env = vec![("AX_MCP_MY_SHOP_URL".into(), "http://127.0.0.1:1/mcp?key=k".into())];
        launch
    };
    let said = play(&rig, with_tools("http")).await.said();
    let servers: Value = serde_json::from_str(&said).unwrap();
    let url = "http://127.0.0.1:1/mcp?key=k";
    assert_eq!(servers, json!([{"type": "http", "name": "my-shop", "url": url, "headers": []}]));
    let (failure, retry) = play(&rig, with_tools("none")).await.failed();
    assert_eq!((failure.code.as_str(), retry), ("config", false));
}

#[tokio::test]
async fn a_mode_that_the_agent_does_not_have_is_named() {
    let rig = Rig::new();
    let mut harness = agent(&[]);
    harness["options"] = json!({"model": "fast"});
    harness["mode"] = json!("a");
    let played = play(&rig, launch(&rig, harness.clone(), "say a")).await;
    assert_eq!(played.exit, Exit::Said);
    let set = heard(&rig).into_iter().find(|it| it["method"] == "session/set_config_option");
    assert_eq!(set.unwrap()["params"]["configId"], "model");
    harness["mode"] = json!("b");
    let (failure, _) = play(&rig, launch(&rig, harness, "say a")).await.failed();
    assert_eq!(failure.message, "the agent has no mode \"b\"; it has a");
}

#[tokio::test]
async fn a_picture_is_sent_as_the_agent_takes_it() {
    let rig = Rig::new();
    let path: PathBuf = rig.path().join("p.png");
    std::fs::write(&path, [1, 2, 3]).unwrap();
    let picture = Content {
        kind: PartKind::Image,
        media_type: "image/png".into(),
        name: "p".into(),
        text: String::new(),
        file: Some((path, "blob_1".into(), 3)),
    };
    for (offers, kind) in [("image", "image"), ("none", "resource_link")] {
        let mut launch = launch(&rig, agent(&[("OFFERS", offers)]), "parts");
        launch.input.push(picture.clone());
        let parts: Value = serde_json::from_str(&play(&rig, launch).await.said()).unwrap();
        assert_eq!(parts[1]["type"], kind);
    }
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_named() {
    let rig = Rig::new();
    let harness = json!({"type": "acp", "command": ["no-such-agent"]});
    let failure = gone(play(&rig, launch(&rig, harness, "say a")).await.exit);
    assert_eq!(failure.code, "spawn", "{failure:?}");
}
