//! Which crate may depend on which: the architecture, as data.

use serde_json::Value;
use std::process::Command;

const LAYERS: &[(&str, &[&str])] = &[
    ("ax-core", &[]),
    ("ax-proto", &[]),
    ("ax-log", &["ax-core"]),
    ("ax-store", &["ax-core"]),
    ("ax-harness", &["ax-core"]),
    ("ax-fakemodel", &[]),
    ("ax-engine", &["ax-core", "ax-log", "ax-store", "ax-harness", "ax-proto"]),
    ("ax-client", &["ax-proto"]),
    ("ax-server", &["ax-core", "ax-engine", "ax-proto"]),
    (
        "ax",
        &[
            "ax-client",
            "ax-core",
            "ax-engine",
            "ax-fakemodel",
            "ax-harness",
            "ax-log",
            "ax-proto",
            "ax-server",
            "ax-store",
        ],
    ),
    ("ax-sim", &["ax-core", "ax-engine", "ax-harness", "ax-log", "ax-store"]),
    ("xtask", &[]),
];

/// Prints every dependency that is not in [`LAYERS`]; returns whether there was none.
pub(crate) fn check() -> bool {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("a list");
    let mut ok = true;
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == name) else {
            eprintln!("error: {name} has no row in xtask/src/layers.rs");
            ok = false;
            continue;
        };
        for dependency in package["dependencies"].as_array().expect("a list") {
            let on = dependency["name"].as_str().expect("a name");
            let ours = packages.iter().any(|package| package["name"] == on);
            if dependency["kind"].is_null() && ours && !allowed.contains(&on) {
                eprintln!("error: {name} must not depend on {on}");
                ok = false;
            }
        }
    }
    ok
}
