//! Inputs: from arguments, standard input and files; empty, binary, large; sent twice.

use super::world::World;
use expect_test::expect;

/// Says how large each part of its input is, and what it is.
const WEIGH: &str = r#"
    path=${input##*'"path":"'}; path=${path%%'"'*}
    kind=${input##*'"kind":"'}; kind=${kind%%'"'*}
    if test -f "$path"; then say "$kind in a file of $(wc -c < "$path") bytes"
    else say "$kind in the frame"; fi
    finish
"#;

#[test]
fn the_input_is_standard_input_if_there_are_no_arguments() {
    let world = World::new();
    world.echo();
    let ran = world.ax_given(&["run", "-a", "echo"], "from a pipe\n".as_bytes());
    assert_eq!((ran.code, ran.out.as_str()), (0, "from a pipe\n"), "{ran:?}");
}

#[test]
fn an_empty_input_is_refused() {
    let world = World::new();
    world.echo();
    let ran = world.ax_given(&["run", "-a", "echo"], b"");
    expect![[r#"
        -- stderr
        error[AX1001]: the input is empty
          hint: say it in the arguments, in a file with --file, or on standard input
        -- exit 2
    "#]]
    .assert_eq(&ran.shown());
    assert_eq!(world.ok(&["session", "list"]), "");
}

#[test]
fn binary_input_goes_to_the_agent_as_a_file() {
    let world = World::new();
    world.agent("weigh", "jsonl", WEIGH, "");
    let ran = world.ax_given(&["run", "-a", "weigh"], &[0, 159, 146, 150, 10]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "document in a file of 5 bytes\n"), "{ran:?}");
}

#[test]
fn an_input_of_100_mib_is_taken_and_the_log_stays_small() {
    let world = World::new();
    world.agent("weigh", "jsonl", WEIGH, "");
    let large = vec![b'a'; 100 << 20];
    let ran = world.ax_given(&["run", "-a", "weigh", "-s", "large"], &large);
    assert_eq!((ran.code, ran.out.as_str()), (0, "text in a file of 104857600 bytes\n"), "{ran:?}");
    let events = world.ok(&["events", "large"]);
    assert!(events.contains("[100 MiB in blob_"), "{events}");
    let exported = world.path("large.axs");
    world.ok(&["session", "export", "large", "-o", exported.to_str().unwrap()]);
    assert!(exported.metadata().unwrap().len() > 100 << 20);
}

#[test]
fn files_go_along_with_their_kind() {
    let world = World::new();
    world.agent("weigh", "jsonl", WEIGH, "");
    world.write("picture.png", [137, 80, 78, 71, 0]);
    world.write("notes.md", "# notes");
    let image = world.ax(&["run", "-a", "weigh", "look", "--file", "picture.png"]);
    assert_eq!(image.out, "image in a file of 5 bytes\n");
    let text = world.ax(&["run", "-a", "weigh", "look", "--file", "notes.md"]);
    assert_eq!(text.out, "text in the frame\n");
}

#[test]
fn a_key_makes_an_input_safe_to_send_again() {
    let world = World::new();
    let script = "echo once >> \"$AX_WORKSPACE\"/../../../../effects; cat";
    world.agent("echo", "text", script, "");
    let args = ["run", "-a", "echo", "-s", "s", "--key", "order-17", "hello"];
    assert_eq!(world.ok(&args), "hello");
    assert_eq!(world.ok(&args), "hello");
    assert_eq!(std::fs::read_to_string(world.path("effects")).unwrap(), "once\n");
    let other = world.ax(&["run", "-s", "s", "--key", "order-17", "something else"]);
    assert_eq!(other.code, 2);
    assert!(other.err.starts_with("error[AX1004]"), "{other:?}");
    // Without a session the key itself says which one.
    let first = world.json(&["run", "-a", "echo", "--key", "order-18", "hello"]);
    let again = world.json(&["run", "-a", "echo", "--key", "order-18", "hello"]);
    assert_eq!(first[0]["session"], again[0]["session"]);
    assert_eq!(again[0]["duplicate"], true);
}

#[test]
fn a_busy_session_refuses_branches_or_queues_as_it_is_told() {
    let world = World::new();
    let script = r#"
        here=$AX_WORKSPACE/../../../..
        read -r line || true
        case $line in
            slow*) touch "$here/began"; while test ! -e "$here/go"; do sleep 0.02; done ;;
        esac
        echo "$line"
    "#;
    world.agent("gate", "text", script, "");
    let _server = world.serve();
    let slow = world.start(&["run", "-a", "gate", "-s", "work", "slow"]);
    world.wait_file("began");
    let refused = world.ax(&["run", "-s", "work", "--policy", "reject", "fast"]);
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.err.starts_with("error[AX1006]"), "{refused:?}");
    let branched = world.ax(&["run", "-s", "work", "--policy", "branch", "fast"]);
    assert_eq!((branched.code, branched.out.as_str()), (0, "fast\n"), "{branched:?}");
    let queued = world.start(&["run", "-s", "work", "--policy", "enqueue", "later"]);
    super::world::wait("queued", || {
        world.json(&["session", "show", "work"])[0]["status"]["queued"] == 1
    });
    world.write("go", "");
    assert_eq!(slow.end().out, "slow\n");
    assert_eq!(queued.end().out, "later\n");
}
