//! What the adapters say about the `harness` section.

use super::Problem;
use ax_harness::Adapters;
use serde_json::Value;

/// Asks the adapter of the section's type.
pub(super) fn check(harness: &Value) -> Vec<Problem> {
    let problem = |error: ax_harness::ConfigError| {
        let problem = Problem::new(format!("spec.{}", error.path), error.cause);
        problem.with_hint(error.suggestion.unwrap_or_default())
    };
    Adapters::validate(harness).err().into_iter().map(problem).collect()
}
