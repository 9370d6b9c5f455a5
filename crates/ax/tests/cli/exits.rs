//! Exit codes, and what is printed with them.

use super::world::{World, wait};
use expect_test::expect;
use rustix::process::Signal;

#[test]
fn a_completed_execution_is_0_and_prints_what_was_said() {
    let world = World::new();
    world.echo();
    let ran = world.ax(&["run", "-a", "echo", "hello", "world"]);
    expect![[r#"
        hello world
        -- exit 0
    "#]]
    .assert_eq(&ran.shown());
}

#[test]
fn a_failed_execution_is_1_and_says_why() {
    let world = World::new();
    let limits = "{retry: {attempts: 1}}";
    world.agent("broken", "text", "echo half; echo 'no such file' >&2; exit 3", limits);
    let ran = world.ax(&["run", "-a", "broken", "go"]);
    expect![[r#"
        half
        -- stderr
        attempt 1 was lost: the harness exited with status 3 before it said that it was done; standard error:
        no such file (exit_status)
        the agent failed: the harness exited with status 3 before it said that it was done; standard error:
        no such file (attempt 1 of 1) (exit_status)
        -- exit 1
    "#]]
    .assert_eq(&ran.shown());
}

#[test]
fn a_failed_attempt_is_tried_again() {
    let world = World::new();
    let script = "test -e tried || { touch tried; exit 1; }; echo done";
    world.agent("second", "text", script, "{retry: {attempts: 2, backoffMin: 10ms}}");
    let ran = world.ax(&["run", "-a", "second", "go"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "done\n"));
    assert!(ran.err.contains("attempt 1 was lost: "), "{ran:?}");
    assert!(ran.err.contains("tries again"), "{ran:?}");
}

#[test]
fn what_the_next_attempt_says_again_is_said_to_be_void() {
    let world = World::new();
    let script = "say again; test -e tried || { touch tried; exit 1; }; finish";
    world.agent("repeats", "jsonl", script, "{retry: {attempts: 2, backoffMin: 10ms}}");
    let ran = world.ax(&["run", "-a", "repeats", "go"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "again\nagain\n"));
    assert!(ran.err.contains("[superseded: "), "{ran:?}");
}

#[test]
fn an_execution_that_takes_too_long_is_7() {
    let world = World::new();
    world.agent("slow", "text", "sleep 60", "{executionTimeout: 200ms}");
    let ran = world.ax(&["run", "-a", "slow", "go"]);
    expect![[r#"
        -- stderr
        the agent took longer than SPAN
        -- exit 7
    "#]]
    .assert_eq(&ran.shown());
}

#[test]
fn a_canceled_execution_is_6_for_whoever_waits() {
    let world = World::new();
    world.agent("slow", "text", "touch \"$AX_WORKSPACE/../../../../began\"; sleep 60", "");
    let run = world.start(&["run", "-a", "slow", "-s", "work", "go"]);
    world.wait_file("began");
    assert_eq!(world.ok(&["cancel", "work", "--reason", "too late"]), "canceled");
    let ran = run.end();
    expect![[r#"
        -- stderr
        canceled: too late
        -- exit 6
    "#]]
    .assert_eq(&ran.shown());
    assert_eq!(world.state("work"), "canceled");
}

#[test]
fn an_interrupted_command_is_130_and_the_work_goes_on_later() {
    let world = World::new();
    let script = "touch ../../../../began; test -e ../../../../go && echo finished || sleep 60";
    world.agent(
        "slow",
        "text",
        &script.replace("../../../../", "\"$AX_WORKSPACE\"/../../../../"),
        "",
    );
    let run = world.start(&["run", "-a", "slow", "-s", "work", "go"]);
    world.wait_file("began");
    run.signal(Signal::INT);
    let ran = run.end();
    assert_eq!(ran.code, 130, "{ran:?}");
    assert!(ran.err.contains("interrupt again to cancel"), "{ran:?}");
    assert!(ran.err.contains("no server runs, so the work stops here"), "{ran:?}");
    world.write("go", "");
    let followed = world.ax(&["follow", "work", "--until-idle"]);
    assert_eq!(followed.code, 0, "{followed:?}");
    assert!(followed.out.ends_with("finished\n"), "{followed:?}");
}

#[test]
fn interrupted_twice_cancels() {
    let world = World::new();
    world.agent("slow", "text", "touch \"$AX_WORKSPACE\"/../../../../began; sleep 60", "");
    let _server = world.serve();
    let run = world.start(&["run", "-a", "slow", "-s", "work", "go"]);
    world.wait_file("began");
    run.signal(Signal::INT);
    // The second one counts only after the first was seen, so it is sent until it is.
    wait("canceled", || {
        if world.state("work") == "running" {
            run.signal(Signal::INT);
        }
        world.state("work") == "canceled"
    });
    let ran = run.end();
    assert!(ran.code == 6 || ran.code == 130, "{ran:?}");
}

#[test]
fn json_is_one_object_a_line_and_nothing_else() {
    let world = World::new();
    world.echo();
    let ran = world.ax(&["run", "-a", "echo", "-s", "s", "hello", "--json"]);
    expect![[r#"
        {"created":true,"seq":"2","session":"ses_1","type":"submitted"}
        {"actor":"ACTOR_USER","atMillis":"TIME","inputReceived":{"digest":"HASH","key":"KEY","parts":[{"body":{"text":"hello"},"kind":"PART_KIND_TEXT","mediaType":"text/plain"}],"policy":"SUBMIT_POLICY_ENQUEUE"},"principal":"ME","seq":"2","type":"input.received"}
        {"actor":"ACTOR_RUNTIME","atMillis":"TIME","execution":1,"executionStarted":{"input":"2"},"principal":"ME","seq":"3","type":"execution.started"}
        {"actor":"ACTOR_RUNTIME","atMillis":"TIME","attempt":1,"attemptStarted":{},"execution":1,"principal":"ME","seq":"4","type":"attempt.started"}
        {"actor":"ACTOR_HARNESS","atMillis":"TIME","attempt":1,"execution":1,"outputMessage":{"block":"b1","parts":[{"body":{"text":"hello"},"kind":"PART_KIND_TEXT","mediaType":"text/plain"}]},"seq":"5","type":"output.message"}
        {"actor":"ACTOR_HARNESS","atMillis":"TIME","attempt":1,"execution":1,"executionCompleted":{},"seq":"6","type":"execution.completed"}
        -- exit 0
    "#]]
    .assert_eq(&ran.shown());
}

#[test]
fn streamed_blocks_are_whole_when_piped_and_lost_ones_are_not_printed() {
    let world = World::new();
    let script = r#"
        delta() { printf '{"type":"delta","block":"%s","text":"%s"}\n' "$1" "$2"; }
        if test ! -e tried; then
            touch tried
            delta b "this is void"
            exit 1
        fi
        delta b "one "
        delta b "two"
        printf '{"type":"output","block":"b"}\n'
        finish
    "#;
    world.agent("streams", "jsonl", script, "{retry: {attempts: 2, backoffMin: 10ms}}");
    let ran = world.ax(&["run", "-a", "streams", "go"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "one two\n"), "{ran:?}");
}

#[test]
fn a_result_is_printed_if_nothing_was_said() {
    let world = World::new();
    let script = r#"printf '{"type":"end","result":{"words":3}}\n'; exit 0"#;
    world.agent("returns", "jsonl", script, "");
    assert_eq!(world.ok(&["run", "-a", "returns", "go"]), r#"{"words":3}"#);
}
