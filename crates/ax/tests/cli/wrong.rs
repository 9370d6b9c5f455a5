//! What is wrong is said: code, message, hint, exit code.

use super::world::World;
use expect_test::{expect, expect_file};
use std::fmt::Write as _;

/// Command lines that are wrong, or name what is not there.
const WRONG: &[&[&str]] = &[
    &["rnu"],
    &["session", "lst"],
    &["run", "--agnt", "x", "hello"],
    &["run", "--policy", "sometimes", "-a", "echo", "hello"],
    &["run", "hello"],
    &["run", "-a", "nobody", "hello"],
    &["run", "-a", "echo@7", "hello"],
    &["run", "-a", "echo"],
    &["run", "-a", "echo", ""],
    &["run", "-s", "nowhere", "hello"],
    &["run", "-s", "ses_12", "hello"],
    &["run", "-a", "echo", "--file", "missing.txt"],
    &["run", "-a", "echo", "--file", "."],
    &["run", "-f", "missing.yaml", "hello"],
    &["run", "-a", "echo", "--detach", "--wait", "hello"],
    &["run", "-a", "echo", "--key", "", "hello", "--namespace", "Not A Name"],
    &["follow"],
    &["follow", "nowhere"],
    &["follow", "nowhere", "--after", "x"],
    &["events", "nowhere"],
    &["answer", "nowhere"],
    &["answer", "nowhere", "--approve", "--deny"],
    &["answer", "nowhere", "first", "--approve"],
    &["answer", "nowhere", "--approve"],
    &["signal", "nowhere"],
    &["signal", "nowhere", "paid", "{not json"],
    &["signal", "nowhere", "paid"],
    &["cancel", "nowhere"],
    &["cancel", "nowhere", "--execution", "1"],
    &["checkpoint", "nowhere"],
    &["branch", "nowhere"],
    &["branch", "nowhere", "--at", "0"],
    &["branch", "nowhere", "--at", "1", "--checkpoint", "c"],
    &["branch", "nowhere", "--name", "a", "--name", "b"],
    &["branch", "nowhere", "--count", "0"],
    &["tree", "nowhere"],
    &["session", "show", "nowhere"],
    &["session", "show", ""],
    &["session", "delete"],
    &["session", "delete", "nowhere"],
    &["session", "rename", "nowhere", "title"],
    &["session", "list", "--state", "asleep"],
    &["session", "export", "nowhere", "-o", "out.axs"],
    &["session", "import", "missing.axs"],
    &["agent", "init", "golang"],
    &["agent", "init", "process", ".", "--name", "Not A Name"],
    &["agent", "apply"],
    &["agent", "show", "nobody"],
    &["agent", "delete", "nobody"],
    &["agent", "validate", "-f", "missing.yaml"],
    &["image", "import"],
    &["image", "import", "missing.tar"],
    &["image", "import", "agents"],
    &["image", "pull", "debian"],
    &["image", "pull", "127.0.0.1:1/a", "--username", "u"],
    &["image", "pull", "127.0.0.1:1/a", "--username", "u", "--password-env", "NOT_SET"],
    &["image", "pull", "127.0.0.1:1/a"],
    &["image", "show", "nothing"],
    &["image", "delete", "nothing"],
    &["image", "list", "--server", "unix:/nowhere"],
    &["serve", "--runs-max", "0"],
    &["serve", "--server", "unix:/nowhere"],
    &["session", "list", "--server", "ftp://localhost:1"],
    &["session", "list", "--server", "unix:nowhere.sock"],
    &["completions", "tcsh"],
    &["doctor", "--color", "sometimes"],
];

#[test]
fn every_wrong_command_line_gets_code_message_and_hint() {
    let world = World::new();
    world.echo();
    let mut text = String::new();
    for args in WRONG {
        let ran = world.ax(args);
        assert!((2..=4).contains(&ran.code), "{args:?}: {ran:?}");
        assert!(ran.out.is_empty() && ran.err.starts_with("error[AX"), "{args:?}: {ran:?}");
        writeln!(text, "$ ax {}\n{}", args.join(" "), ran.shown()).unwrap();
    }
    expect_file!["wrong.txt"].assert_eq(&text);
}

#[test]
fn an_error_is_one_object_with_json() {
    let ran = World::new().ax(&["session", "show", "nowhere", "--json"]);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    expect![[r#"
        {"causes":[],"code":"AX1002","exit":2,"hint":"`ax session list` shows the sessions there are","message":"there is no session \"nowhere\"","type":"error"}
    "#]]
    .assert_eq(&ran.err);
}

#[test]
fn everything_that_is_wrong_with_a_manifest_is_said_at_once() {
    let world = World::new();
    let manifest = "apiVersion: agentexecutor.dev/v1\nkind: Agent\nmetadata: {name: Bad Name}\n\
        spec:\n  harness: {type: process}\n  limits: {queu: 3, executionTimeout: soon}\n";
    world.write("bad.yaml", manifest);
    let validated = world.ax(&["agent", "validate", "-f", "bad.yaml"]);
    let applied = world.ax(&["agent", "apply", "-f", "bad.yaml"]);
    let used = world.ax(&["run", "-f", "bad.yaml", "hello"]);
    assert_eq!(validated.err, applied.err);
    assert_eq!(validated.err, used.err);
    expect_file!["manifest.txt"].assert_eq(&validated.shown());
}

#[test]
fn what_is_no_manifest_at_all_is_refused() {
    let world = World::new();
    for (name, content) in [
        ("empty.yaml", b"".to_vec()),
        ("binary.yaml", vec![0xff, 0xfe, 0x00]),
        ("list.yaml", b"- a\n- b\n".to_vec()),
        ("broken.yaml", b"a: [b\n".to_vec()),
        ("large.yaml", vec![b'#'; 2 << 20]),
    ] {
        world.write(name, content);
        let ran = world.ax(&["agent", "apply", "-f", name]);
        let code = if name == "large.yaml" { 2 } else { 3 };
        assert_eq!(ran.code, code, "{name}: {ran:?}");
        assert!(ran.err.starts_with("error[AX1101]") || code == 2, "{name}: {ran:?}");
        assert!(ran.err.contains("hint: "), "{name}: {ran:?}");
    }
}
