use super::*;
use expect_test::{Expect, expect};
use proptest::prelude::*;

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
    assert_eq!(Plan::parse(&json!("process")).unwrap().backend, BackendKind::Process);
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
    check(
        &json!({"backend": "oci"}),
        &expect![[r#"
        sandbox.backend: unknown variant `oci`, expected `namespace` or `process`
        hint: this version knows `namespace` and `process`"#]],
    );
    check(
        &json!({"backend": "namespaces"}),
        &expect![[r#"
        sandbox.backend: unknown variant `namespaces`, expected `namespace` or `process`
        hint: did you mean namespace?"#]],
    );
    check(
        &json!({"mount": []}),
        &expect![[r#"
        sandbox.mount: unknown field `mount`, expected one of `backend`, `root`, `mounts`, `resources`, `env`, `hostname`, `timeLimit`
        hint: did you mean mounts?"#]],
    );
}

#[test]
fn an_image_is_named_and_needs_walls() {
    let plan = Plan::parse(&json!({"root": {"image": "debian:12"}})).unwrap();
    assert_eq!(plan.root, Root::Image("debian:12".into()));
    check(
        &json!({"root": "debian"}),
        &expect![[r#"
        sandbox.root: unknown variant `debian`, expected `host` or `image`
        hint: "#]],
    );
    check(
        &json!({"root": {"image": "a b"}}),
        &expect![[r#"
        sandbox.root.image: is not the name of an image
        hint: `ax image list` shows the images there are"#]],
    );
    check(
        &json!({"root": {"image": "debian:12"}, "backend": "process"}),
        &expect![[r#"
        sandbox.root: an image needs walls, and the backend `process` has none
        hint: use the backend `namespace`"#]],
    );
}

#[test]
fn what_is_wrong_with_a_mount_is_explained() {
    check(
        &json!({"mounts": [{"source": "etc"}]}),
        &expect![[r#"
        sandbox.mounts[0].source: etc is not absolute
        hint: begin it with /"#]],
    );
    check(
        &json!({"mounts": [{"source": "/opt/../etc"}]}),
        &expect![[r#"
        sandbox.mounts[0].source: /opt/../etc goes round about
        hint: write it without . or .. and without a slash at its end"#]],
    );
    check(
        &json!({"mounts": [{"source": "/opt/./x"}]}),
        &expect![[r#"
        sandbox.mounts[0].source: /opt/./x goes round about
        hint: write it without . or .. and without a slash at its end"#]],
    );
    check(
        &json!({"mounts": [{"source": "/"}]}),
        &expect![[r#"
        sandbox.mounts[0].source: would show /proc of the host
        hint: name what is needed of it"#]],
    );
    check(
        &json!({"mounts": [{"source": "/proc/1"}]}),
        &expect![[r#"
        sandbox.mounts[0].source: would show /proc of the host
        hint: name what is needed of it"#]],
    );
    check(
        &json!({"mounts": [{"source": "/opt", "target": "/etc/ssh"}]}),
        &expect![[r#"
        sandbox.mounts[0].target: /etc is made by the sandbox itself
        hint: choose another place"#]],
    );
    check(
        &json!({"mounts": [{"source": "/opt"}, {"source": "/opt"}]}),
        &expect![[r#"
        sandbox.mounts[1].target: /opt is mounted to twice
        hint: remove one of them"#]],
    );
}

#[test]
fn what_is_wrong_with_an_amount_is_explained() {
    check(
        &json!({"resources": {"memory": "lots"}}),
        &expect![[r#"
        sandbox.resources.memory: is not a size: write bytes, or a text such as 512MiB
        hint: "#]],
    );
    check(
        &json!({"resources": {"memory": "1MiB"}}),
        &expect![[r#"
        sandbox.resources.memory: is less than 16 MiB
        hint: no program starts with so little"#]],
    );
    check(
        &json!({"resources": {"cpus": -1}}),
        &expect![[r#"
        sandbox.resources.cpus: is not between 0.01 and 1024
        hint: write processors, such as 0.5"#]],
    );
    check(
        &json!({"resources": {"pids": 0}}),
        &expect![[r#"
        sandbox.resources.pids: is not between 4 and 4000000
        hint: "#]],
    );
    check(
        &json!({"timeLimit": "soon"}),
        &expect![[r#"
        sandbox.timeLimit: is not a duration: write seconds, or a text such as 30m
        hint: "#]],
    );
    check(
        &json!({"timeLimit": 0}),
        &expect![[r#"
        sandbox.timeLimit: is nothing
        hint: leave it out for no limit"#]],
    );
    check(
        &json!({"hostname": "a b"}),
        &expect![[r#"
        sandbox.hostname: is not a host name
        hint: letters, digits and hyphens, at most 63"#]],
    );
    check(
        &json!({"env": {"1X": ""}}),
        &expect![[r#"
        sandbox.env.1X: is not a name
        hint: letters, digits and underscores; no digit first"#]],
    );
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
