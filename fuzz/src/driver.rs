//! Runs a target with many inputs, and says what it did wrong.

use crate::MEMORY;
use crate::mutate::{Dice, mutate};
use std::collections::HashSet;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// How many examples a target has at most.
const EXAMPLES_MAX: usize = 4_096;
/// How many examples with the same answer are kept.
const SAME_MAX: usize = 8;
/// What a decoder may use whatever its input, in bytes: an open log has two blocks and windows.
const MEMORY_BYTES_BASE: usize = 32 << 20;

/// What a decoder made of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It took it.
    Accepted,
    /// It refused it, and says why.
    Refused(String),
    /// It did something that it must not do.
    Wrong(String),
}

/// Reads an input.
pub(crate) type Decode = Box<dyn Fn(&[u8]) -> Answer>;

/// A decoder.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Inputs to begin with; at least one.
    pub(crate) examples: Vec<Vec<u8>>,
    /// What is worth trying anywhere.
    pub(crate) words: &'static [&'static str],
    /// How many bytes of memory it may use for each byte of input.
    pub(crate) memory_factor: usize,
    pub(crate) decode: Decode,
}

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) runs: u64,
    pub(crate) accepted: u64,
    pub(crate) examples: usize,
    pub(crate) seed: u64,
    /// What went wrong, and with which input.
    pub(crate) failure: Option<(String, Vec<u8>)>,
}

/// A seed that nobody has used.
pub(crate) fn fresh_seed() -> u64 {
    RandomState::new().hash_one(std::process::id()) >> 32
}

/// Gives a target one input.
pub(crate) fn once(target: &Target, input: &[u8]) -> Outcome {
    let mut outcome = Outcome { runs: 1, accepted: 0, examples: 0, seed: 0, failure: None };
    match judge(target, input) {
        Answer::Wrong(what) => outcome.failure = Some((what, input.to_vec())),
        Answer::Accepted => outcome.accepted = 1,
        Answer::Refused(_) => {}
    }
    outcome
}

/// Gives a target inputs for a time, or so many, until the first failure.
pub(crate) fn fuzz(target: &Target, seed: u64, time: Duration, runs_max: u64) -> Outcome {
    let mut dice = Dice(seed);
    let mut examples = target.examples.clone();
    let mut seen: HashSet<(u64, usize), BuildHasherDefault<DefaultHasher>> = HashSet::default();
    let mut outcome = Outcome { runs: 0, accepted: 0, examples: 0, seed, failure: None };
    let began = Instant::now();
    while outcome.runs < runs_max && began.elapsed() < time {
        let input = match examples.get(usize::try_from(outcome.runs).unwrap_or(usize::MAX)) {
            // Every example as it is, first.
            Some(example) if outcome.runs < target.examples.len() as u64 => example.clone(),
            _ => {
                let example = dice.one(&examples).clone();
                mutate(&mut dice, example, &examples, target.words)
            }
        };
        outcome.runs += 1;
        let answer = judge(target, &input);
        match &answer {
            Answer::Wrong(what) => {
                outcome.failure = Some((what.clone(), input));
                break;
            }
            Answer::Accepted => outcome.accepted += 1,
            Answer::Refused(_) => {}
        }
        let kind = kind(&answer, input.len());
        let is_new = (0..SAME_MAX).any(|count| seen.insert((kind, count)));
        if is_new && examples.len() < EXAMPLES_MAX {
            examples.push(input);
        }
    }
    outcome.examples = seen.iter().filter(|(_, count)| *count == 0).count();
    outcome
}

/// Answers that differ in their numbers and names only are of one kind.
fn kind(answer: &Answer, bytes: usize) -> u64 {
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    match answer {
        Answer::Refused(why) => {
            let plain: String = why.chars().filter(|c| !c.is_ascii_digit()).take(60).collect();
            hasher.hash_one(plain)
        }
        _ => hasher.hash_one(bytes.checked_ilog2()),
    }
}

fn judge(target: &Target, input: &[u8]) -> Answer {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let answer = catch_unwind(AssertUnwindSafe(|| (target.decode)(input)));
    let used = MEMORY.peak_usage().saturating_sub(before);
    let allowed = MEMORY_BYTES_BASE + target.memory_factor * input.len();
    match answer {
        Err(panic) => {
            let what = panic.downcast_ref::<String>().map(String::as_str);
            let what = what.or_else(|| panic.downcast_ref::<&str>().copied());
            Answer::Wrong(format!("it panicked: {}", what.unwrap_or("without a word")))
        }
        Ok(_) if used > allowed => Answer::Wrong(format!(
            "it used {used} bytes of memory for {} bytes of input, {allowed} are allowed",
            input.len()
        )),
        Ok(answer) => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(decode: impl Fn(&[u8]) -> Answer + 'static) -> Target {
        Target {
            name: "planted",
            examples: vec![b"{\"a\":1}".to_vec()],
            words: &["deep"],
            memory_factor: 100,
            decode: Box::new(decode),
        }
    }

    fn failure(decode: impl Fn(&[u8]) -> Answer + 'static) -> Option<String> {
        let outcome = fuzz(&target(decode), 7, Duration::from_secs(60), 200_000);
        outcome.failure.map(|(what, _)| what)
    }

    #[test]
    fn a_decoder_that_panics_or_hoards_is_caught() {
        let panics = failure(|input| {
            assert!(!input.ends_with(b"deep"), "too deep");
            Answer::Refused("no".into())
        });
        assert_eq!(panics.as_deref(), Some("it panicked: too deep"));
        let hoards = failure(|input| {
            let count = input.first().map_or(0, |byte| usize::from(*byte)) << 20;
            drop(std::hint::black_box(vec![1_u8; count]));
            Answer::Accepted
        });
        assert!(hoards.unwrap().contains("bytes of memory"));
        assert_eq!(failure(|input| Answer::Refused(format!("{} bytes", input.len()))), None);
    }

    #[test]
    fn a_seed_gives_the_same_inputs_again() {
        let inputs = || {
            let heard = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
            let kept = std::rc::Rc::clone(&heard);
            let target = target(move |input| {
                kept.borrow_mut().push(input.to_vec());
                Answer::Accepted
            });
            assert_eq!(fuzz(&target, 3, Duration::from_secs(60), 500).runs, 500);
            heard.take()
        };
        assert_eq!(inputs(), inputs());
    }

    #[test]
    fn every_decoder_stands_a_moment() {
        for target in crate::targets::all() {
            let outcome = fuzz(&target, 1, Duration::from_secs(5), 300);
            assert_eq!(outcome.failure, None, "{}", target.name);
            assert!(outcome.accepted > 0, "{}: no example is accepted", target.name);
        }
    }
}
