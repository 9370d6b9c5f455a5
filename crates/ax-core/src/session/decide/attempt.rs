//! Attempts that end before their execution does.

use super::{Draft, Known, end_and_go_on};
use crate::id::AskId;
use crate::session::event::{Kind, LostReason, Outcome};
use crate::session::exec::{Item, Phase, StepPhase};
use crate::session::value::{AskKind, EffectClass, Failure, StepKey};
use crate::time::Timestamp;

/// What a person can say about a step of unknown outcome.
pub(super) const UNKNOWN_CHOICES: [&str; 3] = ["completed", Kind::RETRY, "failed"];

/// The attempt failed: another is tried, a person is asked, or the execution fails.
pub(super) fn fail(known: Known<'_>, failure: &Failure, retry: bool, draft: &mut Draft) {
    lose(known, LostReason::Harness(failure.clone()), retry, draft);
}

/// The runtime died while the attempt ran.
pub(super) fn recover(known: Known<'_>, draft: &mut Draft) {
    if known.state.running().is_some() && !known.state.deleted {
        lose(known, LostReason::Runtime, true, draft);
    }
}

/// An attempt that only waits is let go before the runtime stops, so that nothing is lost with it.
pub(super) fn suspend(known: Known<'_>, draft: &mut Draft) {
    let runs = known.state.running().is_some() && !known.state.deleted;
    if runs && known.exec().is_waiting() && !known.exec().has_open_step() {
        draft.push_runtime(Kind::ActorSuspended);
    }
}

/// The attempt that runs is lost.
pub(super) fn lose(known: Known<'_>, reason: LostReason, retry: bool, draft: &mut Draft) {
    let exec = known.exec();
    let limits = known.state.limits();
    let by_runtime = reason == LostReason::Runtime;
    let (count, count_max) = if by_runtime {
        (exec.losses + 1, limits.retry.restarts_max)
    } else {
        (exec.failures + 1, limits.retry.attempts_max)
    };
    let last = count >= count_max || !retry;
    let superseded = exec.blocks.keys().cloned().collect();
    // Of others that must not happen twice, the next attempt finds out what became.
    let is_once = |key: &StepKey| match exec.items.get(key) {
        Some(Item::Step(step)) => step.effect == EffectClass::Once,
        _ => false,
    };
    let mut unknown = open_once_steps(known);
    unknown.retain(is_once);
    let retry_at = if last || !unknown.is_empty() {
        None
    } else if by_runtime {
        Some(known.now)
    } else {
        Some(known.now.plus_millis(backoff_millis(known, count)))
    };
    let failure = failure_of(&reason, count, count_max, retry);
    draft.push_runtime(Kind::AttemptLost { reason, superseded, retry_at });
    if last {
        end_and_go_on(known, Outcome::Failed { failure }, draft);
    } else if !unknown.is_empty() {
        ask_about(known, &unknown, draft);
    } else if retry_at.is_some_and(|at| at <= known.now) {
        draft.start_attempt(false);
    }
}

/// Steps that must not happen twice and are being carried out, or were when their parent branched
/// or an earlier attempt was lost.
pub(super) fn open_once_steps(known: Known<'_>) -> Vec<StepKey> {
    let steps = known.exec().items.pending().filter_map(|(key, item)| match item {
        Item::Step(step) if step.effect.is_once() => Some((key, step.phase)),
        _ => None,
    });
    let open =
        steps.filter(|(_, phase)| matches!(phase, StepPhase::Open { .. } | StepPhase::Doubt));
    open.map(|(key, _)| key.clone()).collect()
}

/// Says of each step that its outcome is unknown, and asks a person.
pub(super) fn ask_about(known: Known<'_>, steps: &[StepKey], draft: &mut Draft) {
    for step in steps {
        draft.push_runtime(Kind::StepUnknown { step: step.clone() });
    }
    let mut ask = AskId(known.state.ask_count);
    for step in steps {
        ask = ask.next();
        draft.push_runtime(Kind::AskRaised {
            ask,
            key: None,
            about: Some(step.clone()),
            kind: AskKind::Choice,
            prompt: format!(
                "Step {step} was under way when its attempt was lost, and must not happen twice. \
                 What became of it?"
            ),
            choices: UNKNOWN_CHOICES.map(str::to_owned).to_vec(),
            details: None,
            expires_at: None,
        });
    }
}

/// Nothing of an execution that ends stays open: questions expire, sleeps are canceled, and what
/// must not happen twice and was being carried out is of unknown outcome.
pub(super) fn cut_short(known: Known<'_>, draft: &mut Draft) {
    for ask in known.state.asks.keys() {
        draft.push_runtime(Kind::AskExpired { ask: *ask });
    }
    let ended = |draft: &Draft, key: &StepKey| {
        draft.events.iter().any(|event| match &event.kind {
            Kind::StepCompleted { step, .. } | Kind::StepFailed { step, .. } => step == key,
            _ => false,
        })
    };
    for step in open_once_steps(known) {
        if !ended(draft, &step) {
            draft.push_runtime(Kind::StepUnknown { step });
        }
    }
    for (key, item) in known.exec().items.pending() {
        if matches!(item, Item::Sleep(_, None)) {
            draft.push_runtime(Kind::TimerCanceled { key: key.clone() });
        }
    }
}

/// Begins the next attempt of an execution that only waited, since something has come.
pub(super) fn wake(known: Known<'_>, draft: &mut Draft) {
    if known.exec().phase == Phase::Parked {
        draft.start_attempt(true);
    }
}

fn failure_of(reason: &LostReason, count: u32, count_max: u32, retry: bool) -> Failure {
    let of = |code: &str, what: String| {
        let message = if retry { format!("{what} (attempt {count} of {count_max})") } else { what };
        Failure { code: code.into(), message }
    };
    match reason {
        LostReason::Runtime => of("runtime_lost", "the runtime was lost under it".into()),
        LostReason::Harness(failure) => of(&failure.code, failure.message.clone()),
        LostReason::Idle { limit_millis } => {
            of("idle", format!("the harness was silent for {limit_millis} ms"))
        }
        LostReason::Step { step, limit_millis } => {
            of("step_timeout", format!("step {step} took longer than {limit_millis} ms"))
        }
    }
}

/// The pause after the n-th failure: doubled each time, bounded, and the half of it random.
fn backoff_millis(known: Known<'_>, count: u32) -> u64 {
    let retry = known.state.limits().retry;
    let doubled = 1_u64.checked_shl(count - 1).unwrap_or(u64::MAX);
    let full = retry.backoff_millis_min.saturating_mul(doubled).min(retry.backoff_millis_max);
    let seed = known.state.identity.as_ref().map_or(0, |identity| identity.seed);
    let exec = u64::from(known.exec().id.0);
    let random = mix(seed ^ (exec << 32) ^ u64::from(count));
    full / 2 + random % (full / 2 + 1)
}

/// The finalizer of `SplitMix64` (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
/// Generators, 2014).
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// When the next attempt is due, if one is.
pub(super) fn due_at(phase: Phase) -> Option<Timestamp> {
    match phase {
        Phase::Backoff { until } if until != Timestamp::NEVER => Some(until),
        _ => None,
    }
}
