//! The built-in harness against models of four vendors.
#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use ax_core::session::{Body, Digest, EffectClass, Frame, PartKind, Prefix, StepKind, Usage};
use ax_harness::{
    Adapters, BuiltinHarness, Exit, JournalEntry, JournalKind, Launcher, Role, Told, Turn as Said,
};
use serde_json::{Value, json};
use std::sync::Arc;
use support::engine::{Kill, Session};
use support::model::{Fault, Model, PROVIDERS, Turn, call, say};
use support::{Rig, Running, gone, text};

fn launcher(rig: &Rig) -> Arc<dyn Launcher> {
    Arc::new(BuiltinHarness::new(rig.options()))
}

fn all_tools() -> Value {
    json!(["shell", "read", "write", "edit", "list", "search"])
}

/// Runs one execution to its end.
async fn run(rig: &Rig, model: &Model, provider: &str) -> (Session, Exit) {
    let mut session = Session::new(rig, &launcher(rig), model.harness(provider, all_tools()));
    let exit = session.attempt(None).await.unwrap();
    (session, exit)
}

/// Runs a tool once; returns what the model was told, and whether it was an error.
async fn tool(rig: &Rig, name: &str, input: Value) -> (String, bool) {
    let model = Model::start(vec![call("", name, input), say("done")]).await;
    let (session, exit) = run(rig, &model, "anthropic").await;
    assert_eq!(exit, Exit::Said);
    let result = session.result("tool:1:1");
    (result["content"].as_str().unwrap().to_owned(), result["error"] == true)
}

fn work() -> Vec<Turn> {
    let write = json!({"path": "dir/a.txt", "content": "one\ntwo\n"});
    vec![
        call("I write. Ä", "write", write)
            .and("shell", json!({"command": "echo x >>effects; wc -l <effects"})),
        call("", "read", json!({"path": "dir/a.txt", "offset": 2})),
        call("Again.", "shell", json!({"command": "echo y >>effects"})),
        say("All done."),
    ]
}

