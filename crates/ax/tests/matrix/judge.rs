//! What must be true after a round, and what is counted.

use ax_fakemodel::FakeModel;
use ax_proto::v1;
use ax_proto::v1::event::Kind;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// How many questions a harness has.
pub(crate) const CALL_COUNT: usize = 13;
/// What it answers in the end.
const ANSWER: &str = "All 12 shelves are done.";
/// How many shelves are labeled, and how many are sent.
const SHELF_COUNT: usize = 4;

/// What was counted in all rounds.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) rounds: u64,
    pub(crate) kills: u64,
    pub(crate) server_kills: u64,
    /// How many attempts the log calls lost: those that were hit.
    pub(crate) lost: usize,
    paid: usize,
    paid_again: usize,
    /// Labels that were put on a second time, under the same key.
    labeled_again: usize,
    /// How often a person was asked what became of a call.
    pub(crate) unknown: u64,
}

/// What a round left behind.
#[derive(Debug)]
pub(crate) struct Left<'a> {
    pub(crate) seed: u64,
    pub(crate) servers_killed: usize,
    pub(crate) events: &'a [v1::Event],
    pub(crate) effects: &'a [String],
    pub(crate) model: &'a FakeModel,
}

impl Counts {
    /// The figures as a line of JSON. What a test insists on is 0.
    pub(crate) fn line(&self, name: &str) -> Value {
        let Self { rounds, kills, server_kills, lost, .. } = self;
        let Self { paid, paid_again, labeled_again, unknown, .. } = self;
        json!({
            "name": name, "rounds": rounds, "kills": kills, "server_kills": server_kills,
            "lost": lost,
            "model_calls_paid": paid, "model_calls_again": paid_again,
            "idempotent_calls_again": labeled_again, "once_effects_twice": 0, "unknown": unknown,
            "not_finished": 0, "diverged": 0,
        })
    }

    /// Looks at what the log, the world and the model have of a round.
    pub(crate) fn judge(&mut self, left: &Left<'_>) {
        self.judge_effects(left);
        self.judge_model(left);
        let Left { seed, events, .. } = left;
        // It is said at once, or in pieces.
        let streamed: String = events.iter().filter_map(piece).collect();
        let whole = events.iter().any(|event| format!("{event:?}").contains(ANSWER));
        let said = whole || streamed.contains(ANSWER);
        assert!(said, "seed {seed}: the answer is in the log: {:?}", events.last());
        let diverged = |event: &&v1::Event| match &event.kind {
            Some(Kind::StepDiverged(_)) => true,
            Some(Kind::Note(note)) => note.name == "gateway.divergence",
            _ => false,
        };
        assert_eq!(events.iter().find(diverged), None, "seed {seed}");
        let lost = |event: &&v1::Event| matches!(event.kind, Some(Kind::AttemptLost(_)));
        self.lost += events.iter().filter(lost).count();
        self.rounds += 1;
        self.server_kills += left.servers_killed as u64;
    }

    fn judge_effects(&mut self, left: &Left<'_>) {
        let Left { seed, effects, .. } = left;
        let (sent, labeled): (Vec<_>, Vec<_>) =
            effects.iter().partition(|line| line.starts_with("send"));
        let different = |lines: &[&String]| lines.iter().collect::<BTreeSet<_>>().len();
        let both = (SHELF_COUNT, SHELF_COUNT);
        assert_eq!((sent.len(), different(&sent)), both, "seed {seed}: {effects:?}");
        assert_eq!(different(&labeled), SHELF_COUNT, "seed {seed}: {effects:?}");
        let labeled_again = labeled.len() - SHELF_COUNT;
        assert!(labeled_again <= left.servers_killed, "seed {seed}: {effects:?}");
        self.labeled_again += labeled_again;
    }

    fn judge_model(&mut self, left: &Left<'_>) {
        let (seed, ledger) = (left.seed, left.model.ledger());
        let paid: Vec<_> = ledger.iter().filter(|entry| entry.is_paid()).collect();
        let strange: Vec<_> = paid.iter().filter(|entry| entry.script_turn.is_none()).collect();
        assert!(strange.is_empty(), "seed {seed}: it asked something else: {strange:?}");
        assert_eq!(answered(left.model), CALL_COUNT, "seed {seed}: it asked all there is to ask");
        let again = paid.len() - CALL_COUNT;
        let all: Vec<_> = paid.iter().filter_map(|entry| entry.script_turn).collect();
        assert!(again <= left.servers_killed, "seed {seed}: {again} were paid again: {all:?}");
        self.paid += paid.len();
        self.paid_again += again;
    }
}

fn piece(event: &v1::Event) -> Option<&str> {
    match &event.kind {
        Some(Kind::OutputDelta(delta)) => Some(&delta.text),
        _ => None,
    }
}

/// How many turns of its script the model was asked for so far.
pub(crate) fn answered(model: &FakeModel) -> usize {
    let ledger = model.ledger();
    ledger.iter().filter_map(|entry| entry.script_turn).collect::<BTreeSet<_>>().len()
}
