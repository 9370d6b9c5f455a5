//! What is wrong with a manifest is said all at once, with its place and what may help.
#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "manifest/gateway.rs"]
mod gateway;
use ax_core::session::{Limits, SubmitPolicy};
use ax_engine::manifest::{self, MANIFEST_BYTES_MAX, Manifest, Problem};
use ax_harness::BackendKind;
use expect_test::{Expect, expect};
use std::fmt::Write;

const GOOD: &str = "\
apiVersion: agentexecutor.dev/v1
kind: Agent
metadata:
  name: reviewer
spec:
  sandbox: process
  harness:
    type: process
    command: [python3, agent.py]
";

/// The example of `docs/formats/manifest.md`.
const DOCUMENT: &str = include_str!("../../../docs/formats/manifest.md");

fn check(text: &str, expect: Expect) {
    let problems = manifest::validate(text);
    expect.assert_eq(&problems.iter().map(shown).collect::<String>());
}

/// Shows a problem in lines that fit a page.
fn shown(problem: &Problem) -> String {
    let mut found = String::new();
    if let Some(place) = problem.place {
        write!(found, "{}:{} ", place.line, place.column).unwrap();
    }
    let path = if problem.path.is_empty() { "(all of it)" } else { &problem.path };
    writeln!(found, "{path}").unwrap();
    for (text, mark) in [(&problem.message, ""), (&problem.hint, "hint: ")] {
        let mut line = format!("   {mark}");
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            if line.len() + word.len() > 80 {
                writeln!(found, "{}", line.trim_end()).unwrap();
                line = "   ".into();
            }
            line += word;
            line.push(' ');
        }
        if !text.is_empty() {
            writeln!(found, "{}", line.trim_end()).unwrap();
        }
    }
    found
}

/// Puts something in the place of a line of the good manifest.
fn with(line: &str, other: &str) -> String {
    assert!(GOOD.contains(line));
    GOOD.replace(line, other)
}

fn parse(text: &str) -> Manifest {
    manifest::parse(text).unwrap()
}

fn limits(text: &str) -> Limits {
    parse(&format!("{GOOD}  limits: {{{text}}}\n")).limits
}

#[test]
fn a_manifest_needs_little() {
    let manifest = parse(GOOD);
    assert_eq!(manifest.name, "reviewer");
    assert_eq!(manifest.isolation(), BackendKind::Process);
    assert_eq!(manifest.limits, Limits::default());
    let harness = serde_json::json!({"type": "process", "command": ["python3", "agent.py"]});
    assert_eq!(manifest.harness, harness);
    let windows = format!("\u{feff}{}", GOOD.replace('\n', "\r\n"));
    assert_eq!(parse(&windows), manifest);
}

#[test]
fn the_examples_of_the_document_are_valid() {
    let examples: Vec<_> = DOCUMENT.split("```yaml\n").skip(1).collect();
    assert!(examples.len() >= 2);
    for example in examples {
        let (example, _) = example.split_once("```").unwrap();
        assert_eq!(manifest::validate(example), [], "{example}");
    }
}

#[test]
fn every_limit_is_read() {
    let read = limits(
        "submit: interrupt, queue: 1, executionTimeout: 2h, idleTimeout: 1m30s, stepTimeout: 0, \
         parkAfter: 500ms, retry: {attempts: 2, backoffMin: 1s, backoffMax: 5s, restarts: 3}, \
         budget: {tokens: 1000, costUsd: 2.50, toolCalls: 7}",
    );
    assert_eq!(read.submit, SubmitPolicy::Interrupt);
    assert_eq!(read.queue_max, 1);
    assert_eq!(read.execution_millis_max, 7_200_000);
    assert_eq!(read.idle_millis_max, 90_000);
    assert_eq!(read.step_millis_max, 0);
    assert_eq!(read.park_millis, 500);
    assert_eq!(read.retry.attempts_max, 2);
    assert_eq!(read.retry.backoff_millis_min, 1_000);
    assert_eq!(read.retry.backoff_millis_max, 5_000);
    assert_eq!(read.retry.restarts_max, 3);
    assert_eq!(read.budget.tokens, 1_000);
    assert_eq!(read.budget.cost_micros, 2_500_000);
    assert_eq!(read.budget.tool_calls, 7);
    let long = limits("retry: {backoffMin: 5m}").retry;
    assert_eq!((long.backoff_millis_min, long.backoff_millis_max), (300_000, 300_000));
    let short = limits("retry: {backoffMax: 100ms}").retry;
    assert_eq!((short.backoff_millis_min, short.backoff_millis_max), (100, 100));
}

