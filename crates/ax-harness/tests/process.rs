//! The process adapter with real processes, well-behaved and not.
#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use ax_core::id::Seq;
use ax_core::session::{Answer, Body, Digest, EffectClass, Frame, Part, StepKind, Usage};
use ax_harness::{
    AskResult, Exit, JournalEntry, JournalKind, Launch, Launcher, ProcessHarness, Role, Told, Turn,
};
use serde_json::{Value, json};
use std::sync::Arc;
use support::{Rig, Running, end, gone, lives, note_text, pids, python, sh, text, until};

fn start(rig: &Rig, harness: Value) -> Running {
    start_launch(rig, rig.launch(harness))
}

fn start_launch(rig: &Rig, launch: Launch) -> Running {
    let launcher: Arc<dyn Launcher> = Arc::new(ProcessHarness::new(rig.options()));
    Running::start(&launcher, launch)
}

async fn failed(harness: Value, code: &str, words: &str) {
    let rig = Rig::new();
    let failure = gone(start(&rig, harness).exit().await);
    assert_eq!(failure.code, code, "{failure:?}");
    assert!(failure.message.contains(words), "{failure:?}");
    rig.assert_nothing_runs();
}

#[tokio::test]
async fn a_harness_is_given_everything_it_begins_with() {
    let rig = Rig::new();
    let program = "heard = begin()
say(type='emit', name='heard', data=heard)
say(type='emit', name='env', data=dict(os.environ, cwd=os.getcwd()))
say(type='end', result={'ok': True})";
    let mut harness = python(program);
    harness["config"] = json!({"a": [1, 2]});
    harness["env"] = json!({"MINE": "yes"});
    let mut launch = rig.launch(harness);
    launch.history = vec![Turn { role: Role::Agent, parts: vec![text("before\n")] }];
    let step = JournalKind::Step {
        kind: StepKind::Tool,
        name: "t".into(),
        effect: EffectClass::Once,
        digest: Digest([1; 32]),
        asked: None,
        result: Ok("{\n\"x\": 1}".into()),
    };
    launch.journal = vec![
        JournalEntry { key: "s".into(), seq: Seq(5), kind: step },
        JournalEntry { key: "o".into(), seq: Seq(6), kind: JournalKind::Output("said".into()) },
    ];
    let (frames, exit) = start_launch(&rig, launch).rest().await;
    assert_eq!(exit, Exit::Said);
    let heard = note_text(&frames[0]);
    let types: Vec<_> = heard.as_array().unwrap().iter().map(|h| &h["type"]).collect();
    assert_eq!(types, ["start", "history", "input", "journal", "journal", "ready"]);
    assert_eq!(heard[0]["config"], json!({"a": [1, 2]}));
    assert_eq!(heard[0]["session"], "ses_00000000000000000000000000000001");
    assert_eq!(heard[0]["workspace"], rig.workspace().to_str().unwrap());
    assert_eq!(heard[1]["parts"][0]["text"], "before\n");
    assert_eq!(heard[2]["parts"][0]["text"], "hello");
    assert_eq!(heard[3]["result"], json!({"x": 1}));
    assert_eq!(heard[4]["text"], "said");
    assert_eq!(heard[5]["journal"], 2);
    let env = note_text(&frames[1]);
    assert_eq!((&env["MINE"], &env["AX_EXECUTION"]), (&json!("yes"), &json!("exec_1")));
    assert_eq!(env["cwd"], rig.workspace().canonicalize().unwrap().to_str().unwrap());
    assert_eq!(env["CARGO_MANIFEST_DIR"], Value::Null, "the environment is not inherited");
    assert_eq!(frames[2], Frame::End { result: Some(r#"{"ok": true}"#.into()) });
    rig.assert_nothing_runs();
}

#[tokio::test]
async fn frames_and_answers_go_both_ways() {
    let rig = Rig::new();
    let program = "begin()
say(type='step_begin', key='s', kind='tool', name='pay', effect='once', request={'a': 1})
assert hear() == {'type': 'granted', 'key': 's'}
say(type='step_end', key='s', result=[1], usage={'tool_calls': 1})
assert hear()['seq'] == 9
say(type='ask', key='q', kind='approval', prompt='Go?')
say(type='emit', name='answer', data=hear()['answer'])
say(type='end')";
    let mut running = start(&rig, python(program));
    let begin = running.next().await;
    assert!(
        matches!(&begin, Frame::StepBegin { name, effect: EffectClass::Once, .. } if name == "pay")
    );
    running.tell(Told::Granted { step: "s".into() }).await;
    let usage = Usage { tool_calls: 1, ..Usage::default() };
    let ended = Frame::StepEnd { step: "s".into(), result: Ok("[1]".into()), usage };
    assert_eq!(running.next().await, ended);
    running.tell(Told::Recorded { key: "s".into(), seq: Seq(9), before: None }).await;
    assert!(matches!(running.next().await, Frame::Ask { .. }));
    let result = AskResult::Answered(Answer::Approve);
    running.tell(Told::Answered { key: "q".into(), result }).await;
    assert_eq!(note_text(&running.next().await)["kind"], "approve");
    assert_eq!(running.rest().await, (vec![end()], Exit::Said));
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_the_attempt() {
    failed(sh("echo Loading; cat >/dev/null"), "protocol", "AX1201").await;
    failed(sh(r#"echo '{"type":"heartbeat"}'; cat >/dev/null"#), "protocol", "AX1205").await;
    let hello = r#"echo '{"type":"hello","protocol":1}'"#;
    failed(sh(&format!("{hello}; {hello}; cat >/dev/null")), "protocol", "second time").await;
    let unknown = format!(r#"{hello}; echo '{{"type":"otput"}}'; cat >/dev/null"#);
    failed(sh(&unknown), "protocol", "did you mean `output`").await;
    failed(sh(r#"echo '{"type":"hello","protocol":9}'"#), "protocol", "AX1203").await;
}

#[tokio::test]
async fn a_harness_is_told_what_it_broke() {
    let program = "begin()
say(type='nonsense')
print(hear()['code'], 'was heard', file=sys.stderr)";
    failed(python(program), "protocol", "AX1204 was heard").await;
}

#[tokio::test]
async fn a_frame_beyond_the_limit_is_refused_in_bounded_memory() {
    let script = r#"echo '{"type":"hello","protocol":1}'; head -c 200000000 /dev/zero | tr '\0' a"#;
    failed(sh(script), "protocol", "AX1202").await;
}

#[tokio::test(start_paused = true)]
async fn a_harness_that_never_says_hello_is_stopped() {
    failed(sh("exec sleep 600"), "hello_timeout", "60 s").await;
}

#[tokio::test]
async fn statuses_and_signals_are_named_with_the_end_of_standard_error() {
    failed(sh("echo broken >&2; exit 3"), "exit_status", "exited with status 3").await;
    failed(sh("echo broken >&2; exit 3"), "exit_status", "standard error:\nbroken").await;
    failed(sh("exit 0"), "exit_status", "exited with status 0 before it said").await;
    failed(sh("kill -SEGV $$"), "signal", "killed by SIGSEGV").await;
    let long = "head -c 10000000 /dev/zero | tr '\\0' x >&2; echo last words >&2; exit 1";
    failed(sh(long), "exit_status", "last words").await;
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_named() {
    let missing = json!({"type": "process", "command": ["/no/such/program"]});
    failed(missing, "spawn", "/no/such/program: No such file").await;
    let missing = json!({"type": "process", "command": ["sh"], "dir": "/no/such/dir"});
    failed(missing, "spawn", "/no/such/dir is not a directory").await;
    failed(json!({"type": "process"}), "config", "command").await;
}

#[tokio::test]
async fn what_comes_after_the_end_is_refused_and_does_not_block_the_harness() {
    let rig = Rig::new();
    let program = "begin()
say(type='end')
for _ in range(100000): say(type='emit', name='late', data=None)
open('wrote', 'w').close()
sys.exit(7)";
    let mut harness = python(program);
    harness["stop_grace_ms"] = json!(60_000);
    assert_eq!(start(&rig, harness).rest().await, (vec![end()], Exit::Said));
    assert!(rig.workspace().join("wrote").exists());
}

#[tokio::test]
async fn a_harness_that_lives_on_after_its_end_is_stopped() {
    let rig = Rig::new();
    let program = "begin()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
say(type='end')
time.sleep(600)";
    assert_eq!(start(&rig, python(program)).rest().await, (vec![end()], Exit::Said));
    rig.assert_nothing_runs();
}

#[tokio::test]
async fn a_harness_that_closes_its_output_and_lives_is_stopped() {
    let script = r#"echo '{"type":"hello","protocol":1}'; exec >&-; exec sleep 600"#;
    failed(sh(script), "output_closed", "went on").await;
}

#[tokio::test]
async fn a_harness_that_never_reads_can_still_speak() {
    let rig = Rig::new();
    let program = "say(type='hello', protocol=1)
for n in range(20000): say(type='emit', name='n', data=n)
say(type='end')";
    let mut launch = rig.launch(python(program));
    let big = JournalKind::Output("x".repeat(1_000_000));
    launch.journal = vec![JournalEntry { key: "o".into(), seq: Seq(3), kind: big }; 20];
    let (frames, exit) = start_launch(&rig, launch).rest().await;
    assert_eq!((frames.len(), exit), (20_001, Exit::Said));
}

#[tokio::test]
async fn a_harness_that_leaves_too_much_unread_is_stopped() {
    let rig = Rig::new();
    let running = start(&rig, python("say(type='hello', protocol=1)\ntime.sleep(600)"));
    for _ in 0..70 {
        let payload = format!("\"{}\"", "x".repeat(1024 * 1024));
        let told = Told::Signaled { key: "k".into(), name: "n".into(), payload };
        if running.told.send(told).await.is_err() {
            break;
        }
    }
    assert_eq!(gone(running.exit().await).code, "input_unread");
}

#[tokio::test]
async fn a_huge_journal_arrives_whole() {
    let rig = Rig::new();
    let program = "heard = begin()
say(type='emit', name='sum', data=sum(len(h.get('text', '')) for h in heard))
say(type='end')";
    let mut launch = rig.launch(python(program));
    let entry = |n: u64| JournalEntry {
        key: format!("o{n}").into(),
        seq: Seq(n),
        kind: JournalKind::Output("y".repeat(1000)),
    };
    launch.journal = (0..30_000).map(entry).collect();
    let (frames, exit) = start_launch(&rig, launch).rest().await;
    assert_eq!((note_text(&frames[0]), exit), (json!(30_000_000), Exit::Said));
}

#[tokio::test]
async fn cancel_is_a_word_then_sigterm_then_sigkill() {
    let cancel = Told::Cancel { grace_millis: 100, reason: "enough".into() };
    for (program, expect) in [
        ("begin()\nsay(type='heartbeat')\nsys.exit(hear()['grace_ms'])", "exited with status 100"),
        ("begin()\nsay(type='heartbeat')\ntime.sleep(600)", "killed by SIGTERM"),
        (
            "begin()\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nsay(type='heartbeat')\n\
             time.sleep(600)",
            "killed by SIGKILL",
        ),
    ] {
        let rig = Rig::new();
        let mut running = start(&rig, python(program));
        assert_eq!(running.next().await, Frame::Heartbeat);
        running.tell(cancel.clone()).await;
        let failure = gone(running.exit().await);
        assert_eq!(failure.code, "canceled");
        assert!(failure.message.contains(expect), "{failure:?}");
        rig.assert_nothing_runs();
    }
}

#[tokio::test]
async fn a_parked_harness_goes() {
    let rig = Rig::new();
    let program = "begin()\nsay(type='heartbeat')\nassert hear()['type'] == 'park'";
    let mut running = start(&rig, python(program));
    assert_eq!(running.next().await, Frame::Heartbeat);
    running.tell(Told::Park { grace_millis: 10_000 }).await;
    assert_eq!(gone(running.exit().await).code, "parked");
}

#[tokio::test]
async fn kill_ends_it_at_once_although_nobody_listens() {
    let rig = Rig::new();
    let program = "begin()\nwhile True: say(type='heartbeat')";
    let running = start(&rig, python(program));
    until("the channel is full", || running.frames.len() == 64).await;
    running.kill.cancel();
    assert_eq!(gone(running.exit_unheard().await).code, "killed");
    rig.assert_nothing_runs();
}

/// Starts a process in its own session, one that was forked twice, and one that does nothing
/// special; each writes its id.
const FAMILY: &str = "begin()
here = os.path.join(os.environ['AX_WORKSPACE'], 'pids')
def child(depth):
    if os.fork() == 0:
        if depth:
            os.setsid()
            child(depth - 1)
            os._exit(0) if depth == 2 else None
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.environ.clear()
        with open(here, 'a') as f: f.write(f'{os.getpid()}\\n')
        time.sleep(600)
        os._exit(0)
child(0); child(1); child(2)
";

#[tokio::test]
async fn nothing_outlives_an_attempt_however_it_detached_itself() {
    let rig = Rig::new();
    let program = format!("{FAMILY}\nsys.stdin.readline()");
    let running = start(&rig, python(&program));
    let family = pids(&rig.workspace().join("pids"), 4).await;
    assert!(family.iter().all(|&pid| lives(pid)));
    running.kill.cancel();
    assert_eq!(gone(running.exit().await).code, "killed");
    assert!(!family.iter().any(|&pid| lives(pid)));
    rig.assert_nothing_runs();
}

#[tokio::test]
async fn nothing_outlives_a_harness_that_ends_by_itself() {
    let rig = Rig::new();
    let program = format!(
        "{FAMILY}
while not os.path.exists(here) or len(open(here).readlines()) < 4:
    time.sleep(0.01)
say(type='end')"
    );
    assert_eq!(start(&rig, python(&program)).rest().await, (vec![end()], Exit::Said));
    let family = pids(&rig.workspace().join("pids"), 4).await;
    assert!(!family.iter().any(|&pid| lives(pid)));
}

#[tokio::test]
async fn a_harness_that_kills_its_supervisor_does_not_get_away() {
    let rig = Rig::new();
    let program = "begin()
child = subprocess.Popen(['sleep', '600'], start_new_session=True)
say(type='emit', name='pids', data=[os.getpid(), child.pid])
hear()
os.kill(os.getppid(), signal.SIGKILL)
time.sleep(600)";
    let mut running = start(&rig, python(program));
    let family = note_text(&running.next().await);
    running.tell(Told::Fired { key: "go".into() }).await;
    assert_eq!(gone(running.exit().await).code, "supervisor");
    for pid in family.as_array().unwrap() {
        assert!(!lives(pid.as_i64().unwrap()));
    }
    rig.assert_nothing_runs();
}

#[tokio::test]
async fn a_plain_process_reads_text_and_each_line_is_an_output() {
    let rig = Rig::new();
    let script = "cat; echo; echo \"in $AX_SESSION\"; printf 'no line feed'";
    let mut harness = sh(script);
    harness["protocol"] = json!("text");
    let mut launch = rig.launch(harness);
    let file = rig.path().join("large");
    std::fs::write(&file, "from a file").unwrap();
    let mut large = text("");
    large.file = Some((file, "blob_1".into(), 11));
    launch.input = vec![text("one\ntwo"), large];
    let (frames, exit) = start_launch(&rig, launch).rest().await;
    let line = |text: &str| Frame::Output { block: None, key: None, parts: vec![Part::text(text)] };
    let session = "in ses_00000000000000000000000000000001";
    let expected: Vec<_> =
        ["one", "two", "from a file", session, "no line feed"].into_iter().map(line).collect();
    assert_eq!(frames[..5], expected);
    assert_eq!((&frames[5..], exit), (&[end()][..], Exit::Said));
}

#[tokio::test]
async fn a_plain_process_that_fails_fails_its_attempt() {
    let text = |script: &str| {
        let mut harness = sh(script);
        harness["protocol"] = json!("text");
        harness
    };
    failed(text("echo partial; echo why >&2; exit 4"), "exit_status", "status 4").await;
    let rig = Rig::new();
    let mut running = start(&rig, text("echo started; exec sleep 600"));
    assert!(matches!(running.next().await, Frame::Output { .. }));
    running.tell(Told::Cancel { grace_millis: 60_000, reason: String::new() }).await;
    let failure = gone(running.exit().await);
    assert_eq!(failure.code, "canceled");
    assert!(failure.message.contains("SIGTERM"), "{failure:?}");
}

#[tokio::test]
async fn a_long_line_of_a_plain_process_becomes_several_outputs() {
    let rig = Rig::new();
    let mut harness = sh("head -c 40000000 /dev/zero | tr '\\0' a");
    harness["protocol"] = json!("text");
    let (frames, exit) = start(&rig, harness).rest().await;
    let bytes = |frame: &Frame| match frame {
        Frame::Output { parts, .. } => parts
            .iter()
            .map(|part| match &part.body {
                Body::Text(text) => text.len(),
                Body::Blob(_) => 0,
            })
            .sum(),
        _ => 0,
    };
    assert_eq!(frames.iter().map(bytes).sum::<usize>(), 40_000_000);
    assert_eq!((frames.len(), exit), (4, Exit::Said));
}
