//! What the sections say.

use super::fields::{Fields, Report, suggestion};
use super::yaml::Value;
use super::{Manifest, NAME_BYTES_MAX, Problem, Snapshots, Workspace, duration};
use ax_core::session::{Budget, Limits, Retry, SubmitPolicy};
use std::collections::BTreeMap;

/// The most inputs that may wait.
const QUEUE_MAX: u64 = 10_000;
/// The most attempts, and the most restarts.
const ATTEMPTS_MAX: u64 = 1_000_000;
/// The highest budget, in tokens or calls.
const BUDGET_MAX: u64 = 1_000_000_000_000;
/// The highest budget, in US dollars.
const COST_USD_MAX: f64 = 1e9;
/// The most labels, and the most annotations.
const LABELS_MAX: usize = 64;

/// Reads `metadata.name`.
pub(super) fn name(report: &mut Report, metadata: &Fields<'_>) -> Option<String> {
    let name = report.text(metadata, "name", "give the agent a name")?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let edges = name.starts_with('-') || name.ends_with('-');
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && !edges && name.bytes().all(plain) {
        return Some(name.to_owned());
    }
    let short: String = name.chars().take(80).collect();
    let hint = "use 1 to 63 of a-z, 0-9 and '-', which is neither first nor last";
    report.problem(metadata, "name", format!("{short:?} cannot be a name"), hint);
    None
}

/// Reads `metadata.labels`.
pub(super) fn labels(report: &mut Report, metadata: &Fields<'_>) -> BTreeMap<String, String> {
    texts(report, metadata, "labels", |value| {
        let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let ends = edge(value.chars().next()) && edge(value.chars().next_back());
        value.len() <= 63 && ends && value.chars().all(plain)
    })
}

/// Reads `metadata.annotations`.
pub(super) fn annotations(report: &mut Report, metadata: &Fields<'_>) -> BTreeMap<String, String> {
    texts(report, metadata, "annotations", |_| true)
}

fn texts(
    report: &mut Report,
    metadata: &Fields<'_>,
    name: &str,
    valid: fn(&str) -> bool,
) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    let Some(node) = metadata.get(name) else { return texts };
    let Some(fields) = report.map(&metadata.path(name), node) else { return texts };
    if fields.iter().count() > LABELS_MAX {
        report.problem(metadata, name, format!("there may be {LABELS_MAX} at most"), "");
    }
    for (key, _) in fields.iter() {
        let Some(value) = report.text(&fields, key, "give it a value, such as \"\"") else {
            continue;
        };
        if !is_label_key(key) {
            let hint = "use NAME or DOMAIN/NAME, the name with 1 to 63 of a-z, A-Z, 0-9, - _ .";
            report.problem(&fields, key, format!("{key:?} cannot be a key here"), hint);
        } else if valid(value) {
            drop(texts.insert(key.to_owned(), value.to_owned()));
        } else {
            let hint = "use at most 63 of a-z, A-Z, 0-9, - _ . and put other texts in annotations";
            report.problem(&fields, key, format!("{value:?} cannot be a label"), hint);
        }
    }
    texts
}

fn is_label_key(key: &str) -> bool {
    let (domain, name) = key.split_once('/').map_or(("-", key), |(domain, name)| (domain, name));
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let fits = |text: &str, most| !text.is_empty() && text.len() <= most && text.chars().all(plain);
    fits(domain, 253) && fits(name, 63)
}

/// Reads `spec.sandbox`: a section, or the name of a backend; null if it is left out.
pub(super) fn sandbox(report: &mut Report, spec: &Fields<'_>) -> Option<serde_json::Value> {
    const HINT: &str = "leave it out for a sandbox with safe defaults, or write a section such as \
        `sandbox: {resources: {memory: 4GiB}}`";
    let Some(node) = spec.get("sandbox") else { return Some(serde_json::Value::Null) };
    if matches!(node.value, Value::Text(_) | Value::Map(_)) {
        return Some(node.to_json());
    }
    let message = format!("must be a section or a text, not {}", node.what());
    report.problem(spec, "sandbox", message, HINT);
    None
}

