//! The journal of an execution's model calls: which answer belongs to which question.

use super::chain::{Chains, Placed};
use super::exchange::Exchange;
use super::limits::Over;
use super::recorded::{Answer, Unreadable};
use super::wire::{Asked, Canon};
use crate::session::{KEY_PREFIX, Recorded};
use ax_core::session::{Digest, Prefix, StepKey};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// How much of a part is shown around the place where two differ, in characters.
const SHOWN_CHARS: usize = 400;

/// A call of this attempt.
#[derive(Debug)]
struct Slot {
    key: StepKey,
    exchange: Arc<Exchange>,
}

/// A call that an earlier attempt completed and this one has not asked for yet.
#[derive(Debug)]
struct Due {
    recorded: Recorded,
    prefix: Prefix,
}

/// What becomes of a question.
#[derive(Debug)]
pub(crate) enum Found {
    /// Its answer is there, or under way.
    Known(Arc<Exchange>),
    /// An earlier attempt was answered.
    Replayed(Arc<Exchange>),
    /// Its answer was cut: it is asked again, as the same step.
    Again(StepKey, Arc<Exchange>, Duration),
    /// Nobody has asked this before; it waits that long for its turn.
    New(StepKey, Arc<Exchange>, Duration),
    /// It would be over a limit.
    Over(Over),
    /// An earlier attempt asked something else at this place.
    Diverged(Diverged),
}

/// What was asked, and what was asked before in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Diverged {
    pub(crate) step: StepKey,
    pub(crate) expected: String,
    pub(crate) found: String,
}

/// The journal, and what this attempt has done.
#[derive(Debug, Default)]
pub(crate) struct Book {
    chains: Chains,
    due: HashMap<StepKey, Due>,
    /// Of these, those in whose place something else was asked.
    left: HashSet<StepKey>,
    /// The requests that were begun before, whether they were answered or not.
    begun: HashSet<Digest>,
    calls: HashMap<Digest, Vec<Slot>>,
}

impl Book {
    pub(crate) fn new(journal: Vec<Recorded>, sent: &[Prefix]) -> Self {
        let mut chains = Chains::default();
        sent.iter().for_each(|prefix| chains.recorded(prefix));
        let due = journal.into_iter().filter_map(|recorded| {
            let prefix = recorded.prefix.clone()?;
            recorded.key.as_str().strip_prefix(KEY_PREFIX)?.strip_prefix("model:")?;
            Some((recorded.key.clone(), Due { recorded, prefix }))
        });
        let begun = sent.iter().map(|prefix| prefix.chain).collect();
        Self { chains, due: due.collect(), begun, ..Self::default() }
    }

    pub(crate) fn place(&self, asked: &Asked) -> Placed {
        let parts: Vec<_> = asked.parts.iter().map(|(digest, _)| *digest).collect();
        self.chains.place(&parts)
    }

    /// Finds out what becomes of a question; the caller reads the exchange. `admit` is asked before
    /// something new is paid for.
    pub(crate) fn ask(
        &mut self,
        asked: &Asked,
        placed: &Placed,
        canon: &Canon,
        admit: impl FnOnce() -> Result<Duration, Over>,
    ) -> Result<Found, Unreadable> {
        let chain = placed.prefix.chain;
        let slots = self.calls.entry(chain).or_default();
        // The harness asks again what it has not heard the end of.
        if let Some(slot) = slots.iter_mut().find(|slot| slot.exchange.is_void()) {
            let wait = match admit() {
                Ok(wait) => wait,
                Err(over) => return Ok(Found::Over(over)),
            };
            slot.exchange = Arc::new(Exchange::new());
            slot.exchange.take();
            return Ok(Found::Again(slot.key.clone(), Arc::clone(&slot.exchange), wait));
        }
        if let Some(slot) = slots.iter().find(|slot| slot.exchange.take()) {
            return Ok(Found::Known(Arc::clone(&slot.exchange)));
        }
        let key = key(chain, slots.len() + 1);
        let exchange = match self.due.remove(&key) {
            Some(due) => {
                let stored = due.recorded.result.as_ref().map_or("", String::as_str);
                let answer = Answer::read(stored)?;
                let exchange = Arc::new(Exchange::done(answer.head.clone(), answer.chunks.clone()));
                exchange.take();
                slots.push(Slot { key, exchange: Arc::clone(&exchange) });
                self.chains.sent(placed);
                return Ok(Found::Replayed(exchange));
            }
            None => Arc::new(Exchange::new()),
        };
        if let Some(diverged) = self.diverged(asked, placed, canon) {
            return Ok(Found::Diverged(diverged));
        }
        let wait = match admit() {
            Ok(wait) => wait,
            Err(over) => return Ok(Found::Over(over)),
        };
        exchange.take();
        let slot = Slot { key: key.clone(), exchange: Arc::clone(&exchange) };
        self.calls.entry(chain).or_default().push(slot);
        self.chains.sent(placed);
        Ok(Found::New(key, exchange, wait))
    }

