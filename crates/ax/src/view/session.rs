//! How a session looks.

use super::table::short;
use crate::exit::Exit;
use crate::out::{Out, Style};
use crate::time::{now, rfc3339, span};
use ax_engine::WaitState;
use ax_proto::v1;

/// The state of a status, in a word.
pub(crate) fn word(status: Option<&v1::Status>) -> &'static str {
    let state = status.map_or(0, |status| status.state);
    let known = u8::try_from(state).ok().and_then(WaitState::from_number);
    known.map_or("unknown", WaitState::word)
}

/// The same, in its color.
pub(crate) fn colored(out: &Out, word: &str) -> String {
    let style = match word {
        "completed" => Style::Green,
        "failed" | "timed-out" => Style::Red,
        "running" | "retrying" => Style::Cyan,
        "canceled" | "ready" => Style::Dim,
        _ => Style::Yellow,
    };
    out.style(style, word)
}

/// The exit code of a command that saw the session come to rest so.
pub(crate) fn exit_of(status: &v1::Status) -> Exit {
    match status.state() {
        v1::State::Failed => Exit::Failed,
        v1::State::Canceled => Exit::Canceled,
        v1::State::TimedOut => Exit::TimedOut,
        v1::State::WaitingAsk | v1::State::WaitingSignal => Exit::Waiting,
        _ => Exit::Done,
    }
}

/// The sandbox, and what it does not do.
pub(crate) fn sandbox(name: &str) -> String {
    if name == "process" { "process (no isolation)".into() } else { name.to_owned() }
}

/// What a person calls a session: its title, else its name.
pub(crate) fn title(session: &v1::Session) -> &str {
    if session.title.is_empty() { &session.name } else { &session.title }
}

/// Everything about a session, a line each: what it is, and what it says.
pub(crate) fn facts(session: &v1::Session) -> Vec<(&'static str, String)> {
    let status = session.status.clone().unwrap_or_default();
    let mut facts = vec![("session", session.id.clone())];
    if !session.name.is_empty() {
        facts.push(("name", session.name.clone()));
    }
    if !session.title.is_empty() && session.title != session.name {
        facts.push(("title", session.title.clone()));
    }
    facts.push(("agent", format!("{}@{}", session.agent, session.agent_version)));
    facts.push(("sandbox", sandbox(&session.sandbox)));
    facts.push(("state", word(Some(&status)).into()));
    facts.extend(status.waiting.iter().map(|what| ("waits for", short(what, 200))));
    if status.due_at_millis > 0 {
        facts.push(("due", due(status.due_at_millis)));
    }
    if status.execution > 0 {
        let attempt = match status.attempt {
            0 => String::new(),
            attempt => format!(", attempt_{attempt}"),
        };
        facts.push(("execution", format!("exec_{}{attempt}", status.execution)));
    }
    if !status.outcome.is_empty() {
        let reason = if status.reason.is_empty() { "" } else { ": " };
        facts.push(("outcome", format!("{}{reason}{}", status.outcome, status.reason)));
    }
    for ask in &status.asks {
        facts.push(("open", format!("ask_{}: {}", ask.ask, short(&ask.prompt, 200))));
        facts.push(("answer", how_to_answer(&session.id, ask)));
    }
    if status.queued > 0 {
        facts.push(("queued", format!("{} inputs", status.queued)));
    }
    facts.push(("events", session.last.to_string()));
    if !session.parent.is_empty() {
        facts.push(("branch of", format!("{} at {}", session.parent, session.branched_at)));
    }
    facts.push(("created", rfc3339(session.created_at_millis)));
    facts.push(("updated", rfc3339(session.updated_at_millis)));
    let used = session.usage.as_ref().filter(|used| used.model_calls + used.tool_calls > 0);
    facts.extend(used.map(|used| ("used", usage(used))));
    facts
}

/// When something is due, and how far that is away.
fn due(at_millis: u64) -> String {
    let now = now().millis;
    let how_far = match at_millis.checked_sub(now) {
        Some(left) => format!("in {}", span(left)),
        None => format!("{} ago", span(now - at_millis)),
    };
    format!("{} ({how_far})", rfc3339(at_millis))
}

/// What was consumed, in words.
pub(crate) fn usage(usage: &v1::Usage) -> String {
    let mut words = vec![
        format!("{} model calls", usage.model_calls),
        format!("{} tool calls", usage.tool_calls),
        format!("{} tokens in", usage.input_tokens),
        format!("{} out", usage.output_tokens),
    ];
    if usage.cost_micros > 0 {
        words.push(dollars(usage.cost_micros));
    }
    words.join(", ")
}

/// An amount in US dollars.
#[expect(clippy::cast_precision_loss, reason = "shown with four digits")]
pub(crate) fn dollars(micros: u64) -> String {
    format!("${:.4}", micros as f64 / 1e6)
}

/// The command that answers a question.
pub(crate) fn how_to_answer(session: &str, ask: &v1::OpenAsk) -> String {
    let answer = match ask.kind() {
        v1::AskKind::Approval => "--approve or --deny".to_owned(),
        v1::AskKind::Choice => format!("--choose {}", ask.choices.join(" | ")),
        _ => "--text TEXT".to_owned(),
    };
    format!("ax answer {session} ask_{} {answer}", ask.ask)
}