/// Reads `spec.harness` as far as all harnesses are alike.
pub(super) fn harness(report: &mut Report, spec: &Fields<'_>) -> Option<serde_json::Value> {
    let Some(node) = spec.get("harness") else {
        let hint = "write `harness: {type: process, command: [PROGRAM, ARGUMENT]}` to run a \
            program, or `harness: {type: builtin, model: …}` for the built-in agent";
        report.problem(spec, "harness", "is missing", hint);
        return None;
    };
    let fields = report.map(&spec.path("harness"), node)?;
    report.text(&fields, "type", "write `type: process` or `type: builtin`")?;
    Some(node.to_json())
}

/// Reads `spec.gateway` as far as it is a section; null if it is left out.
pub(super) fn gateway(report: &mut Report, spec: &Fields<'_>) -> Option<serde_json::Value> {
    let Some(node) = spec.get("gateway") else { return Some(serde_json::Value::Null) };
    report.map(&spec.path("gateway"), node)?;
    Some(node.to_json())
}

/// Reads `spec.workspace`; what is left out is as it is by default.
pub(super) fn workspace(report: &mut Report, spec: &Fields<'_>) -> Workspace {
    let mut workspace = Workspace::default();
    let Some(node) = spec.get("workspace") else { return workspace };
    let path = spec.path("workspace");
    let Some(fields) = report.fields(&path, node, &["snapshots"]) else { return workspace };
    if let Some(written) = report.text_option(&fields, "snapshots") {
        let known = Snapshots::NAMES.iter().find(|(name, _)| *name == written);
        if let Some((_, snapshots)) = known {
            workspace.snapshots = *snapshots;
        } else {
            let hint = suggestion(written, &Snapshots::NAMES.map(|(name, _)| name));
            let message = format!("files are not kept at {written:?}");
            report.problem(&fields, "snapshots", message, hint);
        }
    }
    workspace
}

/// Reads `spec.limits`; what is left out is as it is by default.
pub(super) fn limits(report: &mut Report, spec: &Fields<'_>) -> Limits {
    const FIELDS: [&str; 8] = [
        "submit",
        "queue",
        "executionTimeout",
        "idleTimeout",
        "stepTimeout",
        "parkAfter",
        "retry",
        "budget",
    ];
    let mut limits = Limits::default();
    let Some(node) = spec.get("limits") else { return limits };
    let path = spec.path("limits");
    let Some(fields) = report.fields(&path, node, &FIELDS) else { return limits };
    if let Some(submit) = submit(report, &fields) {
        limits.submit = submit;
    }
    set_count(&mut limits.queue_max, report.number(&fields, "queue", 0, QUEUE_MAX));
    set(&mut limits.execution_millis_max, millis(report, &fields, "executionTimeout"));
    set(&mut limits.idle_millis_max, millis(report, &fields, "idleTimeout"));
    set(&mut limits.step_millis_max, millis(report, &fields, "stepTimeout"));
    set(&mut limits.park_millis, millis(report, &fields, "parkAfter"));
    retry(report, &fields, &mut limits.retry);
    budget(report, &fields, &mut limits.budget);
    limits
}

fn set(target: &mut u64, value: Option<u64>) {
    *target = value.unwrap_or(*target);
}

fn set_count(target: &mut u32, value: Option<u64>) {
    *target = value.and_then(|value| value.try_into().ok()).unwrap_or(*target);
}

fn submit(report: &mut Report, limits: &Fields<'_>) -> Option<SubmitPolicy> {
    let policy = match report.text_option(limits, "submit")? {
        "enqueue" => SubmitPolicy::Enqueue,
        "reject" => SubmitPolicy::Reject,
        "interrupt" => SubmitPolicy::Interrupt,
        "branch" => SubmitPolicy::Branch,
        other => {
            let hint = suggestion(other, &["enqueue", "reject", "interrupt", "branch"]);
            report.problem(limits, "submit", format!("there is no policy {other:?}"), hint);
            return None;
        }
    };
    Some(policy)
}

