//! What clients want.

use super::{Draft, Known, attempt, end, end_and_go_on, save, start_next};
use crate::id::{AskId, ExecId, Seq};
use crate::session::event::{Kind, Outcome};
use crate::session::exec::{Exec, Item, Step, StepPhase};
use crate::session::input::{Accepted, Refusal, Request};
use crate::session::state::Collection;
use crate::session::value::{
    Answer, AskKind, Body, Digest, Failure, IdempotencyKey, Part, StepKey, SubmitPolicy, Usage,
};

/// How many signals wait for somebody to wait for them.
const SIGNALS_MAX: usize = 256;
/// The longest name of a session, signal or checkpoint, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// The longest title, reason or answer, in bytes.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// The most parts of an input.
const PARTS_MAX: usize = 256;

pub(super) fn decide(
    known: Known<'_>,
    request: &Request,
    draft: &mut Draft,
) -> Result<(), Refusal> {
    if known.state.deleted {
        return Err(Refusal::Deleted);
    }
    let begins = matches!(request, Request::Create { .. });
    if known.state.identity.is_none() && !begins {
        return Err(Refusal::NotCreated);
    }
    match request {
        Request::Create { .. } => return create(known, request, draft),
        Request::Branch { .. } => branch(known, request, draft),
        Request::Submit { key, digest, parts, policy } => {
            let policy = policy.unwrap_or(known.state.limits().submit);
            submit(known, key.as_ref(), *digest, parts, policy, draft)?;
        }
        Request::Answer { ask, answer, via } => answered(known, *ask, answer, via, draft)?,
        Request::Signal { name, key, digest, payload } => {
            signal(known, name, key.as_ref(), *digest, payload, draft)?;
        }
        Request::Cancel { exec, queued, reason } => {
            cancel(known, *exec, *queued, reason, draft)?;
        }
        Request::Rename { title } => {
            length("a title", title, TEXT_BYTES_MAX)?;
            draft.push_session(Kind::SessionRenamed { title: title.clone() });
        }
        Request::Checkpoint { name } => {
            at_most("a name", name, NAME_BYTES_MAX)?;
            draft.push_session(Kind::CheckpointCreated { name: name.clone(), key: None });
        }
        Request::Record { .. } => record(known, request, draft)?,
        Request::Save { saved, rewound_to } => save(known, saved, *rewound_to, draft),
        Request::Delete => delete(known, draft),
    }
    if draft.accepted == Accepted::Nothing && !draft.events.is_empty() {
        draft.accepted = Accepted::At(known.state.next());
    }
    Ok(())
}

pub(super) fn length(what: &'static str, text: &str, limit: usize) -> Result<(), Refusal> {
    if text.is_empty() {
        return Err(Refusal::Length { what, bytes: 0, limit });
    }
    at_most(what, text, limit)
}

pub(super) fn at_most(what: &'static str, text: &str, limit: usize) -> Result<(), Refusal> {
    let bytes = text.len();
    if bytes > limit { Err(Refusal::Length { what, bytes, limit }) } else { Ok(()) }
}

fn create(known: Known<'_>, request: &Request, draft: &mut Draft) -> Result<(), Refusal> {
    let Request::Create { name, agent, limits, sandbox, seed } = request else {
        unreachable!("`decide` hands over this one only");
    };
    if let Some(identity) = &known.state.identity {
        if identity.agent.name == agent.name {
            draft.accepted = Accepted::Before(Seq::FIRST);
            return Ok(());
        }
        return Err(Refusal::Exists { agent: identity.agent.name.clone() });
    }
    at_most("a name", name, NAME_BYTES_MAX)?;
    length("an agent's name", &agent.name, NAME_BYTES_MAX)?;
    draft.push_session(Kind::SessionCreated {
        name: name.clone(),
        agent: agent.clone(),
        limits: *limits,
        sandbox: sandbox.clone(),
        seed: *seed,
    });
    draft.accepted = Accepted::At(Seq::FIRST);
    Ok(())
}

/// The first thing that happens to a branch: it lets go of what its parent had promised.
fn branch(known: Known<'_>, request: &Request, draft: &mut Draft) {
    let Request::Branch { parent, at, carry_on, seed } = request else {
        unreachable!("`decide` hands over this one only");
    };
    let (parent, at, seed) = (*parent, *at, *seed);
    assert_eq!(at, known.state.last, "a branch begins where its prefix ends");
    let carry_on = *carry_on && known.state.exec.is_some();
    draft.push_session(Kind::SessionBranched { parent, at, carry_on, seed });
    if known.state.exec.is_none() {
        return;
    }
    if !carry_on {
        // Nobody is asked: nothing here depends on the answer.
        for step in attempt::open_once_steps(known) {
            draft.push_runtime(Kind::StepUnknown { step });
        }
        return;
    }
    let before = known.exec();
    let exec = ExecId(known.state.exec_count).next();
    draft.start_execution(exec, before.input, Some(before.id));
    let in_flight = |step: &Step| {
        let phases =
            matches!(step.phase, StepPhase::Open { .. } | StepPhase::Doubt | StepPhase::Unknown);
        phases && step.effect.is_once()
    };
    let unknown = before.items.pending().filter_map(|(key, item)| match item {
        Item::Step(step) if in_flight(step) => Some(key.clone()),
        _ => None,
    });
    let unknown: Vec<_> = unknown.collect();
    if unknown.is_empty() {
        draft.start_attempt(false);
    } else {
        attempt::ask_about(known, &unknown, draft);
    }
}

