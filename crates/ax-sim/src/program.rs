//! What an agent does with an input: a small program that the input names by a number, so that
//! every attempt of the same execution does the same.

use crate::prng::Prng;
use ax_core::session::{AskKind, EffectClass, StepKind};

/// The names that signals have.
pub(crate) const SIGNALS: [&str; 3] = ["s0", "s1", "s2"];

/// Something that a program does. Times are in milliseconds.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Carries out steps at the same time.
    Steps(Vec<StepPlan>),
    /// Says something, in pieces or at once, with a key or without.
    Output { key: Option<String>, pieces: u64 },
    /// Asks a person.
    Ask { key: String, kind: AskKind, expires: Option<u64> },
    /// Sleeps.
    Sleep { key: String, millis: u64 },
    /// Waits for a signal.
    Await { key: String, name: &'static str },
    /// Remembers this position.
    Mark { key: String },
    /// Notes something, which may be large.
    Note { key: String, bytes: usize },
    /// Thinks.
    Think { millis: u64 },
    /// Notes so much that the state of the session is stored.
    Chatter { count: u64 },
}

/// A step of a program.
#[derive(Clone, Debug)]
pub(crate) struct StepPlan {
    pub(crate) key: String,
    pub(crate) kind: StepKind,
    pub(crate) class: EffectClass,
    pub(crate) millis: u64,
    /// It is carried out, and says that it failed.
    pub(crate) fails: bool,
    /// The size of what it returns.
    pub(crate) bytes: usize,
}

/// How a program ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Done,
    FailFinal,
    FailAlways,
}

/// A program.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) ops: Vec<Op>,
    pub(crate) end: End,
}

impl Program {
    /// Returns the program of a number.
    pub(crate) fn of(number: u64) -> Self {
        let mut prng = Prng::new(number);
        let count = prng.between(1, 5);
        let ops = (0..count).map(|at| op(&mut prng, at)).collect();
        let end = match prng.below(20) {
            0 => End::FailFinal,
            1 => End::FailAlways,
            _ => End::Done,
        };
        Self { ops, end }
    }
}

fn op(prng: &mut Prng, at: u64) -> Op {
    let key = format!("k{at}");
    if prng.below(1_000) == 0 {
        return Op::Chatter { count: 1_100 };
    }
    match prng.below(20) {
        0..8 => Op::Steps(vec![step(prng, key)]),
        8..10 => {
            let second = step(prng, format!("{key}b"));
            Op::Steps(vec![step(prng, key), second])
        }
        10 => Op::Output { key: Some(key), pieces: 0 },
        11..13 => {
            let key = prng.chance(50).then_some(key);
            Op::Output { key, pieces: prng.between(0, 4) }
        }
        13 => {
            let kind = *prng.pick(&[AskKind::Approval, AskKind::Choice, AskKind::Text]);
            let expires = prng.chance(40).then(|| prng.between(100, 60_000));
            Op::Ask { key, kind, expires }
        }
        14 | 15 => {
            let most = if prng.chance(70) { 5_000 } else { 600_000 };
            Op::Sleep { key, millis: prng.below(most) }
        }
        16 => Op::Await { key, name: SIGNALS[prng.index(3)] },
        17 => Op::Mark { key },
        18 => Op::Note { key, bytes: large(prng) },
        _ => Op::Think { millis: prng.below(4_000) },
    }
}

fn step(prng: &mut Prng, key: String) -> StepPlan {
    StepPlan {
        key,
        kind: *prng.pick(&[StepKind::Model, StepKind::Tool, StepKind::User]),
        class: match prng.below(5) {
            0 => EffectClass::Read,
            1 => EffectClass::Idempotent,
            2 => EffectClass::Probed,
            _ => EffectClass::Once,
        },
        millis: prng.below(3_000),
        fails: prng.chance(10),
        bytes: large(prng),
    }
}

/// Most contents are small; some do not fit into an event.
fn large(prng: &mut Prng) -> usize {
    if prng.chance(3) { 70_000 } else { prng.index(100) }
}
