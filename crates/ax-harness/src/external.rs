//! Agents that run elsewhere: their sessions keep what their frameworks record, and take no inputs.

use crate::config::{ConfigError, parse};
use ax_core::session::Failure;
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct External {
    #[serde(rename = "type")]
    _kind: String,
}

/// Checks the `harness` section of a manifest.
pub(crate) fn validate(harness: &Value) -> Result<(), ConfigError> {
    parse::<External>(harness).map(drop)
}

/// What becomes of an input.
pub(crate) fn failure() -> Failure {
    let message = "this agent runs elsewhere and keeps its records here; it takes no inputs".into();
    Failure { code: "external".into(), message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn it_has_nothing_to_configure() {
        validate(&json!({"type": "external"})).unwrap();
        let error = validate(&json!({"type": "external", "command": ["x"]})).unwrap_err();
        assert_eq!(error.path, "harness.command");
    }
}