fn submit(
    known: Known<'_>,
    key: Option<&IdempotencyKey>,
    digest: Digest,
    parts: &[Part],
    policy: SubmitPolicy,
    draft: &mut Draft,
) -> Result<(), Refusal> {
    let state = known.state;
    if let Some(before) = known_before(known, key, digest)? {
        draft.accepted = Accepted::Before(before);
        return Ok(());
    }
    few_parts("parts of an input", parts)?;
    let kind = Kind::InputReceived { key: key.cloned(), digest, parts: parts.to_vec(), policy };
    let Some(exec) = &state.exec else {
        let input = state.next();
        draft.push_session(kind);
        draft.start_execution(ExecId(state.exec_count).next(), input, None);
        draft.start_attempt(false);
        return Ok(());
    };
    match policy {
        SubmitPolicy::Reject => Err(Refusal::Busy(exec.id)),
        SubmitPolicy::Branch => {
            draft.accepted = Accepted::Branch(before_execution(exec));
            Ok(())
        }
        SubmitPolicy::Enqueue => {
            let waiting = u32::try_from(state.queue.len()).unwrap_or(u32::MAX);
            if waiting >= state.limits().queue_max {
                return Err(Refusal::QueueFull { waiting });
            }
            draft.push_session(kind);
            Ok(())
        }
        SubmitPolicy::Interrupt => {
            take_back_queue(known, draft);
            let reason = "interrupted by another input".into();
            end(known, Outcome::Canceled { reason }, draft);
            let input = Seq(state.next().0 + draft.events.len() as u64);
            draft.push_session(kind);
            draft.accepted = Accepted::At(input);
            draft.start_execution(ExecId(state.exec_count).next(), input, None);
            draft.start_attempt(false);
            Ok(())
        }
    }
}

/// The last position before an execution, and before its input if nothing lies between.
fn before_execution(exec: &Exec) -> Seq {
    let before = exec.journal_from.prev();
    if before == exec.input { before.prev() } else { before }
}

fn take_back_queue(known: Known<'_>, draft: &mut Draft) {
    for input in &known.state.queue {
        draft.push_session(Kind::InputCanceled { input: *input });
    }
}

fn answered(
    known: Known<'_>,
    ask: Option<AskId>,
    answer: &Answer,
    via: &str,
    draft: &mut Draft,
) -> Result<(), Refusal> {
    let asks = &known.state.asks;
    let ask = match ask {
        Some(ask) => ask,
        None if asks.len() > 1 => return Err(Refusal::Ambiguous(asks.len())),
        None => *asks.keys().next().ok_or(Refusal::NotOpen(None))?,
    };
    let Some(open) = asks.get(&ask) else {
        let before = known.state.answered.iter().find(|before| before.ask == ask);
        let same = before.filter(|before| before.answer == *answer);
        draft.accepted = Accepted::Before(same.ok_or(Refusal::NotOpen(Some(ask)))?.seq);
        return Ok(());
    };
    fits(open.kind, &open.choices, answer)?;
    at_most("a name", via, NAME_BYTES_MAX)?;
    draft.push(Kind::AskAnswered { ask, answer: answer.clone(), via: via.into() });
    let Some(step) = &open.about else {
        attempt::wake(known, draft);
        return Ok(());
    };
    if let Some(kind) = told_about(step, answer) {
        draft.push(kind);
    }
    let others = asks.iter().any(|(other, open)| *other != ask && open.about.is_some());
    if !others {
        draft.start_attempt(false);
    }
    Ok(())
}

/// What an answer about a step of unknown outcome records; nothing if it is to be tried again.
fn told_about(step: &StepKey, answer: &Answer) -> Option<Kind> {
    let Answer::Choice(choice, text) = answer else {
        unreachable!("`fits` has seen to it");
    };
    let (step, usage) = (step.clone(), Usage::default());
    match choice.as_str() {
        "completed" => {
            let text = if text.is_empty() { "null".into() } else { text.clone() };
            Some(Kind::StepCompleted { step, result: Body::Text(text), usage })
        }
        "failed" => {
            let failure = Failure { code: "reported".into(), message: text.clone() };
            Some(Kind::StepFailed { step, failure, usage })
        }
        _ => None,
    }
}