#[tokio::test]
async fn a_model_works_with_tools_over_every_wire_format() {
    for provider in PROVIDERS {
        let rig = Rig::new();
        let model = Model::start(work()).await;
        let (session, exit) = run(&rig, &model, provider).await;
        assert_eq!(exit, Exit::Said, "{provider}: {:?}", session.frames.last());
        assert_eq!(session.said(), ["I write. Ä", "Again.", "All done."], "{provider}");
        let effects = std::fs::read_to_string(rig.workspace().join("effects")).unwrap();
        assert_eq!(effects, "x\ny\n");
        assert_eq!(session.result("tool:1:2")["content"].as_str().unwrap().trim(), "1");
        assert_eq!(session.result("tool:2:1"), json!({"content": "two\n"}));
        let usage = Usage {
            input_tokens: 40,
            cached_tokens: 12,
            output_tokens: 20,
            model_calls: 4,
            tool_calls: 4,
            ..Usage::default()
        };
        assert_eq!(session.usage, usage, "{provider}");
        let requests = model.requests();
        let last = requests[3].to_string();
        assert!(last.contains("I write. Ä") && last.contains("two\\n"), "{provider}: {last}");
        assert!(!requests[0].to_string().contains("CARGO"), "the key is no part of the body");
        let end = Frame::End { result: Some(r#"{"stop_reason":"end_turn","turns":4}"#.into()) };
        assert_eq!(session.frames.last(), Some(&end));
        rig.assert_nothing_runs();
    }
}

#[tokio::test]
async fn a_kill_at_any_moment_costs_no_call_twice_and_no_effect_twice() {
    for provider in PROVIDERS {
        for recorded in [true, false] {
            let mut at = 1;
            while killed_at(provider, Kill { at, recorded }).await {
                at += 1;
            }
            assert!(at > 20, "{provider}: there are more frames than {at}");
        }
    }
}

/// Kills the first attempt at a frame; returns whether it said so many.
async fn killed_at(provider: &str, kill: Kill) -> bool {
    let rig = Rig::new();
    let model = Model::start(work()).await;
    let mut session = Session::new(&rig, &launcher(&rig), model.harness(provider, all_tools()));
    if session.attempt(Some(kill)).await.is_some() {
        return false;
    }
    let ended = |session: &Session| {
        let steps = session.journal.iter().filter(|entry| entry.key.as_str().starts_with("model:"));
        steps.count()
    };
    let (asked, paid) = (model.requests().len(), ended(&session));
    assert!(asked <= paid + 1, "{provider} {kill:?}: only a call in flight is asked again");
    let exit = session.attempt(None).await;
    assert_eq!(exit, Some(Exit::Said), "{provider} {kill:?}: {:?}", session.frames.last());
    assert_eq!(model.requests().len(), asked + 4 - paid, "{provider} {kill:?}");
    let effects = std::fs::read_to_string(rig.workspace().join("effects")).unwrap_or_default();
    let lost = session.unknown.len();
    for effect in ["x", "y"] {
        let times = effects.lines().filter(|line| *line == effect).count();
        assert!(times <= 1, "{provider} {kill:?}: {effects:?}");
        assert!(times == 1 || lost == 1, "{provider} {kill:?}: {effects:?}");
    }
    assert!(lost <= 1);
    let content = std::fs::read_to_string(rig.workspace().join("dir/a.txt")).unwrap();
    assert_eq!(content, "one\ntwo\n");
    rig.assert_nothing_runs();
    true
}

#[tokio::test(start_paused = true)]
async fn what_passes_is_tried_again_within_the_step() {
    let rig = Rig::new();
    let model = Model::start(vec![say("Here I am.")]).await;
    model.fault(Fault::Status(429, "retry-after: 7\r\n", "{}".into()));
    model.fault(Fault::Status(503, "", "busy".into()));
    model.fault(Fault::Garbage);
    model.fault(Fault::Cut(450));
    let (session, exit) = run(&rig, &model, "anthropic").await;
    assert_eq!((exit, model.requests().len()), (Exit::Said, 5));
    assert_eq!(session.said(), ["Here I am."]);
    assert_eq!(session.usage.model_calls, 3, "those that began to answer are paid");
    let blocks: Vec<_> = session
        .frames
        .iter()
        .filter_map(|frame| match frame {
            Frame::Delta { block, .. } => Some(block.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!((blocks.first(), blocks.last()), (Some(&"model:1~4"), Some(&"model:1~5")));
    let block = &session.result("model:1")["content"][0]["block"];
    assert_eq!(block, "model:1~5");
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_stays_away_fails_the_attempt_and_it_may_be_tried_again() {
    let rig = Rig::new();
    let model = Model::start(vec![]).await;
    for _ in 0..6 {
        model.fault(Fault::Status(500, "", String::new()));
    }
    let (session, exit) = run(&rig, &model, "openai").await;
    assert_eq!((exit, model.requests().len()), (Exit::Said, 6));
    let (code, message, retry) = session.failure();
    assert_eq!((code.as_str(), retry), ("model_unavailable", true), "{message}");
}

#[tokio::test]
async fn errors_of_the_provider_say_what_to_do_and_never_the_key() {
    let key = env!("CARGO_MANIFEST_DIR");
    let body = json!({"error": {"message": format!("bad key {key}"), "type": "t"}}).to_string();
    for (status, code, hint) in [
        (400, "model_request", "bad key *** (t)"),
        (401, "model_auth", "environment variable CARGO_MANIFEST_DIR"),
        (403, "model_auth", "environment variable CARGO_MANIFEST_DIR"),
        (404, "model_not_found", "check harness.model.name"),
    ] {
        let rig = Rig::new();
        let model = Model::start(vec![]).await;
        model.fault(Fault::Status(status, "", body.clone()));
        let (session, exit) = run(&rig, &model, "gemini").await;
        assert_eq!((exit, model.requests().len()), (Exit::Said, 1));
        let (said, message, retry) = session.failure();
        assert_eq!((said.as_str(), retry), (code, false));
        assert!(message.contains(hint), "{message}");
        assert!(!format!("{:?}", session.frames).contains(key));
    }
}

#[tokio::test]
async fn a_missing_key_is_named() {
    let rig = Rig::new();
    let mut harness = json!({"type": "builtin", "model": {"provider": "openai", "name": "m"}});
    harness["model"]["api_key_env"] = json!("AX_NO_SUCH_VARIABLE");
    let mut session = Session::new(&rig, &launcher(&rig), harness);
    assert_eq!(session.attempt(None).await, Some(Exit::Said));
    let (code, message, _) = session.failure();
    assert_eq!(code, "model_key");
    assert!(message.contains("AX_NO_SUCH_VARIABLE"), "{message}");
}

#[tokio::test]
async fn a_journal_of_something_else_is_a_divergence() {
    let rig = Rig::new();
    let model = Model::start(vec![say("hi")]).await;
    let mut session = Session::new(&rig, &launcher(&rig), model.harness("openai", json!([])));
    let kind = JournalKind::Step {
        kind: StepKind::Model,
        name: "test-model".into(),
        effect: EffectClass::Idempotent,
        digest: Digest([1; 32]),
        asked: None,
        result: Ok("{}".into()),
    };
    let entry = JournalEntry { key: "model:1".into(), seq: ax_core::id::Seq(3), kind };
    session.journal.push(entry);
    assert_eq!(gone(session.attempt(None).await.unwrap()).code, "divergence");
    let [Frame::Diverged { step, expected, found }] = &session.frames[..] else {
        panic!("{:?}", session.frames)
    };
    assert_eq!(step.as_str(), "model:1");
    assert!(expected.contains("0101") && !found.contains("0101"), "{expected} / {found}");
    assert!(model.requests().is_empty());
}

#[tokio::test]
async fn a_model_that_wants_tools_for_ever_is_stopped() {
    let rig = Rig::new();
    let more = || call("", "list", json!({}));
    let model = Model::start(vec![more(), more(), more()]).await;
    let mut harness = model.harness("openai-chat", all_tools());
    harness["max_turns"] = json!(2);
    let mut session = Session::new(&rig, &launcher(&rig), harness);
    assert_eq!(session.attempt(None).await, Some(Exit::Said));
    assert_eq!((session.failure().0.as_str(), model.requests().len()), ("max_turns", 2));
}

#[tokio::test]
async fn cancel_reaches_a_call_and_a_command_under_way() {
    let rig = Rig::new();
    let model =
        Model::start(vec![call("", "shell", json!({"command": "echo >begun; sleep 600"}))]).await;
    for silent in [true, false] {
        if silent {
            model.fault(Fault::Silence);
        }
        let mut running =
            Running::start(&launcher(&rig), rig.launch(model.harness("openai", all_tools())));
        loop {
            match running.next().await {
                Frame::StepBegin { kind: StepKind::Model, .. } if silent => {
                    support::until("the model is asked", || model.requests().len() == 1).await;
                    break;
                }
                Frame::StepBegin { step, kind: StepKind::Tool, .. } => {
                    running.tell(Told::Granted { step }).await;
                    let begun = rig.workspace().join("begun");
                    support::until("the command runs", || begun.exists()).await;
                    break;
                }
                Frame::StepEnd { step: key, .. } => {
                    let seq = ax_core::id::Seq(1);
                    running.tell(Told::Recorded { key, seq, before: None }).await;
                }
                _ => {}
            }
        }
        running.tell(Told::Cancel { grace_millis: 10_000, reason: "no".into() }).await;
        let failure = gone(running.exit().await);
        assert_eq!((&*failure.code, &*failure.message), ("canceled", "no"));
        rig.assert_nothing_runs();
    }
}

#[tokio::test]
async fn tools_do_not_leave_the_workspace() {
    let rig = Rig::new();
    let secret = rig.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let workspace = rig.workspace();
    std::os::unix::fs::symlink(&secret, workspace.join("link")).unwrap();
    std::os::unix::fs::symlink("..", workspace.join("up")).unwrap();
    std::fs::create_dir(workspace.join("real")).unwrap();
    std::fs::write(workspace.join("real/file"), "inside").unwrap();
    std::os::unix::fs::symlink("real", workspace.join("inner")).unwrap();
    for path in ["../secret", "link", "up/secret", "real/../../secret", secret.to_str().unwrap()] {
        let (text, error) = tool(&rig, "read", json!({"path": path})).await;
        assert!(error && text.contains("out of the workspace"), "{path}: {text}");
        let (text, error) = tool(&rig, "search", json!({"pattern": "s", "path": path})).await;
        assert!(error, "{path}: {text}");
        let input = json!({"path": path, "old": "secret", "new": "public"});
        assert!(tool(&rig, "edit", input).await.1, "{path}");
    }
    for path in ["../new", "up/new", "link/new", "/new"] {
        let (text, error) = tool(&rig, "write", json!({"path": path, "content": "x"})).await;
        assert!(error, "{path}: {text}");
    }
    // A link is replaced, not followed, and searching follows none.
    assert!(tool(&rig, "write", json!({"path": "link", "content": "x"})).await.1);
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
    assert_eq!(tool(&rig, "search", json!({"pattern": "secret"})).await.0, "[nothing matches]");
    // Links that stay inside work, and so do absolute paths that lead there.
    let inside = workspace.join("inner/file");
    let read = tool(&rig, "read", json!({"path": inside.to_str().unwrap()})).await;
    assert_eq!(read, ("inside".into(), false));
}

#[tokio::test]
async fn files_are_read_written_edited_listed_and_searched() {
    let rig = Rig::new();
    let at = rig.workspace();
    let ok = |text: &str| (text.to_owned(), false);
    let write = json!({"path": "a/b/c.txt", "content": "one\ntwo\ntwo\n"});
    assert_eq!(tool(&rig, "write", write).await, ok("a/b/c.txt has 12 bytes now"));
    let edit = json!({"path": "./a/b/c.txt", "old": "two", "new": "2"});
    assert!(tool(&rig, "edit", edit.clone()).await.0.contains("occurs 2 times"));
    let mut all = edit.clone();
    all["all"] = json!(true);
    assert_eq!(tool(&rig, "edit", all).await, ok("replaced 2 times in a/b/c.txt"));
    assert!(tool(&rig, "edit", edit).await.0.contains("does not occur"));
    assert_eq!(std::fs::read_to_string(at.join("a/b/c.txt")).unwrap(), "one\n2\n2\n");
    assert_eq!(tool(&rig, "list", json!({"depth": 3})).await, ok("a/\na/b/\na/b/c.txt\n"));
    let found = tool(&rig, "search", json!({"pattern": "^[0-9]$", "path": "a"})).await;
    assert_eq!(found, ok("a/b/c.txt:2:2\na/b/c.txt:3:2\n"));
    let read = tool(&rig, "read", json!({"path": "a/b/c.txt", "limit": 1})).await;
    assert_eq!(read, ok("one\n\n[there is more; go on with offset 2]"));
    std::fs::write(at.join("binary"), b"\0\x01").unwrap();
    assert!(tool(&rig, "read", json!({"path": "binary"})).await.0.contains("not a text file"));
    std::fs::write(at.join("long"), "line of text\n".repeat(10_000)).unwrap();
    let (long, _) = tool(&rig, "read", json!({"path": "long"})).await;
    assert!(long.len() < 33_000 && long.contains("go on with offset 2521"), "{}", long.len());
    assert!(tool(&rig, "read", json!({"path": "a"})).await.0.contains("is a directory"));
    assert!(tool(&rig, "read", json!({"path": "none"})).await.0.contains("No such file"));
    assert!(tool(&rig, "search", json!({"pattern": "("})).await.1);
    let drafts = std::fs::read_dir(at.join("a/b")).unwrap().count();
    assert_eq!(drafts, 1, "nothing but the file is left");
}

#[tokio::test]
async fn a_pipe_or_device_makes_no_tool_wait() {
    let rig = Rig::new();
    let made = tool(&rig, "shell", json!({"command": "mkfifo pipe"})).await;
    assert_eq!(made, (String::new(), false));
    let read = tool(&rig, "read", json!({"path": "pipe"})).await;
    assert_eq!(read, ("pipe is not a regular file".into(), true));
    assert!(tool(&rig, "write", json!({"path": "pipe", "content": ""})).await.1);
    assert!(!tool(&rig, "search", json!({"pattern": "x"})).await.1);
}

#[tokio::test]
async fn a_command_has_a_status_a_time_limit_and_bounded_output() {
    let rig = Rig::new();
    let shell = |command: &str| tool(&rig, "shell", json!({"command": command}));
    assert_eq!(
        shell("echo out; echo err >&2; exit 3").await,
        ("out\nerr\n[it exited with status 3]".into(), true)
    );
    let (long, _) =
        shell("echo first; head -c 10000000 /dev/zero | tr '\\0' x; echo; echo last").await;
    assert!(long.starts_with("first\nxxx") && long.ends_with("xxx\nlast\n"));
    assert!(long.len() < 33_000 && long.contains("bytes are left out"));
    let slow = json!({"command": "(setsid sleep 600 &); echo begun; sleep 600", "timeout_ms": 300});
    let (text, error) = tool(&rig, "shell", slow).await;
    assert_eq!((text.as_str(), error), ("begun\n[it was killed after 300 ms]", true));
    let (text, error) =
        shell("(setsid sleep 600 >/dev/null 2>&1 &) ; echo $AX_SESSION; echo $CARGO_MANIFEST_DIR")
            .await;
    assert_eq!((text.as_str(), error), ("ses_00000000000000000000000000000001\n\n", false));
    rig.assert_nothing_runs();
    assert!(tool(&rig, "shell", json!({"cmd": "x"})).await.0.contains("unknown field `cmd`"));
}

#[tokio::test]
async fn a_tool_that_is_not_there_is_answered_with_those_that_are() {
    let rig = Rig::new();
    let (text, error) = tool(&rig, "browse", json!({})).await;
    assert!(error && text.contains("shell, read, write"), "{text}");
}

#[tokio::test]
async fn pictures_and_documents_are_sent_in_every_wire_format() {
    for provider in PROVIDERS {
        let rig = Rig::new();
        let model = Model::start(vec![say("I see.")]).await;
        let mut launch = rig.launch(model.harness(provider, json!([])));
        for (kind, media_type, content) in [
            (PartKind::Image, "image/png", "picture"),
            (PartKind::Document, "application/pdf", "document"),
            (PartKind::Document, "text/markdown", "# Plain text"),
        ] {
            let file = rig.path().join(content.replace(' ', ""));
            std::fs::write(&file, content).unwrap();
            let mut part = text("");
            (part.kind, part.media_type) = (kind, media_type.into());
            part.file = Some((file, format!("blob_{content}"), content.len() as u64));
            launch.input.push(part);
        }
        let mut session = Session::of(&launcher(&rig), launch);
        assert_eq!(session.attempt(None).await, Some(Exit::Said));
        assert_eq!(session.said(), ["I see."], "{provider}");
        let request = model.requests()[0].to_string();
        for sent in ["cGljdHVyZQ==", "ZG9jdW1lbnQ=", "# Plain text", "image/png"] {
            assert!(request.contains(sent), "{provider} lacks {sent}: {request}");
        }
    }
}

fn prefixes(session: &Session) -> Vec<Prefix> {
    let frames = session.frames.iter();
    frames
        .filter_map(|frame| match frame {
            Frame::StepBegin { prefix: Some(prefix), request, .. } => {
                assert_eq!(*request, None, "the request of a model call is not repeated");
                Some(prefix.clone())
            }
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn each_request_continues_the_one_before_also_over_executions() {
    let rig = Rig::new();
    let model = Model::start(vec![call("t", "list", json!({})), say("done")]).await;
    let (first, _) = run(&rig, &model, "anthropic").await;
    let chain = prefixes(&first);
    // System, tools, input; then only the tool's result.
    assert_eq!((chain[0].parent, chain[0].parts.len()), (Digest::default(), 3));
    assert_eq!(chain[1].parts.len(), 1);

    let mut launch = rig.launch(model.harness("anthropic", all_tools()));
    let turn = |role, said: &str| Said { role, parts: vec![text(said)] };
    launch.history =
        vec![turn(Role::User, "hello"), turn(Role::Agent, "t"), turn(Role::Agent, "done")];
    launch.input = vec![text("and now?")];
    let mut second = Session::of(&launcher(&rig), launch);
    assert_eq!(second.attempt(None).await, Some(Exit::Said));
    let next = &prefixes(&second)[0];
    assert_eq!((next.parent, next.parts.len()), (chain[0].chain, 3));
    let roles: Vec<Value> = model.requests()[2]["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["role"].clone())
        .collect();
    assert_eq!(roles, ["user", "assistant", "user"]);
}

/// The bytes that an engine keeps of a frame.
fn bytes(frame: &Frame) -> usize {
    let body = |body: &Body| usize::try_from(body.bytes()).unwrap();
    match frame {
        Frame::Delta { block, text, .. } => block.as_str().len() + text.len(),
        Frame::Output { block, key, parts } => {
            let block = block.as_ref().map_or(0, |block| block.as_str().len());
            let key = key.as_ref().map_or(0, |key| key.as_str().len());
            block + key + parts.iter().map(|part| body(&part.body)).sum::<usize>()
        }
        Frame::StepBegin { step, name, request, prefix, .. } => {
            let prefix = prefix.as_ref().map_or(0, |prefix| 32 * (2 + prefix.parts.len()));
            step.as_str().len() + name.len() + 32 + request.as_ref().map_or(0, body) + prefix
        }
        Frame::StepEnd { step, result, .. } => {
            step.as_str().len() + result.as_ref().map_or(0, body) + 48
        }
        Frame::End { result } => result.as_ref().map_or(0, body),
        _ => 0,
    }
}

#[tokio::test]
async fn a_hundred_calls_on_a_long_context_are_kept_once() {
    const CALLS: usize = 100;
    let rig = Rig::new();
    let line = |n: usize| format!("line {n} of a file that the agent reads in order to learn it\n");
    let mut turns = Vec::new();
    for n in 0..CALLS {
        let content: String = (0..60).map(|at| line(60 * n + at)).collect();
        std::fs::write(rig.workspace().join(format!("{n}.txt")), content).unwrap();
        let text = format!("Next I look at file {n}, because the one before led me there.");
        turns.push(call(&text, "read", json!({"path": format!("{n}.txt")})));
    }
    turns.push(say("That was all."));
    let model = Model::start(turns).await;
    let mut harness = model.harness("anthropic", all_tools());
    harness["max_turns"] = json!(CALLS + 1);
    let mut launch = rig.launch(harness);
    // About 200 000 tokens.
    launch.input = vec![text(&"All of this is the context of the question. ".repeat(18_000))];
    let mut session = Session::of(&launcher(&rig), launch);
    assert_eq!(session.attempt(None).await, Some(Exit::Said));
    assert_eq!(model.requests().len(), CALLS + 1);
    let results: usize = (1..=CALLS)
        .map(|n| session.result(&format!("tool:{n}:1"))["content"].as_str().unwrap().len())
        .sum();
    let new = results + model.sent_bytes();
    let kept: usize = session.frames.iter().map(bytes).sum();
    assert!(kept * 10 <= new * 11, "{kept} bytes are kept of {new} that are new");
    let sent: usize = model.requests().iter().map(|request| request.to_string().len()).sum();
    assert!(sent > 50 * kept, "what was sent again is not kept again");
}

#[tokio::test]
async fn adapters_run_what_the_manifest_names() {
    let rig = Rig::new();
    let adapters: Arc<dyn Launcher> = Arc::new(Adapters::new(rig.options()));
    let run = async |harness: Value| Running::start(&adapters, rig.launch(harness)).rest().await;
    let process = json!({"type": "process", "protocol": "text", "command": ["true"]});
    assert_eq!(run(process).await, (vec![support::end()], Exit::Said));
    let model = Model::start(vec![]).await;
    let builtin = model.harness("gemini", json!([]));
    Adapters::validate(&builtin).unwrap();
    let mut session = Session::new(&rig, &adapters, builtin);
    assert_eq!(session.attempt(None).await, Some(Exit::Said));
    let (frames, exit) = run(json!({"type": "proces"})).await;
    let [Frame::Fail { failure, retry: false }] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!(exit, Exit::Said);
    assert!(failure.message.contains("did you mean `process`?"), "{failure:?}");
    assert_eq!(Adapters::validate(&json!({})).unwrap_err().path, "harness.type");
    assert_eq!(Adapters::validate(&json!({"type": "process"})).unwrap_err().path, "harness");
}
