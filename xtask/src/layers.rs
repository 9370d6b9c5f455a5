//! Which crate may depend on which: the architecture, as data.

use crate::command::Program;
use anyhow::{Context as _, Result, bail};
use serde_json::Value;

const LAYERS: &[(&str, &[&str])] = &[
    ("ax-core", &[]),
    ("ax-proto", &[]),
    ("ax-log", &["ax-core"]),
    ("ax-store", &["ax-core"]),
    ("ax-workspace", &["ax-core", "ax-store"]),
    ("ax-gateway", &["ax-core"]),
    ("ax-harness", &["ax-core", "ax-gateway", "ax-image", "ax-proto", "ax-sandbox"]),
    ("ax-sandbox", &[]),
    ("ax-image", &[]),
    ("ax-fakemodel", &[]),
    ("ax-engine", &["ax-core", "ax-log", "ax-store", "ax-workspace", "ax-harness", "ax-proto"]),
    ("ax-client", &["ax-proto"]),
    ("ax-server", &["ax-core", "ax-engine", "ax-harness", "ax-proto"]),
    (
        "ax",
        &[
            "ax-client",
            "ax-core",
            "ax-engine",
            "ax-fakemodel",
            "ax-harness",
            "ax-image",
            "ax-log",
            "ax-proto",
            "ax-sandbox",
            "ax-server",
            "ax-store",
        ],
    ),
    ("ax-sim", &["ax-core", "ax-engine", "ax-harness", "ax-log", "ax-store"]),
    (
        "ax-fuzz",
        &[
            "ax-core",
            "ax-engine",
            "ax-gateway",
            "ax-harness",
            "ax-image",
            "ax-log",
            "ax-proto",
            "ax-sandbox",
            "ax-server",
            "ax-store",
        ],
    ),
    ("xtask", &[]),
];

/// Says which dependencies are not in [`LAYERS`].
pub(crate) fn check() -> Result<String> {
    let metadata = Program::new("cargo")
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .stdout()?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let problems: Vec<String> = packages.iter().flat_map(|one| problems(one, packages)).collect();
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(format!("{} crates", packages.len()))
}

fn problems(package: &Value, packages: &[Value]) -> Vec<String> {
    let name = package["name"].as_str().unwrap_or_default();
    let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == name) else {
        return vec![format!("{name} has no row in xtask/src/layers.rs")];
    };
    let none = Vec::new();
    let dependencies = package["dependencies"].as_array().unwrap_or(&none);
    let on = dependencies.iter().filter(|dependency| dependency["kind"].is_null());
    on.filter_map(|dependency| dependency["name"].as_str())
        .filter(|on| packages.iter().any(|package| package["name"] == *on))
        .filter(|on| !allowed.contains(on))
        .map(|on| format!("{name} must not depend on {on}: see xtask/src/layers.rs"))
        .collect()
}
