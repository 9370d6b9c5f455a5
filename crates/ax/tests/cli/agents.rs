//! Agents: written, validated, applied, listed, deleted.

use super::world::World;
use expect_test::expect;

#[test]
fn a_fresh_process_agent_runs() {
    let world = World::new();
    world.ok(&["agent", "init", "process", "hello"]);
    let ran = world.ax(&["run", "-f", "hello/agent.yaml", "good", "day"]);
    expect![[r#"
        you said good
        you said day
        -- exit 0
    "#]]
    .assert_eq(&ran.shown());
}

#[test]
fn every_template_is_valid_and_overwrites_nothing() {
    let world = World::new();
    for template in [
        "process",
        "builtin",
        "python",
        "langgraph",
        "adk",
        "gateway",
        "acp",
        "codex",
        "claude-code",
        "opencode",
        "gemini-cli",
        "antigravity",
        "deep-research",
    ] {
        let written = world.ok(&["agent", "init", template, template, "--name", "mine"]);
        assert!(written.contains("agent.yaml"), "{written}");
        let valid = world.ok(&["agent", "validate", "-f", &format!("{template}/agent.yaml")]);
        assert!(valid.ends_with("is valid"), "{valid}");
        let again = world.ax(&["agent", "init", template, template]);
        assert_eq!(again.code, 2);
        assert!(again.err.starts_with("error[AX1016]"), "{again:?}");
    }
}

#[test]
fn a_manifest_is_applied_once_and_versions_count_up() {
    let world = World::new();
    world.ok(&["agent", "init", "process", "a"]);
    assert_eq!(world.ok(&["agent", "apply", "-f", "a/agent.yaml"]), "hello@1");
    assert_eq!(world.ok(&["agent", "apply", "-f", "a/agent.yaml"]), "hello@1, unchanged");
    let path = world.path("a/agent.yaml");
    let text = std::fs::read_to_string(&path).unwrap().replace("10m", "11m");
    std::fs::write(&path, &text).unwrap();
    assert_eq!(world.ok(&["agent", "apply", "-f", "a/agent.yaml"]), "hello@2");
    assert_eq!(world.ok(&["agent", "show", "hello"]), text.trim_end());
    assert!(world.ok(&["agent", "show", "hello@1"]).contains("10m"));
    let listed = world.ax(&["agent", "list"]);
    expect![[r#"
        AGENT  VERSION  APPLIED
        hello  2        TIME
        -- exit 0
    "#]]
    .assert_eq(&listed.shown());
    world.ok(&["agent", "delete", "hello"]);
    assert_eq!(world.ax(&["agent", "show", "hello"]).code, 2);
}

#[test]
fn a_manifest_comes_from_standard_input_too() {
    let world = World::new();
    world.ok(&["agent", "init", "process", "."]);
    let manifest = std::fs::read(world.path("agent.yaml")).unwrap();
    let ran = world.ax_given(&["agent", "apply", "-f", "-"], &manifest);
    assert_eq!((ran.code, ran.out.as_str()), (0, "hello@1\n"));
    assert_eq!(world.ok(&["run", "-a", "hello", "hi"]), "you said hi");
}