fn fits(kind: AskKind, choices: &[String], answer: &Answer) -> Result<(), Refusal> {
    let (right, wanted) = match (kind, answer) {
        (AskKind::Approval, _) => (
            matches!(answer, Answer::Approve | Answer::Deny(_)),
            "an approval or a denial".to_owned(),
        ),
        (AskKind::Text, _) => (matches!(answer, Answer::Text(_)), "a text".to_owned()),
        (AskKind::Choice, Answer::Choice(choice, _)) => {
            (choices.contains(choice), format!("one of {}", choices.join(", ")))
        }
        (AskKind::Choice, _) => (false, format!("one of {}", choices.join(", "))),
    };
    if !right {
        return Err(Refusal::WrongAnswer { wanted });
    }
    match answer {
        Answer::Approve => Ok(()),
        Answer::Deny(text) | Answer::Choice(_, text) | Answer::Text(text) => {
            at_most("an answer", text, TEXT_BYTES_MAX)
        }
    }
}

fn signal(
    known: Known<'_>,
    name: &str,
    key: Option<&IdempotencyKey>,
    digest: Digest,
    payload: &Body,
    draft: &mut Draft,
) -> Result<(), Refusal> {
    length("a signal's name", name, NAME_BYTES_MAX)?;
    if let Some(before) = known_before(known, key, digest)? {
        draft.accepted = Accepted::Before(before);
        return Ok(());
    }
    let waits =
        known.state.exec.iter().flat_map(|exec| exec.items.pending()).find_map(|(key, item)| {
            matches!(item, Item::Signal(awaited, None) if awaited == name).then(|| key.clone())
        });
    if waits.is_none() && known.state.signals.len() >= SIGNALS_MAX {
        return Err(Refusal::TooMany { what: "signals that nobody waits for", limit: SIGNALS_MAX });
    }
    let signal = known.state.next();
    let (name, payload) = (name.to_owned(), payload.clone());
    draft.push_session(Kind::SignalReceived { name, key: key.cloned(), digest, payload });
    if let Some(key) = waits {
        draft.push_runtime(Kind::SignalDelivered { key, signal });
        attempt::wake(known, draft);
    }
    Ok(())
}

fn record(known: Known<'_>, request: &Request, draft: &mut Draft) -> Result<(), Refusal> {
    let Request::Record { collection, key, digest, parts, replaces, after } = request else {
        unreachable!("`decide` hands over this one only");
    };
    length("a collection's name", collection, NAME_BYTES_MAX)?;
    if let Some(before) = known_before(known, key.as_ref(), *digest)? {
        draft.accepted = Accepted::Before(before);
        return Ok(());
    }
    few_parts("parts of a record", parts)?;
    let collections = &known.state.collections;
    if !collections.contains_key(collection) && collections.len() >= Collection::COUNT_MAX {
        let limit = Collection::COUNT_MAX;
        return Err(Refusal::TooMany { what: "collections of a session", limit });
    }
    let last = collections.get(collection).map_or_else(Seq::default, |known| known.last);
    if after.is_some_and(|after| after != last) {
        return Err(Refusal::Stale { collection: collection.clone(), last });
    }
    draft.push_session(Kind::RecordWritten {
        collection: collection.clone(),
        key: key.clone(),
        digest: *digest,
        parts: parts.clone(),
        replaces: *replaces,
    });
    Ok(())
}

/// Where a request with this key was recorded before.
fn known_before(
    known: Known<'_>,
    key: Option<&IdempotencyKey>,
    digest: Digest,
) -> Result<Option<Seq>, Refusal> {
    let Some(key) = key else { return Ok(None) };
    length("an idempotency key", key.as_str(), IdempotencyKey::BYTES_MAX)?;
    let Some((seq, before)) = known.state.known.get(key) else { return Ok(None) };
    if before != digest {
        return Err(Refusal::KeyReused { key: key.clone(), seq });
    }
    Ok(Some(seq))
}

fn few_parts(what: &'static str, parts: &[Part]) -> Result<(), Refusal> {
    let limit = PARTS_MAX;
    if parts.len() > limit { Err(Refusal::TooMany { what, limit }) } else { Ok(()) }
}

fn cancel(
    known: Known<'_>,
    exec: Option<ExecId>,
    queued: bool,
    reason: &str,
    draft: &mut Draft,
) -> Result<(), Refusal> {
    at_most("a reason", reason, TEXT_BYTES_MAX)?;
    let under_way = known.state.exec_id();
    if under_way.is_none() || exec.is_some_and(|exec| Some(exec) != under_way) {
        return Err(Refusal::Idle);
    }
    let outcome = Outcome::Canceled { reason: reason.into() };
    if queued {
        take_back_queue(known, draft);
        end(known, outcome, draft);
    } else {
        end_and_go_on(known, outcome, draft);
    }
    Ok(())
}

fn delete(known: Known<'_>, draft: &mut Draft) {
    take_back_queue(known, draft);
    if known.state.exec.is_some() {
        end(known, Outcome::Canceled { reason: "the session is deleted".into() }, draft);
    }
    draft.push_session(Kind::SessionDeleted);
}

/// In a session that was imported or branched with inputs that wait, begins the oldest.
pub(super) fn nudge(known: Known<'_>, draft: &mut Draft) {
    if known.state.exec.is_none() && known.state.identity.is_some() && !known.state.deleted {
        start_next(known, draft);
    }
}
