#![expect(clippy::unwrap_used, reason = "a test")]

use super::*;
use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::json;

fn check(section: &Value, expect: &Expect) {
    let said = match Plan::parse(section) {
        Ok(plan) => format!("{plan:?}"),
        Err(error) => format!("{error}\nhint: {}", error.hint),
    };
    expect.assert_eq(&said);
}

#[test]
fn nothing_means_the_safe_defaults() {
    for section in [Value::Null, json!({})] {
        assert_eq!(Plan::parse(&section).unwrap(), Plan::default());
    }
    assert_eq!(Plan::default().backend, BackendKind::Namespace);
}

#[test]
fn sizes_and_durations_are_read_as_people_write_them() {
    let plan = Plan::parse(&json!({
        "resources": {"memory": "512MiB", "scratch": 1048576, "cpus": 0.5},
        "timeLimit": "30m",
        "mounts": [{"source": "/opt/tools"}],
    }));
    let plan = plan.unwrap();
    assert_eq!(plan.resources.memory, 512 << 20);
    assert_eq!(plan.resources.scratch, 1 << 20);
    assert_eq!(plan.time_limit, Some(1800));
    assert_eq!(plan.mounts[0].target(), Path::new("/opt/tools"));
    assert!(!plan.mounts[0].writable);
}

#[test]
fn what_is_wrong_is_explained() {
    check(&json!({"backend": "oci"}), &expect![]);
    check(&json!({"backend": "namespaces"}), &expect![]);
    check(&json!({"mount": []}), &expect![]);
    check(&json!({"mounts": [{"source": "etc"}]}), &expect![]);
    check(&json!({"mounts": [{"source": "/opt/../etc"}]}), &expect![]);
    check(&json!({"mounts": [{"source": "/opt/./x"}]}), &expect![]);
    check(&json!({"mounts": [{"source": "/"}]}), &expect![]);
    check(&json!({"mounts": [{"source": "/proc/1"}]}), &expect![]);
    check(&json!({"mounts": [{"source": "/opt", "target": "/etc/ssh"}]}), &expect![]);
    check(&json!({"mounts": [{"source": "/opt"}, {"source": "/opt"}]}), &expect![]);
    check(&json!({"resources": {"memory": "lots"}}), &expect![]);
    check(&json!({"resources": {"memory": "1MiB"}}), &expect![]);
    check(&json!({"resources": {"cpus": -1}}), &expect![]);
    check(&json!({"resources": {"pids": 0}}), &expect![]);
    check(&json!({"timeLimit": "soon"}), &expect![]);
    check(&json!({"timeLimit": 0}), &expect![]);
    check(&json!({"hostname": "a b"}), &expect![]);
    check(&json!({"env": {"1X": ""}}), &expect![]);
}

proptest! {
    /// Whatever a path looks like: what is accepted names exactly one place, and none of ours.
    #[test]
    fn an_accepted_target_is_plain(target in "(/|\\.|[a-z]|\u{0}){0,12}") {
        let section = json!({"mounts": [{"source": "/opt/x", "target": target}]});
        if let Ok(plan) = Plan::parse(&section) {
            let target = plan.mounts[0].target().to_str().unwrap();
            prop_assert!(target.starts_with('/') && target.len() > 1);
            prop_assert!(target.split('/').skip(1).all(|part| !matches!(part, "" | "." | "..")));
        }
    }

    #[test]
    fn reading_never_panics_and_what_is_read_comes_back(text in "[0-9]{0,22}[A-Za-z]{0,3}") {
        let section = json!({"resources": {"memory": text}, "timeLimit": text});
        if let Ok(plan) = Plan::parse(&section) {
            let again = serde_json::to_value(&plan).unwrap();
            prop_assert_eq!(Plan::parse(&again).unwrap(), plan);
        }
    }
}