    /// The model answered.
    pub(crate) fn said(&mut self, chain: Digest, said: &[Digest]) {
        self.chains.said(chain, said);
    }

    /// The harness goes another way than this recorded call; it may come back to it.
    pub(crate) fn leave(&mut self, step: &StepKey) {
        self.left.insert(step.clone());
    }

    /// Finds the recorded call in whose place this is asked: one that continues what this attempt
    /// has sent last in this conversation. Calls of other conversations in the same program are not
    /// in its place, and come when they come.
    fn diverged(&self, asked: &Asked, placed: &Placed, canon: &Canon) -> Option<Diverged> {
        let reached = self.chains.reached(placed);
        if self.begun.contains(&placed.prefix.chain) {
            // It was asked before, and only its answer did not come.
            return None;
        }
        let in_place = |due: &&Due| {
            if self.left.contains(&due.recorded.key) {
                return false;
            }
            let at = placed.heads.iter().position(|head| *head == due.prefix.parent);
            at.is_some_and(|at| at >= reached)
        };
        let due = self.due.values().filter(in_place);
        let due = due.min_by(|a, b| a.recorded.key.cmp(&b.recorded.key))?;
        let from = placed.heads.iter().position(|head| *head == due.prefix.parent)?;
        let now = &asked.parts[from..];
        let same = now.iter().zip(&due.prefix.parts).take_while(|((now, _), then)| now == *then);
        let at = same.count();
        let then = due.prefix.parts.get(at).map(|digest| due.part(*digest, canon));
        let now = now.get(at).map(|(_, part)| part.to_string());
        let nothing = || "nothing more".to_owned();
        let (expected, found) = around(&then.unwrap_or_else(nothing), &now.unwrap_or_else(nothing));
        let position = from + at + 1;
        Some(Diverged {
            step: due.recorded.key.clone(),
            expected: format!(
                "{} with part {position} of its request {expected}",
                due.recorded.name
            ),
            found: format!("{} with part {position} of its request {found}", asked.model),
        })
    }
}

impl Due {
    /// Returns a part of the recorded request, if it was stored with this one.
    fn part(&self, digest: Digest, canon: &Canon) -> String {
        let request: Value = serde_json::from_str(&self.recorded.request).unwrap_or_default();
        let parts = request["parts"].as_array().into_iter().flatten();
        let found = parts.into_iter().find(|part| canon.hash(part) == digest);
        found.map_or_else(|| format!("({digest:?})"), Value::to_string)
    }
}

/// Returns the name of the nth call with this request.
fn key(chain: Digest, number: usize) -> StepKey {
    let hex: String = chain.to_string().chars().take(32).collect();
    format!("{KEY_PREFIX}model:{hex}:{number}").into()
}

/// Shows two texts around the place where they begin to differ.
fn around(then: &str, now: &str) -> (String, String) {
    let same = then.chars().zip(now.chars()).take_while(|(a, b)| a == b).count();
    let show = |text: &str| {
        let from = same.saturating_sub(SHOWN_CHARS / 4);
        let shown: String = text.chars().skip(from).take(SHOWN_CHARS).collect();
        let before = if from > 0 { "…" } else { "" };
        let after = if text.chars().count() > from + SHOWN_CHARS { "…" } else { "" };
        format!("{before}{shown}{after}")
    };
    (show(then), show(now))
}
