//! The limits of a session, as a line gives them.

use super::Words;
use ax_core::session::{Budget, Limits, Retry};

pub(super) fn parse(words: &Words<'_>) -> Limits {
    let default = Limits::default();
    let number = |name: &str, default: u64| words.number(name).unwrap_or(default);
    let small = |name: &str, default: u32| {
        words.number(name).map_or(default, |value| u32::try_from(value).unwrap())
    };
    let (min, max) = words.named("backoff").map_or(
        (default.retry.backoff_millis_min, default.retry.backoff_millis_max),
        |range| {
            let (min, max) = range.split_once("..").unwrap();
            (min.parse().unwrap(), max.parse().unwrap())
        },
    );
    Limits {
        submit: words.named("submit").map_or(default.submit, super::policy),
        queue_max: small("queue", default.queue_max),
        retry: Retry {
            attempts_max: small("attempts", default.retry.attempts_max),
            backoff_millis_min: min,
            backoff_millis_max: max,
            restarts_max: small("restarts", default.retry.restarts_max),
        },
        execution_millis_max: number("execution", default.execution_millis_max),
        idle_millis_max: number("idle", default.idle_millis_max),
        step_millis_max: number("step", default.step_millis_max),
        park_millis: number("park", default.park_millis),
        budget: Budget {
            tokens: number("tokens", 0),
            cost_micros: number("cost", 0),
            tool_calls: number("calls", 0),
        },
    }
}
