//! What a harness says.

use super::client::{at_most, length};
use super::{Draft, Known, attempt, end_and_go_on};
use crate::id::{AskId, Seq};
use crate::session::event::{Kind, Outcome};
use crate::session::exec::{Exec, Item, Step, StepPhase};
use crate::session::input::{Effect, Frame, Refusal, Reply};
use crate::session::state::State;
use crate::session::value::{
    AskKind, BlockId, Body, Budget, Digest, Failure, Part, StepKey, StepKind, Usage,
};
use crate::time::Timestamp;

/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// The longest question or failure message, in bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// The most choices of a question.
const CHOICES_MAX: usize = 64;

pub(super) fn decide(known: Known<'_>, frame: &Frame, draft: &mut Draft) -> Result<(), Refusal> {
    if let Some(key) = frame.key() {
        length("a key", key.as_str(), StepKey::BYTES_MAX)?;
        if let Some(item) = known.exec().items.get(key) {
            return again(known, frame, key, item, draft);
        }
        if known.exec().items.len() >= Exec::ITEMS_MAX {
            let what = "keys of an execution";
            return Err(Refusal::TooMany { what, limit: Exec::ITEMS_MAX });
        }
    }
    match frame {
        Frame::Heartbeat => Ok(()),
        Frame::Delta { block, part, text } => {
            length("a block", block.as_str(), BlockId::BYTES_MAX)?;
            let blocks = &known.exec().blocks;
            if !blocks.contains_key(block) && blocks.len() >= Exec::BLOCKS_MAX {
                let what = "unfinished blocks of output";
                return Err(Refusal::TooMany { what, limit: Exec::BLOCKS_MAX });
            }
            let (block, part, text) = (block.clone(), *part, text.clone());
            draft.push(Kind::OutputDelta { block, part, text });
            Ok(())
        }
        Frame::Output { block, key, parts } => {
            output(known, block.as_ref(), key.as_ref(), parts, draft)
        }
        Frame::StepBegin { .. } => begin(known, frame, false, draft),
        Frame::Note { key, name, data } => {
            length("a note's name", name, NAME_BYTES_MAX)?;
            let (name, key, data) = (name.clone(), key.clone(), data.clone());
            draft.push(Kind::Note { name, key, data });
            Ok(())
        }
        Frame::Checkpoint { key, name } => {
            at_most("a checkpoint's name", name, NAME_BYTES_MAX)?;
            let (name, key) = (name.clone(), Some(key.clone()));
            draft.push(Kind::CheckpointCreated { name, key });
            Ok(())
        }
        Frame::Ask { .. } => ask(known, frame, draft),
        Frame::Sleep { key, due_at } => {
            draft.push(Kind::TimerSet { key: key.clone(), due_at: *due_at });
            if *due_at <= known.now {
                draft.push_runtime(Kind::TimerFired { key: key.clone() });
            }
            Ok(())
        }
        Frame::AwaitSignal { key, name } => await_signal(known, key, name, draft),
        Frame::StepEnd { step, .. } => Err(Refusal::Protocol(format!("step {step} was not begun"))),
        Frame::Diverged { step, expected, found } => {
            diverged(known, step, expected, found, draft);
            Ok(())
        }
        Frame::End { result } => {
            end_and_go_on(known, Outcome::Completed { result: result.clone() }, draft);
            Ok(())
        }
        Frame::Fail { failure, retry } => {
            attempt::fail(known, failure, *retry, draft);
            Ok(())
        }
    }
}