fn retry(report: &mut Report, limits: &Fields<'_>, retry: &mut Retry) {
    const FIELDS: [&str; 4] = ["attempts", "backoffMin", "backoffMax", "restarts"];
    let Some(node) = limits.get("retry") else { return };
    let Some(fields) = report.fields(&limits.path("retry"), node, &FIELDS) else { return };
    set_count(&mut retry.attempts_max, report.number(&fields, "attempts", 1, ATTEMPTS_MAX));
    set_count(&mut retry.restarts_max, report.number(&fields, "restarts", 1, ATTEMPTS_MAX));
    let least = millis(report, &fields, "backoffMin");
    let most = millis(report, &fields, "backoffMax");
    set(&mut retry.backoff_millis_min, least);
    set(&mut retry.backoff_millis_max, most);
    if retry.backoff_millis_min <= retry.backoff_millis_max {
        return;
    }
    if least.is_some() && most.is_some() {
        let message = "must not be shorter than `backoffMin`";
        report.problem(&fields, "backoffMax", message, "");
    } else if least.is_some() {
        retry.backoff_millis_max = retry.backoff_millis_min;
    } else {
        retry.backoff_millis_min = retry.backoff_millis_max;
    }
}

fn budget(report: &mut Report, limits: &Fields<'_>, budget: &mut Budget) {
    const FIELDS: [&str; 3] = ["tokens", "costUsd", "toolCalls"];
    let Some(node) = limits.get("budget") else { return };
    let Some(fields) = report.fields(&limits.path("budget"), node, &FIELDS) else { return };
    set(&mut budget.tokens, report.number(&fields, "tokens", 0, BUDGET_MAX));
    set(&mut budget.tool_calls, report.number(&fields, "toolCalls", 0, BUDGET_MAX));
    set(&mut budget.cost_micros, cost_micros(report, &fields));
}

/// Reads an amount of US dollars, in millionths.
fn cost_micros(report: &mut Report, budget: &Fields<'_>) -> Option<u64> {
    let node = budget.get("costUsd")?;
    let dollars = match &node.value {
        Value::Number(number) => number.as_f64(),
        _ => None,
    };
    let Some(dollars) = dollars.filter(|dollars| (0.0..=COST_USD_MAX).contains(dollars)) else {
        let message = format!("must be an amount of US dollars, not {}", node.what());
        report.problem(budget, "costUsd", message, "write a number such as 2.50");
        return None;
    };
    let micros = (dollars * 1e6).round();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is within 0 and 10^15"
    )]
    let micros = micros as u64;
    if micros == 0 && dollars > 0.0 {
        report.problem(budget, "costUsd", "is less than a millionth of a dollar", "");
        return None;
    }
    Some(micros)
}

/// Names a bound on costs that nothing would hold: only a program, and a gateway that knows the
/// prices, say what calls cost.
pub(super) fn unpriced(manifest: &Manifest) -> Option<Problem> {
    let kind = manifest.harness.get("type").and_then(serde_json::Value::as_str).unwrap_or_default();
    if kind == "process" || manifest.limits.budget.cost_micros == 0 || !manifest.gateway.is_null() {
        return None;
    }
    let message = format!("a harness of type `{kind}` does not know what its calls cost");
    let hint = "bound it by `tokens` or `toolCalls` instead";
    Some(Problem::new("spec.limits.budget.costUsd", message).with_hint(hint))
}

/// Reads a duration that may be left out, in milliseconds.
fn millis(report: &mut Report, fields: &Fields<'_>, name: &str) -> Option<u64> {
    const HINT: &str = "write a number and a unit, such as 500ms, 30s, 5m, 2h or 1d";
    let node = fields.get(name)?;
    let problem = match &node.value {
        Value::Text(text) => match duration::parse(text) {
            Ok(millis) => return Some(millis),
            Err(duration::Error::TooLong) => {
                let message = format!("{text:?} is longer than ten years");
                report.problem(fields, name, message, "`0s` means without a bound");
                return None;
            }
            Err(duration::Error::Form) => format!("{text:?} is not a duration"),
        },
        Value::Number(number) if number.as_u64() == Some(0) => return Some(0),
        Value::Number(number) => format!("the number {number} has no unit"),
        _ => format!("must be a duration, not {}", node.what()),
    };
    report.problem(fields, name, problem, HINT);
    None
}
