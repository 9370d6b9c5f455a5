//! What the adapters say about the `harness` section.

use super::Problem;
use ax_harness::{ConfigError, ProcessHarness};
use serde_json::Value;

/// Asks the adapter of the section's type.
pub(super) fn check(harness: &Value) -> Vec<Problem> {
    let checked = match harness.get("type").and_then(Value::as_str) {
        Some("process") => ProcessHarness::validate(harness),
        _ => Ok(()),
    };
    checked.err().into_iter().map(problem).collect()
}

fn problem(error: ConfigError) -> Problem {
    let problem = Problem::new(format!("spec.{}", error.path), error.cause);
    problem.with_hint(error.suggestion.unwrap_or_default())
}
