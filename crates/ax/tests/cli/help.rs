//! Help, as it is printed.

use super::world::World;
use expect_test::expect_file;
use std::fmt::Write as _;

const COMMANDS: &[&[&str]] = &[
    &[],
    &["run"],
    &["serve"],
    &["follow"],
    &["events"],
    &["answer"],
    &["signal"],
    &["cancel"],
    &["session"],
    &["session", "list"],
    &["session", "show"],
    &["session", "delete"],
    &["session", "rename"],
    &["session", "share"],
    &["session", "export"],
    &["session", "import"],
    &["checkpoint"],
    &["branch"],
    &["tree"],
    &["agent"],
    &["agent", "init"],
    &["agent", "apply"],
    &["agent", "list"],
    &["agent", "show"],
    &["agent", "delete"],
    &["agent", "validate"],
    &["image"],
    &["image", "import"],
    &["image", "pull"],
    &["image", "list"],
    &["image", "show"],
    &["image", "delete"],
    &["auth"],
    &["auth", "key"],
    &["auth", "key", "create"],
    &["auth", "key", "list"],
    &["auth", "key", "rotate"],
    &["auth", "key", "revoke"],
    &["auth", "share"],
    &["auth", "share", "rotate"],
    &["auth", "audit"],
    &["fsck"],
    &["doctor"],
    &["demo"],
    &["completions"],
];

#[test]
fn every_command_has_its_help() {
    let world = World::new();
    let mut text = String::new();
    for command in COMMANDS {
        let ran = world.ax(&[command, &["--help"][..]].concat());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{command:?}");
        writeln!(text, "==== ax {}\n{}", command.join(" "), ran.out).unwrap();
    }
    expect_file!["help.txt"].assert_eq(&text);
}

#[test]
fn without_a_command_there_is_help_and_code_2() {
    let ran = World::new().ax(&[]);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    assert!(ran.err.contains("Usage: ax [OPTIONS] <COMMAND>"), "{ran:?}");
}

#[test]
fn the_version_is_printed() {
    let version = World::new().ok(&["--version"]);
    assert_eq!(version, format!("ax {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn every_shell_has_completions() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = world.ok(&["completions", shell]);
        assert!(script.contains("checkpoint") && script.contains("ax"), "{shell}");
    }
}