#[test]
fn an_empty_file_is_called_empty() {
    check(
        "",
        expect![[r#"
            (all of it)
               the manifest is empty
               hint: `ax agent init` writes one to begin with
        "#]],
    );
    check(
        "\n# nothing\n---\n",
        expect![[r#"
            (all of it)
               the manifest is empty
               hint: `ax agent init` writes one to begin with
        "#]],
    );
}

#[test]
fn what_is_no_yaml_is_said_with_its_place() {
    check(
        "kind: [Agent\nmetadata: }",
        expect![[r#"
            2:9 (all of it)
               not valid YAML: illegal placement of ':' indicator
        "#]],
    );
    check(
        "a: b: c",
        expect![[r#"
            1:5 (all of it)
               not valid YAML: mapping values are not allowed in this context
        "#]],
    );
    check(
        "- just\n- a list\n",
        expect![[r#"
            1:1 (all of it)
               must be a map, not a list
        "#]],
    );
    check(
        "just text",
        expect![[r#"
            1:1 (all of it)
               must be a map, not the text "just text"
        "#]],
    );
    check(
        "a: *nothing",
        expect![[r#"
            1:4 (all of it)
               not valid YAML: reference to unknown value
        "#]],
    );
    check(
        &format!("{GOOD}---\n{GOOD}"),
        expect![[r#"
            10:1 (all of it)
               the file has more than one document
               hint: put each manifest in a file of its own
        "#]],
    );
    check(
        &format!("{GOOD}\tlimits: {{}}\n"),
        expect![[r#"
            10:2 (all of it)
               not valid YAML: tabs disallowed within this context (block indentation)
        "#]],
    );
}

#[test]
fn a_binary_file_is_called_one() {
    check(
        "ELF\u{0}\u{1}\u{2}",
        expect![[r#"
            1:4 (all of it)
               the manifest is not text: it has control characters
               hint: a manifest is a YAML file in UTF-8
        "#]],
    );
    expect!["the manifest is not text: byte 4 is not UTF-8; a manifest is a YAML file in UTF-8"]
        .assert_eq(&manifest::text(b"\x7fELF\xff\xfe").unwrap_err().to_string());
}

#[test]
fn a_huge_file_is_refused_before_it_is_read() {
    let huge = " ".repeat(100 * 1024 * 1024);
    check(
        &huge,
        expect![[r#"
            (all of it)
               the manifest has 104857600 bytes, the most is 131072
               hint: keep large content in files beside the manifest
        "#]],
    );
    assert!(manifest::text(huge.as_bytes()).is_err());
    let most = format!("{GOOD}{}", "#".repeat(MANIFEST_BYTES_MAX - GOOD.len()));
    assert_eq!(manifest::validate(&most), []);
}

#[test]
fn another_kind_of_document_gets_no_noise() {
    check(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {namespace: x}\nspec: {replicas: 3}\n",
        expect![[r#"
            1:13 apiVersion
               "apps/v1" is not known
               hint: use `agentexecutor.dev/v1`
            2:7 kind
               "Deployment" is not known
               hint: there is `Agent` only
        "#]],
    );
    check(
        "version: '3'\nservices: {}\n",
        expect![[r#"
            1:1 version
               there is no such field
               hint: did you mean `apiVersion`?
            1:1 apiVersion
               is missing
               hint: write `apiVersion: agentexecutor.dev/v1`
            1:1 kind
               is missing
               hint: write `kind: Agent`
            1:1 metadata
               is missing
               hint: it has `name`, `labels` and `annotations`
            1:1 spec
               is missing
               hint: it has `sandbox`, `harness`, `gateway`, `workspace` and `limits`
            2:1 services
               there is no such field
               hint: there is `apiVersion`, `kind`, `metadata` and `spec`
        "#]],
    );
}

#[test]
fn an_unknown_field_comes_with_what_may_be_meant() {
    let text = with("  sandbox:", "  sandbx:");
    check(
        &format!("{text}  limits:\n    idle_timeout: 5s\n    color: red\n"),
        expect![[r#"
            6:3 spec.sandbx
               there is no such field
               hint: did you mean `sandbox`?
            11:5 spec.limits.idle_timeout
               there is no such field
               hint: did you mean `idleTimeout`?
            12:5 spec.limits.color
               there is no such field
               hint: there is `submit`, `queue`, `executionTimeout`, `idleTimeout`,
               `stepTimeout`, `parkAfter`, `retry` and `budget`
        "#]],
    );
    check(
        &with("  name: reviewer", "  name: reviewer\n  label: {a: b}"),
        expect![[r#"
            5:3 metadata.label
               there is no such field
               hint: did you mean `labels`?
        "#]],
    );
}

#[test]
fn a_sandbox_has_safe_defaults_and_is_left_out_only_by_name() {
    for text in [with("  sandbox: process\n", ""), with("sandbox: process", "sandbox:")] {
        assert_eq!(manifest::parse(&text).unwrap().isolation(), BackendKind::Namespace);
    }
    let process = manifest::parse(&with("", "")).unwrap();
    assert_eq!(process.isolation(), BackendKind::Process);
    let section = with("sandbox: process", "sandbox: {resources: {memory: 64MiB}, timeLimit: 5m}");
    let manifest = manifest::parse(&section).unwrap();
    assert_eq!(manifest.isolation(), BackendKind::Namespace);
    assert_eq!(manifest.sandbox["timeLimit"], "5m");
}

#[test]
fn a_wrong_sandbox_is_explained() {
    check(
        &with("sandbox: process", "sandbox: proces"),
        expect![[r#"
            6:12 spec.sandbox.backend
               unknown variant `proces`, expected `namespace` or `process`
               hint: did you mean process?
        "#]],
    );
    check(
        &with("sandbox: process", "sandbox: {runtime: runc}"),
        expect![[r#"
            6:22 spec.sandbox.runtime
               unknown field `runtime`, expected one of `backend`, `root`, `mounts`,
               `resources`, `env`, `hostname`, `timeLimit`
        "#]],
    );
    check(
        &with("sandbox: process", "sandbox: [process]"),
        expect![[r#"
            6:12 spec.sandbox
               must be a section or a text, not a list
               hint: leave it out for a sandbox with safe defaults, or write a section such
               as `sandbox: {resources: {memory: 4GiB}}`
        "#]],
    );
    check(
        &with("sandbox: process", "sandbox: {mounts: [{source: /proc/1}]}"),
        expect![[r#"
            6:31 spec.sandbox.mounts[0].source
               would show /proc of the host
               hint: name what is needed of it
        "#]],
    );
}

#[test]
fn a_name_is_a_dns_label() {
    check(
        &with("name: reviewer", "name: Code Reviewer"),
        expect![[r#"
            4:9 metadata.name
               "Code Reviewer" cannot be a name
               hint: use 1 to 63 of a-z, 0-9 and '-', which is neither first nor last
        "#]],
    );
    check(
        &with("name: reviewer", "name: 42"),
        expect![[r#"
            4:9 metadata.name
               must be a text, not the number 42
               hint: put it in quotes: "42"
        "#]],
    );
    check(
        &with("  name: reviewer", "  labels: {}"),
        expect![[r#"
            4:3 metadata.name
               is missing
               hint: give the agent a name
        "#]],
    );
    check(
        &with("name: reviewer", &format!("name: {}", "a".repeat(64))),
        expect![[r#"
            4:9 metadata.name
               "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" cannot be
               a name
               hint: use 1 to 63 of a-z, 0-9 and '-', which is neither first nor last
        "#]],
    );
}

#[test]
fn labels_are_texts() {
    check(
        &with(
            "  name: reviewer",
            "  name: reviewer\n  labels: {tier: 1, 'a b': c, team: 'x y', ok: fine}\n  \
             annotations: {note: any text at all}",
        ),
        expect![[r#"
            5:18 metadata.labels.tier
               must be a text, not the number 1
               hint: put it in quotes: "1"
            5:28 metadata.labels.a b
               "a b" cannot be a key here
               hint: use NAME or DOMAIN/NAME, the name with 1 to 63 of a-z, A-Z, 0-9, - _ .
            5:37 metadata.labels.team
               "x y" cannot be a label
               hint: use at most 63 of a-z, A-Z, 0-9, - _ . and put other texts in
               annotations
        "#]],
    );
}

#[test]
fn all_bad_limits_are_named() {
    check(
        &format!(
            "{GOOD}  limits:\n    submit: enque\n    queue: -1\n    executionTimeout: 30\n    \
             idleTimeout: 1.5s\n    stepTimeout: 11000d\n    parkAfter: [1s]\n    retry:\n      \
             attempts: 0\n      backoffMin: 10s\n      backoffMax: 1s\n    budget:\n      \
             tokens: 1.5\n      costUsd: free\n      toolCalls: many\n"
        ),
        expect![[r#"
            11:13 spec.limits.submit
               there is no policy "enque"
               hint: did you mean `enqueue`?
            12:12 spec.limits.queue
               must be a whole number from 0 to 10000, not the number -1
            13:23 spec.limits.executionTimeout
               the number 30 has no unit
               hint: write a number and a unit, such as 500ms, 30s, 5m, 2h or 1d
            14:18 spec.limits.idleTimeout
               "1.5s" is not a duration
               hint: write a number and a unit, such as 500ms, 30s, 5m, 2h or 1d
            15:18 spec.limits.stepTimeout
               "11000d" is longer than ten years
               hint: `0s` means without a bound
            16:16 spec.limits.parkAfter
               must be a duration, not a list
               hint: write a number and a unit, such as 500ms, 30s, 5m, 2h or 1d
            18:17 spec.limits.retry.attempts
               must be a whole number from 1 to 1000000, not the number 0
            20:19 spec.limits.retry.backoffMax
               must not be shorter than `backoffMin`
            22:15 spec.limits.budget.tokens
               must be a whole number from 0 to 1000000000000, not the number 1.5
            23:16 spec.limits.budget.costUsd
               must be an amount of US dollars, not the text "free"
               hint: write a number such as 2.50
            24:18 spec.limits.budget.toolCalls
               must be a whole number from 0 to 1000000000000, not the text "many"
        "#]],
    );
}

#[test]
fn a_bound_on_costs_that_nothing_counts_is_refused_unless_it_is_stored_already() {
    let builtin = with(
        "    type: process\n    command: [python3, agent.py]\n",
        "    type: builtin\n    model: {provider: anthropic, name: m}\n  \
         limits: {budget: {costUsd: 2.50}}\n",
    );
    check(
        &builtin,
        expect![[r#"
            10:30 spec.limits.budget.costUsd
               a harness of type `builtin` does not know what its calls cost
               hint: bound it by `tokens` or `toolCalls` instead
        "#]],
    );
    assert_eq!(parse(&builtin).limits.budget.cost_micros, 2_500_000);
    check(&builtin.replace("2.50", "0"), expect![""]);
}

#[test]
fn a_key_that_is_there_twice_is_a_problem() {
    check(
        &with("  sandbox: process\n", "  sandbox: process\n  sandbox: process\n"),
        expect![[r#"
            7:3 (all of it)
               not valid YAML: duplicate mapping key `sandbox` is not allowed here
        "#]],
    );
}

#[test]
fn the_harness_is_checked_by_its_adapter() {
    check(
        &with("type: process", "type: proces"),
        expect![[r#"
            8:11 spec.harness.type
               there is no kind of harness named "proces"
               hint: did you mean `process`?
        "#]],
    );
    check(
        &with("    type: process\n", ""),
        expect![[r#"
            8:5 spec.harness.type
               is missing
               hint: write `type: process` or `type: builtin`
        "#]],
    );
    check(
        &with("command: [python3, agent.py]", "comand: [sh]"),
        expect![[r#"
            9:13 spec.harness.comand
               unknown field `comand`, expected one of `type`, `command`, `protocol`, `env`,
               `config`, `stop_grace_ms`, `dir`
               hint: did you mean `command`?
        "#]],
    );
    check(
        &with("command: [python3, agent.py]", "command: []"),
        expect![[r#"
            9:14 spec.harness.command
               no program is named
               hint: name a program and its arguments, such as [python3, agent.py]
        "#]],
    );
    check(
        &with(
            "    type: process\n    command: [python3, agent.py]\n",
            "    type: builtin\n    model: {provider: antropic, name: x}\n",
        ),
        expect![[r#"
            9:23 spec.harness.model.provider
               unknown variant `antropic`, expected one of `anthropic`, `openai`,
               `openai-chat`, `gemini`
               hint: did you mean `anthropic`?
        "#]],
    );
    let none = GOOD.split("  harness").next().unwrap();
    check(
        none,
        expect![[r#"
            6:3 spec.harness
               is missing
               hint: write `harness: {type: process, command: [PROGRAM, ARGUMENT]}` to run a
               program, or `harness: {type: builtin, model: …}` for the built-in agent
        "#]],
    );
}

#[test]
fn another_check_of_the_harness_can_be_given() {
    let refuse = |harness: &serde_json::Value| {
        assert_eq!(harness["type"], "process");
        vec![Problem::new("spec.harness.command[1]", "is not liked").with_hint("use another")]
    };
    let problems = manifest::parse_with(GOOD, refuse).unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "line 9, column 24: spec.harness.command[1]: is not liked; use another"
    );
}

#[test]
fn aliases_work_and_bombs_do_not() {
    let text = with("    command: [python3, agent.py]", "    command: &c [sh]\n    config: *c");
    assert_eq!(parse(&text).harness["config"], serde_json::json!(["sh"]));
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = format!("*a{}, ", level - 1).repeat(10);
        writeln!(bomb, "a{level}: &a{level} [{before}]").unwrap();
    }
    check(
        &bomb,
        expect![[r#"
            5:10 (all of it)
               not valid YAML: YAML document too large or too complex:
               total_replayed_events=20001 > 20000
        "#]],
    );
    let deep = format!("a: {}{}", "[".repeat(1_000), "]".repeat(1_000));
    check(
        &deep,
        expect![[r#"
            1:36 (all of it)
               not valid YAML: recursion limit exceeded
        "#]],
    );
}

#[test]
fn the_digest_is_of_what_is_said_not_of_how() {
    let one = parse(GOOD).digest;
    let reordered = "
        # The same.
        kind: 'Agent'
        apiVersion: \"agentexecutor.dev/v1\"
        spec: {harness: {command: [python3, agent.py], type: process}, sandbox: process}
        metadata: {name: reviewer}";
    assert_eq!(parse(reordered).digest, one);
    assert_ne!(parse(&with("python3", "python")).digest, one);
    assert_ne!(parse(&with("[python3, agent.py]", "['python3 agent.py']")).digest, one);
    let hex = one.to_string();
    expect!["f4101609747a1e2a0ab7c172d8e997a266078fe890bc6997fbade7602dcf5ba1"].assert_eq(&hex);
}

#[test]
fn any_text_is_answered_without_panic() {
    use proptest::prelude::*;
    let piece = prop_oneof![
        Just(GOOD.to_owned()),
        "[-{}:,&*!|>'\"%@`# \n a-z0-9\\[\\]]{0,40}",
        any::<String>(),
        prop::sample::select(GOOD.lines().collect::<Vec<_>>()).prop_map(|line| format!("{line}\n")),
    ];
    proptest!(|(pieces in prop::collection::vec(piece, 0..8))| {
        drop(manifest::validate(&pieces.concat()));
    });
}
