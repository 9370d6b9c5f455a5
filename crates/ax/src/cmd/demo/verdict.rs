//! What the demo claims, and whether it holds.

use super::play::Played;
use super::stage::Stage;
use crate::failure::Failure;
use crate::link::Context;
use crate::out::Style;
use ax_fakemodel::Entry;
use ax_proto::v1;
use ax_proto::v1::attempt_lost::Reason;
use ax_proto::v1::event::Kind;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What was counted.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    session: String,
    branches: Vec<String>,
    branched_at: u64,
    model: String,
    sandbox: &'static str,
    events: usize,
    steps: usize,
    effects: usize,
    duplicates: usize,
    recovered_attempts: usize,
    kills: u32,
    /// Answers of the scripted model that were paid, and the different requests among them.
    paid: Option<(usize, usize)>,
    claims: Vec<(String, bool)>,
}

impl Verdict {
    /// Counts in the log, in the ledger and in the file of effects.
    pub(super) async fn of(stage: &Stage, played: Played) -> Result<Self, Failure> {
        let events = all(stage, &played.session).await?;
        let effects = stage.effect_lines(&played.session);
        let distinct: BTreeSet<&String> = effects.iter().collect();
        let completed = completed_steps(&events);
        let twice = completed.values().filter(|count| **count > 1).count();
        let recovered = events.iter().filter(|event| is_recovery(event)).count();
        let paid = stage.is_scripted().then(|| paid(&stage.ledger()));
        let mut verdict = Self {
            session: played.session.clone(),
            branches: vec![played.branch.clone()],
            branched_at: played.branched_at,
            model: stage.model_words(),
            sandbox: stage.sandbox(),
            events: events.len(),
            steps: completed.len(),
            effects: effects.len(),
            duplicates: effects.len() - distinct.len() + twice,
            recovered_attempts: recovered,
            kills: played.kills,
            paid,
            claims: Vec::new(),
        };
        verdict.claim(stage, &played, &events, &effects);
        Ok(verdict)
    }

    fn claim(&mut self, stage: &Stage, played: &Played, events: &[v1::Event], effects: &[String]) {
        let positions: Vec<u64> = events.iter().map(|event| event.seq).collect();
        let seen_once = played.seen.iter().zip(1..).all(|(seen, seq)| *seen == seq);
        let gapless = positions.iter().zip(1..).all(|(found, seq)| *found == seq);
        let expected_kills = if stage.is_scripted() { 2 } else { 1 };
        let both = ["card charged", "parcel sent"];
        let effects_once =
            both.iter().all(|effect| effects.iter().filter(|line| line == effect).count() == 1);
        let (before, after) = played.parent_last;
        let mut claims = vec![
            ("the agent completed its work".to_owned(), played.completed),
            (
                format!("the server was killed {expected_kills} times in the middle of a step"),
                played.kills == expected_kills,
            ),
            (
                "each kill was recovered by a new attempt".into(),
                self.recovered_attempts >= expected_kills as usize,
            ),
            ("no event was lost and none came twice".into(), seen_once && gapless),
            ("each effect happened exactly once".into(), effects_once && self.duplicates == 0),
            (
                "the branch ran, and its parent did not notice".into(),
                played.branch_completed && before == after,
            ),
        ];
        if let Some((paid, distinct)) = self.paid {
            claims.push((
                format!("{distinct} answers were paid {paid} times: one was cut by a kill"),
                paid == distinct + 1,
            ));
        }
        self.claims = claims;
    }

    pub(super) fn holds(&self) -> bool {
        self.claims.iter().all(|(_, holds)| *holds)
    }

    pub(super) fn json(&self, took: Duration) -> Value {
        let claims =
            self.claims.iter().map(|(claim, holds)| json!({"claim": claim, "holds": holds}));
        json!({
            "type": "demo",
            "ok": self.holds(),
            "model": self.model,
            "sandbox": self.sandbox,
            "session": self.session,
            "events": self.events,
            "steps": self.steps,
            "effects": self.effects,
            "duplicates": self.duplicates,
            "recovered_attempts": self.recovered_attempts,
            "kills": self.kills,
            "model_calls_paid": self.paid.map(|(paid, _)| paid),
            "model_calls_distinct": self.paid.map(|(_, distinct)| distinct),
            "branches": self.branches,
            "branched_at": self.branched_at,
            "seconds": took.as_secs_f64(),
            "claims": claims.collect::<Vec<_>>(),
        })
    }

    pub(super) fn lines(&self, cx: &Context, took: Duration) -> Vec<String> {
        let mut lines = vec![
            String::new(),
            self.session.clone(),
            format!("└─ at {}  {}", self.branched_at, self.branches.join(" ")),
            String::new(),
        ];
        for (claim, holds) in &self.claims {
            let mark = if *holds {
                cx.out.style(Style::Green, "✓")
            } else {
                cx.out.style(Style::Red, "✗ does not hold:")
            };
            lines.push(format!("{mark} {claim}"));
        }
        lines.push(format!(
            "\n{} steps, {} effects, duplicates = {}, {} recovered attempts, {} branch, in {:.1} s",
            self.steps,
            self.effects,
            self.duplicates,
            self.recovered_attempts,
            self.branches.len(),
            took.as_secs_f64(),
        ));
        lines
    }
}

/// Every event of a session.
async fn all(stage: &Stage, session: &str) -> Result<Vec<v1::Event>, Failure> {
    let mut events: Vec<v1::Event> = Vec::new();
    loop {
        let after = events.last().map_or(0, |event| event.seq);
        let session = session.to_owned();
        let request = v1::ListEventsRequest { session, after, ..Default::default() };
        let page = stage.client.list_events(request).await?;
        if page.events.is_empty() {
            return Ok(events);
        }
        events.extend(page.events);
    }
}

/// How often each step was recorded as completed.
fn completed_steps(events: &[v1::Event]) -> BTreeMap<(u32, String), usize> {
    let mut steps = BTreeMap::new();
    for event in events {
        if let Some(Kind::StepCompleted(step)) = &event.kind {
            *steps.entry((event.execution, step.step.clone())).or_insert(0) += 1;
        }
    }
    steps
}

fn is_recovery(event: &v1::Event) -> bool {
    match &event.kind {
        Some(Kind::AttemptLost(lost)) => matches!(lost.reason, Some(Reason::Runtime(_))),
        _ => false,
    }
}

/// How many answers were paid, and how many different requests they were for.
fn paid(ledger: &[Entry]) -> (usize, usize) {
    let paid: Vec<&Entry> = ledger.iter().filter(|entry| entry.is_paid()).collect();
    let distinct: BTreeSet<&String> = paid.iter().map(|entry| &entry.request_hash).collect();
    (paid.len(), distinct.len())
}
