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
