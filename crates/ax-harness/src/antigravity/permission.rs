//! What is answered when an agent is about to use a tool.

use crate::acp::{Verdict, fits, verdict};
use crate::config::{ConfigError, closest};
use serde_json::Value;

/// What holds for the tools that fit; the first rule that fits counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// The tool's name, in which `*` stands for any text; any if it is left out.
    tool: Option<String>,
    policy: Verdict,
}

/// Reads `permissions`: a word, or a list of rules.
pub(super) fn rules(section: &Value) -> Result<Vec<Rule>, ConfigError> {
    match section {
        Value::Null => Ok(Vec::new()),
        Value::String(_) => {
            let policy = verdict(section, "permissions")?;
            Ok(vec![Rule { tool: None, policy }])
        }
        Value::Array(rules) => {
            let named = |(at, rule)| (format!("permissions[{at}]"), rule);
            rules.iter().enumerate().map(named).map(|(field, one)| rule(&field, one)).collect()
        }
        _ => Err(ConfigError::new("permissions", "is neither a word nor a list of rules")
            .suggest("write allow, ask or deny, or a list of {tool, policy}")),
    }
}

fn rule(field: &str, rule: &Value) -> Result<Rule, ConfigError> {
    const FIELDS: [&str; 2] = ["tool", "policy"];
    let Value::Object(fields) = rule else {
        return Err(ConfigError::new(field, "is not a rule")
            .suggest("write {tool: view_file, policy: allow}"));
    };
    if let Some(unknown) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        let wrong = ConfigError::new(&format!("{field}.{unknown}"), "is no field of a rule");
        return Err(match closest(unknown, FIELDS) {
            Some(known) => wrong.suggest(format!("did you mean `{known}`?")),
            None => wrong.suggest("a rule has tool and policy"),
        });
    }
    let tool = match fields.get("tool") {
        None => None,
        Some(Value::String(tool)) => Some(tool.clone()),
        Some(_) => return Err(ConfigError::new(&format!("{field}.tool"), "is not a text")),
    };
    let policy = fields.get("policy").unwrap_or(&Value::Null);
    Ok(Rule { tool, policy: verdict(policy, &format!("{field}.policy"))? })
}

/// Returns what the first rule that fits says. If none does, a person is asked, but for tools that
/// have a say of their own: those of the gateway, and questions.
pub(super) fn decide(rules: &[Rule], tool: &str, has_its_own: bool) -> Verdict {
    let fits = |rule: &&Rule| rule.tool.as_deref().is_none_or(|pattern| fits(pattern, tool));
    match rules.iter().find(fits) {
        Some(rule) => rule.policy,
        None if has_its_own => Verdict::Allow,
        None => Verdict::Ask,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_rule_that_fits_counts() {
        let rules = rules(&json!([
            {"tool": "view_file", "policy": "allow"},
            {"tool": "mcp_bank_*", "policy": "deny"},
        ]))
        .unwrap();
        let check = |tool, own, expect| assert_eq!(decide(&rules, tool, own), expect, "{tool}");
        check("view_file", false, Verdict::Allow);
        check("run_command", false, Verdict::Ask);
        check("mcp_bank_pay", true, Verdict::Deny);
        check("mcp_warehouse_send", true, Verdict::Allow);
        check("ask_question", true, Verdict::Allow);
    }
}
