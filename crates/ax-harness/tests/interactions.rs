//! The adapter for the Interactions API, against the scripted model server.
#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use ax_core::id::{AttemptId, ExecId, Seq};
use ax_core::session::{Answer, BlockId, Body, Frame, PartKind, StepKey};
use ax_fakemodel::{FakeModel, Options, Script};
use ax_harness::{
    Exit, InteractionsHarness, JournalEntry, JournalKind, KEEP_NOTE, Launch, Launcher, Role, Told,
    Turn,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use support::engine::{Kill, Session};
use support::{Rig, Running, gone, text};

async fn model(turns: Value) -> FakeModel {
    let script = json!({"version": 1, "defaults": {"chunk_chars": 6}, "turns": turns});
    let script = Script::from_json(&script.to_string()).unwrap();
    FakeModel::start(Options { script, ..Options::default() }).await.unwrap()
}

fn launcher() -> Arc<dyn Launcher> {
    Arc::new(InteractionsHarness::default())
}

fn harness(model: &FakeModel) -> Value {
    json!({
        "type": "interactions", "agent": "deep-research", "base_url": model.base_url() + "/v1beta",
        "system": "Be brief.", "tools": [{"type": "google_search"}],
    })
}

fn launch(rig: &Rig, model: &FakeModel) -> Launch {
    rig.launch(harness(model))
}

fn paid(model: &FakeModel) -> usize {
    model.ledger().iter().filter(|entry| entry.is_paid()).count()
}

fn notes(frames: &[Frame], wanted: &str) -> Vec<Value> {
    let notes = frames.iter().filter_map(|frame| match frame {
        Frame::Note { name, data: Body::Text(data), .. } if name == wanted => {
            Some(serde_json::from_str(data).unwrap())
        }
        _ => None,
    });
    notes.collect()
}

async fn run(launch: Launch) -> (Session, Exit) {
    let mut session = Session::of(&launcher(), launch);
    let exit = session.attempt(None).await.unwrap();
    (session, exit)
}

async fn failure(launch: Launch) -> (String, String, bool) {
    run(launch).await.0.failure()
}

/// Research with a thought, a text, a call that a person answers for, and a report.
fn research(delay_millis: u64) -> Value {
    json!([
        {"when": {"turn": 0}, "pace": {"chunk_delay_millis": delay_millis},
         "thought": "I have to count.", "text": "I count the boxes. Ä",
         "calls": [{"tool": "count", "arguments": {"shelf": 1}}]},
        {"when": {"turn": 1, "result": "7"}, "text": "There are seven boxes."},
    ])
}

fn assert_told(session: &Session) {
    let said: Vec<String> = session
        .said()
        .into_iter()
        .filter(|text| !text.is_empty() && !text.starts_with('{'))
        .collect();
    assert_eq!(said, ["I count the boxes. Ä", "There are seven boxes."]);
    let keys: Vec<&str> = session.journal.iter().map(|entry| entry.key.as_str()).collect();
    let calls = keys.iter().filter(|key| key.starts_with("call:1:")).count();
    assert_eq!(calls, 1, "{keys:?}");
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
    assert!(matches!(session.frames.last(), Some(Frame::End { .. })), "{:?}", session.frames);
}

#[tokio::test]
async fn a_run_is_copied_and_a_person_answers_for_a_function() {
    let (rig, model) = (Rig::new(), model(research(0)).await);
    let mut session = Session::of(&launcher(), launch(&rig, &model));
    session.answers.push_back(Answer::Text("7".into()));
    assert_eq!(session.attempt(None).await, Some(Exit::Said), "{:?}", session.frames.last());
    assert_told(&session);
    assert_eq!(paid(&model), 2);
    assert_eq!(session.usage.model_calls, 2);
    assert!(session.usage.input_tokens > 0 && session.usage.output_tokens > 0);
    let thoughts: String = session
        .frames
        .iter()
        .filter_map(|frame| match frame {
            Frame::Delta { part: PartKind::Thought, text, .. } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(thoughts, "I have to count.");
    let asked = session.frames.iter().find_map(|frame| match frame {
        Frame::Ask { prompt, .. } => Some(prompt.clone()),
        _ => None,
    });
    assert!(asked.unwrap().contains(r#"count, which no tool server offers, with {"shelf":1}"#));
    let id = session.result("create:2")["interaction"].clone();
    assert_eq!(notes(&session.frames, KEEP_NOTE), [json!({"interaction": id})]);
}

#[tokio::test]
async fn a_kill_at_any_moment_pays_no_run_twice_and_says_nothing_twice() {
    for recorded in [true, false] {
        let mut at = 1;
        while killed_at(Kill { at, recorded }).await {
            at += 1;
        }
        assert!(at > 20, "there are more frames than {at}");
    }
}

/// Kills the first attempt at a frame; returns whether it said so many.
async fn killed_at(kill: Kill) -> bool {
    // A run that is over is taken in whole, one that is under way is followed.
    let delay = if kill.recorded { 20 } else { 0 };
    let (rig, model) = (Rig::new(), model(research(delay)).await);
    let mut session = Session::of(&launcher(), launch(&rig, &model));
    session.answers.push_back(Answer::Text("7".into()));
    if session.attempt(Some(kill)).await.is_some() {
        return false;
    }
    // A run may have begun of which only the intent is known.
    let has = |key: String| session.journal.iter().any(|entry| entry.key == StepKey::from(&*key));
    let in_doubt =
        (1..=2).filter(|turn| has(format!("intent:{turn}")) && !has(format!("create:{turn}")));
    let in_doubt = in_doubt.count();
    let exit = session.attempt(None).await;
    assert_eq!(exit, Some(Exit::Said), "{kill:?}: {:?}", session.frames.last());
    assert_told(&session);
    let paid = paid(&model);
    assert!((2..=2 + in_doubt).contains(&paid), "{kill:?}: {paid} runs were paid");
    true
}

#[tokio::test]
async fn a_stream_that_is_cut_goes_on_behind_its_last_event() {
    for chunks in 1..12 {
        let turns = json!([{"text": "A text of several chunks, to be cut in the middle.",
            "pace": {"chunk_delay_millis": 30}, "fault": {"cut_after_chunks": chunks}}]);
        let (rig, model) = (Rig::new(), model(turns).await);
        let (session, exit) = run(launch(&rig, &model)).await;
        assert_eq!(exit, Exit::Said, "{:?}", session.frames.last());
        let deltas: String = session
            .frames
            .iter()
            .filter_map(|frame| match frame {
                Frame::Delta { text, .. } => Some(text.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(deltas, "A text of several chunks, to be cut in the middle.");
        assert_eq!((paid(&model), session.usage.model_calls), (1, 1));
    }
}

#[tokio::test]
async fn a_beginning_that_nobody_answers_is_made_again_once_and_marked() {
    let cut = json!({"text": "lost", "times": 1, "fault": {"cut_after_chunks": 0}});
    let model = model(json!([cut, {"text": "here"}])).await;
    let rig = Rig::new();
    let (session, exit) = run(launch(&rig, &model)).await;
    assert_eq!(exit, Exit::Said, "{:?}", session.frames.last());
    assert_eq!(session.said(), ["here"]);
    assert_eq!((paid(&model), session.usage.model_calls), (2, 2));
    assert_eq!(notes(&session.frames, "interactions.begun_again").len(), 1);
}

#[tokio::test]
async fn to_cancel_ends_the_run_at_the_provider() {
    let slow = json!([{"text": "so slow", "pace": {"chunk_delay_millis": 400}}]);
    let (rig, model) = (Rig::new(), model(slow).await);
    let mut running = Running::start(&launcher(), launch(&rig, &model));
    loop {
        match running.next().await {
            Frame::Note { key: Some(key), .. } | Frame::StepEnd { step: key, .. } => {
                running.tell(Told::Recorded { key, seq: Seq(9), before: None }).await;
            }
            Frame::Delta { .. } => break,
            _ => {}
        }
    }
    running.tell(Told::Cancel { grace_millis: 5_000, reason: "enough".into() }).await;
    let failure = gone(running.exit().await);
    assert_eq!((failure.code.as_str(), failure.message.as_str()), ("canceled", "enough"));
    let kinds: Vec<String> =
        model.ledger().iter().map(|entry| format!("{:?}", entry.kind)).collect();
    assert!(kinds.contains(&"Cancel".to_owned()), "{kinds:?}");
}

#[tokio::test]
async fn what_ends_badly_says_so_and_is_not_paid_again() {
    for (outcome, code) in [
        ("failed", "interaction_failed"),
        ("incomplete", "interaction_incomplete"),
        ("budget_exceeded", "interaction_budget"),
    ] {
        let (rig, model) = (Rig::new(), model(json!([{"text": "x", "outcome": outcome}])).await);
        let mut session = Session::of(&launcher(), launch(&rig, &model));
        session.attempt(None).await;
        for _ in 0..2 {
            let (found, message, retry) = session.failure();
            assert_eq!((found.as_str(), retry), (code, false));
            assert!(outcome != "failed" || message.contains("failed on demand"), "{message}");
            // Another attempt finds the same.
            session.attempt(None).await;
        }
        assert_eq!(paid(&model), 1);
    }
}

#[tokio::test]
async fn an_agent_that_waits_for_an_answer_gets_it_after_a_restart() {
    let turns = json!([
        {"when": {"turn": 0}, "text": "Here is my plan. Shall I?", "outcome": "requires_action"},
        {"when": {"turn": 1, "text": "go ahead"}, "text": "Done."},
    ]);
    let (rig, model) = (Rig::new(), model(turns).await);
    let mut session = Session::of(&launcher(), launch(&rig, &model));
    let mut at = 1;
    // Until the question is asked.
    while !matches!(session.frames.last(), Some(Frame::Ask { .. })) {
        session = Session::of(&launcher(), launch(&rig, &model));
        assert_eq!(session.attempt(Some(Kill { at, recorded: true })).await, None);
        at += 1;
    }
    let before = paid(&model);
    let Some(Frame::Ask { prompt, .. }) = session.frames.last() else { panic!("a question") };
    assert_eq!(prompt, "Here is my plan. Shall I?");
    session.answers.push_back(Answer::Text("go ahead".into()));
    assert_eq!(session.attempt(None).await, Some(Exit::Said), "{:?}", session.frames.last());
    assert_eq!(session.said(), ["Here is my plan. Shall I?", "Done."]);
    assert_eq!(paid(&model), before + 1, "the question cost nothing again");
}

#[tokio::test]
async fn the_next_input_goes_on_from_the_interaction_before_or_from_what_was_said() {
    let turns = json!([
        {"when": {"turn": 1}, "text": "I remember."},
        {"when": {"turn": 0, "text": "said in this conversation before"}, "text": "I was told."},
        {"when": {"turn": 0}, "text": "Hello."},
    ]);
    let (rig, model) = (Rig::new(), model(turns).await);
    let first = run(launch(&rig, &model)).await.0;
    let kept = notes(&first.frames, KEEP_NOTE)[0].to_string();
    let mut next = launch(&rig, &model);
    next.exec = ExecId(2);
    next.kept = Some(kept);
    next.history = vec![
        Turn { role: Role::User, parts: vec![text("hello")] },
        Turn { role: Role::Agent, parts: vec![text("Hello.")] },
    ];
    let second = run(next.clone()).await.0;
    assert_eq!(second.said(), ["I remember."]);
    // A branch goes on from where its parent was, and the parent does not notice.
    assert_eq!(run(next.clone()).await.0.said(), ["I remember."]);
    next.kept = Some(json!({"interaction": "int_gone"}).to_string());
    let third = run(next.clone()).await.0;
    assert_eq!(third.said(), ["I was told."]);
    assert_eq!(notes(&third.frames, "interactions.lost")[0]["interaction"], "int_gone");
    next.kept = None;
    assert_eq!(run(next).await.0.said(), ["I was told."]);
}

#[tokio::test]
async fn a_run_that_the_provider_has_forgotten_is_not_begun_again() {
    let (rig, model) = (Rig::new(), model(json!([])).await);
    let mut session = Session::of(&launcher(), launch(&rig, &model));
    // Up to the end of the step that begins it.
    assert_eq!(session.attempt(Some(Kill { at: 3, recorded: true })).await, None);
    assert!(session.result("create:1")["interaction"].is_string());
    model.reset();
    session.attempt(None).await;
    let (code, message, retry) = session.failure();
    assert_eq!((code.as_str(), retry), ("interaction_expired", false), "{message}");
    assert_eq!(paid(&model), 0, "the ledger was emptied, and nothing was begun since");
}

#[tokio::test]
async fn refusals_are_tried_again_or_said() {
    let busy = json!({"times": 2, "fault": {"status": 429, "retry_after_seconds": 0}});
    let turns = model(json!([busy, {"text": "at last"}])).await;
    let rig = Rig::new();
    let (session, exit) = run(launch(&rig, &turns)).await;
    assert_eq!((exit, session.said()), (Exit::Said, vec!["at last".to_owned()]));
    for (status, code) in [(400, "model_request"), (403, "model_auth"), (404, "model_not_found")] {
        let model = model(json!([{"fault": {"status": status}}])).await;
        let (found, message, retry) = failure(launch(&rig, &model)).await;
        assert_eq!((found.as_str(), retry), (code, false), "{message}");
    }
}

#[tokio::test]
async fn nothing_is_begun_without_a_key_or_a_right() {
    let (rig, model) = (Rig::new(), model(json!([])).await);
    let mut without = launch(&rig, &model);
    without.agent.harness["api_key_env"] = json!("AX_NO_SUCH_KEY_IS_SET");
    assert_eq!(failure(without).await.0, "model_key");
    let begun = JournalEntry {
        key: "create:1".into(),
        seq: Seq(3),
        kind: JournalKind::Note { name: "x".into() },
    };
    let mut odd = launch(&rig, &model);
    (odd.attempt, odd.journal) = (AttemptId(2), vec![begun]);
    let never = ax_harness::MayAct::when(|| false);
    let mut running = Running::start_while(&launcher(), odd, never);
    while let Some(frame) = running.frames.recv().await {
        if let Frame::Note { key: Some(key), .. } = frame {
            running.tell(Told::Recorded { key, seq: Seq(9), before: None }).await;
        }
    }
    assert_eq!(gone(running.exit().await).code, "killed");
    assert_eq!(paid(&model), 0);
}

#[tokio::test]
async fn a_block_has_the_name_of_its_turn_and_step() {
    let (rig, model) = (Rig::new(), model(json!([{"text": "once"}])).await);
    let (session, _) = run(launch(&rig, &model)).await;
    let block = session.frames.iter().find_map(|frame| match frame {
        Frame::Delta { block, .. } => Some(block.clone()),
        _ => None,
    });
    assert_eq!(block, Some(BlockId::from("1.0")));
    let keys: Vec<&str> = session.journal.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["intent:1", "create:1", "out:1:0:e-5", "run:1", "keep"]);
}
