//! What the adapters say about their sections.

use super::Problem;
use ax_harness::{Adapters, ConfigError};
use serde_json::Value;

/// Asks the adapter of the section's type.
pub(super) fn check(harness: &Value) -> Vec<Problem> {
    Adapters::validate(harness).err().map(problem).into_iter().collect()
}

/// Asks the gateway about the `gateway` section.
pub(super) fn check_gateway(gateway: &Value, harness: &Value) -> Option<Problem> {
    let kind = harness.get("type").and_then(Value::as_str).unwrap_or_default();
    Adapters::validate_gateway(gateway, kind).err().map(problem)
}

/// Asks about the `sandbox` section.
pub(super) fn check_sandbox(sandbox: &Value) -> Option<Problem> {
    Adapters::validate_sandbox(sandbox).err().map(problem)
}

fn problem(error: ConfigError) -> Problem {
    let problem = Problem::new(format!("spec.{}", error.path), error.cause);
    problem.with_hint(error.suggestion.unwrap_or_default())
}