/// Something is recorded under the key already.
fn again(
    known: Known<'_>,
    frame: &Frame,
    key: &StepKey,
    item: &Item,
    draft: &mut Draft,
) -> Result<(), Refusal> {
    let recorded = |seq| (seq, Reply::Recorded { key: key.clone(), seq, before: true });
    let reply = match (frame, item) {
        (Frame::StepBegin { kind, name, digest, .. }, Item::Step(step)) => {
            if (*kind, name, *digest) != (step.kind, &step.name, step.digest) {
                let expected = describe(step.kind, &step.name, step.digest);
                diverged(known, key, &expected, &describe(*kind, name, *digest), draft);
                return Ok(());
            }
            match step.phase {
                StepPhase::Done(seq) => recorded(seq),
                StepPhase::Lost | StepPhase::Doubt => return begin(known, frame, true, draft),
                StepPhase::Open { .. } | StepPhase::Unknown => {
                    return Err(Refusal::Protocol(format!("step {key} was begun already")));
                }
            }
        }
        (Frame::StepEnd { result, usage, .. }, Item::Step(step)) => match step.phase {
            StepPhase::Open { .. } => return ended(known, key, result, usage, draft),
            StepPhase::Done(seq) => recorded(seq),
            StepPhase::Lost | StepPhase::Doubt | StepPhase::Unknown => {
                return Err(Refusal::Protocol(format!("step {key} was not begun")));
            }
        },
        (Frame::Output { .. }, Item::Output(seq))
        | (Frame::Note { .. }, Item::Note(seq))
        | (Frame::Checkpoint { .. }, Item::Checkpoint(seq))
        | (Frame::Ask { .. }, Item::AskDone(_, seq)) => recorded(*seq),
        (Frame::Sleep { .. }, Item::Sleep(_, Some(seq))) => {
            (*seq, Reply::TimerFired { key: key.clone() })
        }
        (Frame::AwaitSignal { name, .. }, Item::Signal(before, delivered)) if name == before => {
            let Some((seq, signal)) = *delivered else { return Ok(()) };
            (seq, Reply::Signaled { key: key.clone(), signal })
        }
        (Frame::AwaitSignal { name, .. }, Item::Signal(before, _)) => {
            diverged(known, key, &format!("signal {before}"), &format!("signal {name}"), draft);
            return Ok(());
        }
        (Frame::Ask { .. }, Item::Ask(_)) | (Frame::Sleep { .. }, Item::Sleep(_, None)) => {
            return Ok(());
        }
        _ => {
            diverged(known, key, item.word(), frame_word(frame), draft);
            return Ok(());
        }
    };
    let exec = known.exec();
    draft.tell = Some((reply.0, Effect::Tell(exec.id, exec.attempt, reply.1)));
    Ok(())
}

const fn frame_word(frame: &Frame) -> &'static str {
    match frame {
        Frame::Output { .. } => "output",
        Frame::Note { .. } => "note",
        Frame::Ask { .. } => "ask",
        Frame::Sleep { .. } => "sleep",
        Frame::AwaitSignal { .. } => "signal",
        Frame::Checkpoint { .. } => "checkpoint",
        _ => "step",
    }
}

fn describe(kind: StepKind, name: &str, digest: Digest) -> String {
    let kind = match kind {
        StepKind::Model => "model",
        StepKind::Tool => "tool",
        StepKind::User => "user",
    };
    format!("{kind} step {name} with request {digest:?}")
}

fn diverged(known: Known<'_>, step: &StepKey, expected: &str, found: &str, draft: &mut Draft) {
    let short = |text: &str| text.chars().take(4_096).collect::<String>();
    let (expected, found) = (short(expected), short(found));
    let message = format!("at {step}: recorded was {expected}, found was {found}");
    draft.push(Kind::StepDiverged { step: step.clone(), expected, found });
    let failure = Failure { code: "divergence".into(), message };
    end_and_go_on(known, Outcome::Failed { failure }, draft);
}

fn begin(known: Known<'_>, frame: &Frame, again: bool, draft: &mut Draft) -> Result<(), Refusal> {
    let Frame::StepBegin { step, kind, name, effect, digest, request, prefix, limit_millis } =
        frame
    else {
        unreachable!("only called for the beginning of a step");
    };
    length("a step's name", name, NAME_BYTES_MAX)?;
    draft.push(Kind::StepStarted {
        step: step.clone(),
        kind: *kind,
        name: name.clone(),
        effect: *effect,
        digest: *digest,
        request: request.clone(),
        prefix: prefix.clone(),
        again,
        limit_millis: limit_millis.unwrap_or(known.state.limits().step_millis_max),
    });
    Ok(())
}

fn ended(
    known: Known<'_>,
    key: &StepKey,
    result: &Result<Body, Failure>,
    usage: &Usage,
    draft: &mut Draft,
) -> Result<(), Refusal> {
    let (step, usage) = (key.clone(), *usage);
    draft.push(match result {
        Ok(result) => Kind::StepCompleted { step, result: result.clone(), usage },
        Err(failure) => {
            at_most("a failure's message", &failure.message, TEXT_BYTES_MAX)?;
            Kind::StepFailed { step, failure: failure.clone(), usage }
        }
    });
    let mut total = known.exec().usage;
    total.add(&usage);
    if let Some((budget, limit, used)) = exceeded(&known.state.limits().budget, &total) {
        draft.push_runtime(Kind::BudgetExceeded { budget: budget.into(), limit, used });
        let message = format!("{used} {budget} were used, {limit} are allowed");
        let failure = Failure { code: "budget_exceeded".into(), message };
        end_and_go_on(known, Outcome::Failed { failure }, draft);
    }
    Ok(())
}

