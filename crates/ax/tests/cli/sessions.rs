//! Sessions: listed, shown, renamed, branched, drawn, exported, imported, deleted.

use super::world::World;
use expect_test::expect;

fn world() -> World {
    let world = World::new();
    world.echo();
    world.ok(&["run", "-a", "echo", "-s", "talk", "--title", "A talk", "hello"]);
    world
}

#[test]
fn the_log_is_listed() {
    let world = world();
    let ran = world.ax(&["events", "talk"]);
    expect![[r#"
             1  TIME  session.created       agent echo@1, sandbox process
             2  TIME  session.renamed       A talk
             3  TIME  input.received        hello
             4  TIME  execution.started     exec_1, input 3
             5  TIME  attempt.started       exec_1 attempt_1
             6  TIME  output.message        hello
             7  TIME  execution.completed   exec_1
        -- exit 0
    "#]]
    .assert_eq(&ran.shown());
    let some = world.json(&["events", "talk", "--after", "2", "--limit", "3"]);
    let seqs: Vec<_> = some.iter().map(|event| event["seq"].as_str().unwrap()).collect();
    assert_eq!(seqs, ["3", "4", "5"]);
    assert_eq!(some[0]["type"], "input.received");
}

#[test]
fn a_conversation_goes_on_in_its_session() {
    let world = world();
    assert_eq!(world.ok(&["run", "-s", "talk", "again"]), "again");
    let followed = world.ax(&["follow", "talk", "--until-idle"]);
    assert_eq!(followed.out, "> hello\nhello\n> again\nagain\n");
    let other = world.ax(&["run", "-s", "talk", "-a", "nobody", "again"]);
    assert!(other.err.starts_with("error[AX1003]"), "{other:?}");
}

#[test]
fn sessions_are_listed_by_state() {
    let world = world();
    let listed = world.ax(&["session", "list"]);
    expect![[r#"
        SESSION                               STATE      AGENT   EVENTS  UPDATED               TITLE
        ses_1  completed  echo@1  7       TIME  A talk
        -- exit 0
    "#]]
    .assert_eq(&listed.shown());
    assert_eq!(world.ok(&["session", "list", "--state", "failed"]), "");
    assert_eq!(world.json(&["session", "list", "--state", "completed"]).len(), 1);
    assert_eq!(world.ok(&["session", "list", "--agent", "nobody"]), "");
    assert_eq!(world.ok(&["session", "list", "--namespace", "other"]), "");
}

#[test]
fn a_session_is_renamed_and_deleted() {
    let world = world();
    world.ok(&["session", "rename", "talk", "Another title"]);
    assert!(world.ok(&["session", "list"]).ends_with("Another title"));
    assert_eq!(world.ok(&["session", "delete", "talk"]), "deleted talk");
    assert_eq!(world.ok(&["session", "list"]), "");
    let gone = world.ax(&["run", "-a", "echo", "-s", "talk", "hello"]);
    assert!(gone.err.starts_with("error[AX1011]"), "{gone:?}");
}

#[test]
fn branches_share_the_past_and_are_drawn_as_a_tree() {
    let world = world();
    assert_eq!(world.ok(&["checkpoint", "talk", "--name", "greeted"]), "checkpoint at 8");
    world.ok(&["branch", "talk", "--at", "5", "--name", "early"]);
    let made = world.ok(&["branch", "talk", "--checkpoint", "greeted", "--count", "2"]);
    assert_eq!(made.lines().count(), 2);
    assert_eq!(
        world.ok(&["run", "-s", made.lines().next().unwrap(), "in the branch"]),
        "in the branch"
    );
    let drawn = world.ax(&["tree", "early"]).shown();
    assert!(drawn.starts_with("ses_1  completed  8 events  A talk\n├─ at 5  ses_2"), "{drawn}");
    assert_eq!(drawn.lines().filter(|line| line.contains("─ at 8  ses_")).count(), 2, "{drawn}");
    assert_eq!(drawn.lines().filter(|line| line.starts_with("└─ at 8")).count(), 1, "{drawn}");
    let parent = world.json(&["session", "show", "talk"]);
    assert_eq!(parent[0]["last"], "8");
    let past = world.ax(&["branch", "talk", "--at", "99"]);
    assert!(past.err.starts_with("error[AX1012]"), "{past:?}");
}

#[test]
fn a_session_moves_to_another_store() {
    let world = world();
    world.ok(&["session", "export", "talk", "-o", "talk.axs"]);
    let elsewhere = world.path("elsewhere");
    let there = ["--data", elsewhere.to_str().unwrap()];
    let import = [&["session", "import", "talk.axs", "--name", "moved"][..], &there].concat();
    world.ok(&import);
    let events = |args: &[&str]| {
        let events = world.json(args);
        events.iter().map(|event| event["type"].clone()).collect::<Vec<_>>()
    };
    let here = events(&["events", "talk"]);
    let moved = events(&[&["events", "moved"][..], &there].concat());
    assert_eq!(here, moved[..here.len()]);
    let again = world.ax(&import);
    assert!(again.err.starts_with("error[AX1016]"), "{again:?}");
    world.write("torn.axs", &std::fs::read(world.path("talk.axs")).unwrap()[..100]);
    let torn = world.ax(&["session", "import", "torn.axs"]);
    assert!(torn.code != 0 && torn.err.starts_with("error[AX"), "{torn:?}");
    world.write("none.axs", "this is no archive");
    let none = world.ax(&["session", "import", "none.axs"]);
    assert!(none.code != 0 && none.err.starts_with("error[AX"), "{none:?}");
}

#[test]
fn what_a_session_took_and_cost_is_shown_and_exported() {
    let world = World::new();
    let step = |key: &str, kind: &str, usage: &str| {
        format!(
            r#"step='"key":"{key}"'
echo '{{"type":"step_begin","kind":"{kind}","name":"n-{key}","effect":"read",'"$step"'}}'
echo '{{"type":"step_end","key":"{key}","result":1,"usage":{usage}}}'
"#
        )
    };
    let model = r#"{"input_tokens":1200,"cached_tokens":1000,"output_tokens":34,
        "cost_micros":5600,"model_calls":1}"#;
    let model = &model.replace(char::is_whitespace, "");
    let script = format!(
        "{}{}echo '{{\"type\":\"end\"}}'",
        step("m", "model", model),
        step("t", "tool", r#"{"tool_calls":1}"#)
    );
    world.agent("works", "jsonl", &script, "");
    world.ok(&["run", "-a", "works", "-s", "job", "go"]);
    let shown = world.ok(&["session", "show", "job", "--cost"]);
    let lines: Vec<_> = shown.lines().collect();
    assert!(lines[0].starts_with("SEQ  AT"), "{shown}");
    let model: Vec<_> = lines[1].split_whitespace().collect();
    assert_eq!(model[2..4], ["model", "n-m"]);
    assert_eq!(model[6..], ["1200", "1000", "34", "$0.0056", "done"]);
    assert!(lines[2].contains("tool") && lines[2].ends_with("done"), "{shown}");
    assert_eq!(lines[3], "paid: 1 model calls, 1234 tokens, $0.0056; 1 tool calls");
    let objects = world.json(&["session", "show", "job", "--cost"]);
    assert_eq!(objects[0]["costMicros"], 5600);
    assert_eq!(objects[2]["type"], "total");

    let kinds = |kind: &str| {
        let events = world.json(&["events", "job", "--kind", kind]);
        events.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(kinds("step.completed"), ["step.completed"; 2]);
    assert_eq!(kinds("step,execution.started").len(), 5);
    assert_eq!(world.json(&["events", "job", "--kind", "step", "--limit", "1"]).len(), 1);
    let wrong = world.ax(&["events", "job", "--kind", "steps"]);
    assert!(wrong.err.contains("\"steps\" is not a kind of event"), "{wrong:?}");

    let lines = world.ok(&["session", "export", "job", "--format", "jsonl"]);
    assert_eq!(lines.lines().count(), world.json(&["events", "job"]).len());
    world.ok(&["session", "export", "job", "--format", "otel", "-o", "spans.json"]);
    let text = std::fs::read_to_string(world.path("spans.json")).unwrap();
    let spans: serde_json::Value = serde_json::from_str(&text).unwrap();
    let spans = spans["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
    assert_eq!(spans.len(), 4, "execution, attempt, model, tool: {text}");
    let trace = spans[0]["traceId"].as_str().unwrap();
    assert!(trace.len() == 32 && spans.iter().all(|span| span["traceId"] == trace), "{text}");
}