fn exceeded(budget: &Budget, usage: &Usage) -> Option<(&'static str, u64, u64)> {
    let tokens = usage.input_tokens.saturating_add(usage.output_tokens);
    let figures = [
        ("tokens", budget.tokens, tokens),
        ("cost_micros", budget.cost_micros, usage.cost_micros),
        ("tool_calls", budget.tool_calls, usage.tool_calls),
    ];
    figures.into_iter().find(|(_, limit, used)| *limit > 0 && used > limit)
}

fn output(
    known: Known<'_>,
    block: Option<&BlockId>,
    key: Option<&StepKey>,
    parts: &[Part],
    draft: &mut Draft,
) -> Result<(), Refusal> {
    let exec = known.exec();
    let block = match block {
        Some(block) => {
            length("a block", block.as_str(), BlockId::BYTES_MAX)?;
            block.clone()
        }
        None => BlockId::from(format!("b{}", exec.block_count + 1)),
    };
    let deltas = exec.blocks.get(&block).copied().unwrap_or(0);
    let (key, parts) = (key.cloned(), parts.to_vec());
    draft.push(Kind::OutputMessage { block, key, deltas, parts });
    Ok(())
}

fn ask(known: Known<'_>, frame: &Frame, draft: &mut Draft) -> Result<(), Refusal> {
    let Frame::Ask { key, kind, prompt, choices, details, expires_millis } = frame else {
        unreachable!("only called for a question");
    };
    length("a question", prompt, TEXT_BYTES_MAX)?;
    if choices.len() > CHOICES_MAX {
        return Err(Refusal::TooMany { what: "choices", limit: CHOICES_MAX });
    }
    if *kind == AskKind::Choice && choices.is_empty() {
        return Err(Refusal::Protocol(format!("question {key} has nothing to choose from")));
    }
    for choice in choices {
        length("a choice", choice, NAME_BYTES_MAX)?;
    }
    draft.push(Kind::AskRaised {
        ask: AskId(known.state.ask_count).next(),
        key: Some(key.clone()),
        about: None,
        kind: *kind,
        prompt: prompt.clone(),
        choices: choices.clone(),
        details: details.clone(),
        expires_at: expires_millis.map(|millis| known.now.plus_millis(millis)),
    });
    Ok(())
}

fn await_signal(
    known: Known<'_>,
    key: &StepKey,
    name: &str,
    draft: &mut Draft,
) -> Result<(), Refusal> {
    length("a signal's name", name, NAME_BYTES_MAX)?;
    draft.push(Kind::SignalAwaited { key: key.clone(), name: name.into() });
    let arrived = known.state.signals.iter().find(|(_, arrived)| arrived == name);
    if let Some((signal, _)) = arrived {
        draft.push_runtime(Kind::SignalDelivered { key: key.clone(), signal: *signal });
    }
    Ok(())
}

/// What the harness of an attempt is told about an event, once it is durable.
pub(in crate::session) fn reply_to(kind: &Kind, seq: Seq, state: &State) -> Option<Reply> {
    let recorded = |key: &StepKey| Reply::Recorded { key: key.clone(), seq, before: false };
    match kind {
        Kind::StepStarted { step, effect, .. } if effect.is_once() => {
            Some(Reply::Granted { step: step.clone() })
        }
        Kind::StepCompleted { step, .. } | Kind::StepFailed { step, .. } => Some(recorded(step)),
        Kind::OutputMessage { key, .. }
        | Kind::Note { key, .. }
        | Kind::CheckpointCreated { key, .. } => key.as_ref().map(recorded),
        Kind::AskAnswered { ask, answer, .. } => {
            let key = key_of_ask(state, *ask)?;
            Some(Reply::Answered { key, answer: answer.clone() })
        }
        Kind::AskExpired { ask } => Some(Reply::AskExpired { key: key_of_ask(state, *ask)? }),
        Kind::TimerFired { key } => Some(Reply::TimerFired { key: key.clone() }),
        Kind::SignalDelivered { key, signal } => {
            Some(Reply::Signaled { key: key.clone(), signal: *signal })
        }
        _ => None,
    }
}

fn key_of_ask(state: &State, ask: AskId) -> Option<StepKey> {
    state.asks.get(&ask)?.key.clone()
}

/// When a step is overdue, the first of them.
pub(super) fn overdue(exec: &Exec) -> Option<(Timestamp, &StepKey, u64)> {
    let open = exec.items.pending().filter_map(|(key, item)| match item {
        Item::Step(Step { phase: StepPhase::Open { due_at, limit_millis, .. }, .. }) => {
            (*due_at != Timestamp::NEVER).then_some((*due_at, key, *limit_millis))
        }
        _ => None,
    });
    open.min()
}
