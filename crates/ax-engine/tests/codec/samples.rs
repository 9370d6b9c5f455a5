//! One event of every kind, and a state with something of everything. Never changed, only added to:
//! they are what the fixture says.

use ax_core::id::{AskId, AttemptId, ExecId, Seq, SessionId};
use ax_core::session::{
    Actor, AgentRef, Answer, AskKind, BlobRef, BlockId, Body, Budget, Collection, Digest,
    EffectClass, Ended, Event, Exec, Failure, Identity, Item, Items, Kind, KnownKeys, Limits,
    LostReason, OpenAsk, Outcome, Part, PartKind, Phase, Prefix, Retry, Saved, State, Step,
    StepKey, StepKind, StepPhase, SubmitPolicy, Usage, Workspace,
};
use ax_core::time::Timestamp;
use std::collections::{BTreeMap, VecDeque};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_123);

fn usage() -> Usage {
    Usage {
        input_tokens: 1_000,
        cached_tokens: 900,
        output_tokens: 50,
        cost_micros: 1_234,
        model_calls: 2,
        tool_calls: 1,
    }
}

fn failure() -> Failure {
    Failure { code: "exit_status".into(), message: "the harness ended with status 1".into() }
}

fn blob() -> Body {
    Body::Blob(BlobRef { hash: [0xab; 32], bytes: 70_000 })
}

fn key(text: &str) -> StepKey {
    text.into()
}

fn limits() -> Limits {
    Limits {
        submit: SubmitPolicy::Interrupt,
        queue_max: 1,
        retry: Retry {
            attempts_max: 2,
            backoff_millis_min: 3,
            backoff_millis_max: 4,
            restarts_max: 5,
        },
        execution_millis_max: 6,
        idle_millis_max: 7,
        step_millis_max: 8,
        park_millis: 9,
        budget: Budget { tokens: 10, cost_micros: 11, tool_calls: 12 },
    }
}

fn agent() -> AgentRef {
    AgentRef { name: "reviewer".into(), version: 3 }
}

/// Returns one event of every kind, with every field set, and of each further variant.
pub(crate) fn events() -> Vec<Event> {
    let kinds = [sessions(), executions(), outputs(), steps(), asks(), waits()].concat();
    kinds.into_iter().map(event).collect()
}

/// Returns what came with records: their event, and a state that has some.
pub(crate) fn records() -> (Event, State) {
    let written = Kind::RecordWritten {
        collection: "checkpoints".into(),
        key: Some("record key".into()),
        digest: Digest([7; 32]),
        parts: vec![Part::text("kept"), Part { body: blob(), ..Part::text("") }],
        replaces: true,
    };
    let known = Collection { base: Seq(40), last: Seq(41) };
    let fresh = Collection { base: Seq::ZERO, last: Seq(3) };
    let collections = [("checkpoints".into(), known), ("writes".into(), fresh)];
    (event(written), State { collections: collections.into(), ..state() })
}

/// Returns what came with workspaces: their events, and a state that has one.
pub(crate) fn workspaces() -> (Vec<Event>, State) {
    let snapshot = BlobRef { hash: [6; 32], bytes: 400 };
    let saved = Saved {
        snapshot,
        blobs: vec![BlobRef { hash: [7; 32], bytes: 8_000_000 }, snapshot],
        files: 3,
        bytes: 9_000_000,
    };
    let kinds = vec![
        Kind::WorkspaceSaved { saved, rewound_to: Some(Seq(4)) },
        Kind::WorkspaceUnsaved { failure: failure() },
    ];
    let workspace = Some(Workspace { seq: Seq(42), snapshot });
    (kinds.into_iter().map(event).collect(), State { workspace, ..state() })
}

fn event(kind: Kind) -> Event {
    Event {
        at: NOW,
        actor: match kind {
            Kind::InputReceived { .. } => Actor::User,
            Kind::OutputDelta { .. } => Actor::Harness,
            Kind::SignalReceived { .. } => Actor::Peer,
            _ => Actor::Runtime,
        },
        principal: "ada".into(),
        request: "req-1".into(),
        trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        exec: Some(ExecId(1)),
        attempt: Some(AttemptId(2)),
        kind,
    }
}

fn sessions() -> Vec<Kind> {
    let parts = vec![
        Part::text("hello"),
        Part {
            kind: PartKind::Image,
            media_type: "image/png".into(),
            name: "a.png".into(),
            body: blob(),
        },
    ];
    vec![
        Kind::SessionCreated {
            name: "name".into(),
            agent: agent(),
            limits: limits(),
            sandbox: "process".into(),
            seed: u64::MAX,
        },
        Kind::SessionBranched { parent: SessionId(0xfeed), at: Seq(9), carry_on: true, seed: 1 },
        Kind::SessionRenamed { title: "Title".into() },
        Kind::SessionDeleted,
        Kind::InputReceived {
            key: Some("input key".into()),
            digest: Digest([1; 32]),
            parts,
            policy: SubmitPolicy::Branch,
        },
        Kind::InputCanceled { input: Seq(2) },
    ]
}

fn executions() -> Vec<Kind> {
    let lost = |reason, retry_at| Kind::AttemptLost {
        reason,
        superseded: vec![BlockId::from("b1"), BlockId::from("b2")],
        retry_at,
    };
    let ended = |outcome| Kind::ExecutionEnded { outcome, usage: usage() };
    vec![
        Kind::ExecutionStarted { input: Seq(2), continues: Some(ExecId(1)) },
        ended(Outcome::Completed { result: Some("{\"ok\":true}".into()) }),
        ended(Outcome::Failed { failure: failure() }),
        ended(Outcome::Canceled { reason: "enough".into() }),
        ended(Outcome::TimedOut { limit_millis: 60_000 }),
        Kind::AttemptStarted { resumed: true },
        lost(LostReason::Runtime, Some(NOW)),
        lost(LostReason::Harness(failure()), None),
        lost(LostReason::Idle { limit_millis: 600_000 }, None),
        lost(LostReason::Step { step: key("s1"), limit_millis: 5 }, None),
        Kind::ActorSuspended,
        Kind::BudgetExceeded { budget: "tokens".into(), limit: 10, used: 11 },
    ]
}

fn outputs() -> Vec<Kind> {
    vec![
        Kind::OutputDelta { block: "b1".into(), part: PartKind::Thought, text: "hm".into() },
        Kind::OutputMessage {
            block: "b1".into(),
            key: Some(key("out")),
            deltas: 1,
            parts: vec![Part::text("")],
        },
        Kind::CheckpointCreated { name: "before".into(), key: Some(key("c1")) },
        Kind::Note { name: "note".into(), key: Some(key("n1")), data: blob() },
    ]
}

fn steps() -> Vec<Kind> {
    let prefix = Prefix {
        parent: Digest([2; 32]),
        parts: vec![Digest([3; 32]), Digest([4; 32])],
        chain: Digest([5; 32]),
    };
    vec![
        Kind::StepStarted {
            step: key("s1"),
            kind: StepKind::Model,
            name: "model-1".into(),
            effect: EffectClass::Idempotent,
            digest: Digest([6; 32]),
            request: Some("{}".into()),
            prefix: Some(prefix),
            again: true,
            limit_millis: 1_000,
        },
        Kind::StepCompleted { step: key("s1"), result: "1".into(), usage: usage() },
        Kind::StepFailed { step: key("s1"), failure: failure(), usage: usage() },
        Kind::StepUnknown { step: key("s1") },
        Kind::StepDiverged { step: key("s1"), expected: "a".into(), found: "b".into() },
    ]
}

fn asks() -> Vec<Kind> {
    let ask = AskId(1);
    let answered = |answer| Kind::AskAnswered { ask, answer, via: "cli".into() };
    vec![
        Kind::AskRaised {
            ask,
            key: Some(key("a1")),
            about: Some(key("s1")),
            kind: AskKind::Choice,
            prompt: "which?".into(),
            choices: vec!["one".into(), "other".into()],
            details: Some("null".into()),
            expires_at: Some(NOW),
        },
        answered(Answer::Approve),
        answered(Answer::Deny("no".into())),
        answered(Answer::Choice("one".into(), "1".into())),
        answered(Answer::Text("text".into())),
        Kind::AskExpired { ask },
    ]
}

fn waits() -> Vec<Kind> {
    vec![
        Kind::TimerSet { key: key("t1"), due_at: NOW },
        Kind::TimerFired { key: key("t1") },
        Kind::TimerCanceled { key: key("t1") },
        Kind::SignalReceived {
            name: "paid".into(),
            key: Some("signal key".into()),
            digest: Digest::default(),
            payload: "7".into(),
        },
        Kind::SignalAwaited { key: key("w1"), name: "paid".into() },
        Kind::SignalDelivered { key: key("w1"), signal: Seq(4) },
    ]
}

/// Returns a state with something of everything, whether or not it can be reached.
pub(crate) fn state() -> State {
    let mut known = KnownKeys::default();
    known.insert(&"input key".into(), Seq(2), Digest([1; 32]));
    known.insert(&"a signal".into(), Seq(4), Digest::default());
    let open = OpenAsk {
        key: Some(key("a1")),
        about: Some(key("s1")),
        kind: AskKind::Choice,
        prompt: "which?".into(),
        choices: vec!["one".into(), "other".into()],
        expires_at: Some(Timestamp::default()),
    };
    State {
        last: Seq(1_000),
        identity: Some(Identity {
            name: "name".into(),
            title: "title".into(),
            agent: agent(),
            limits: limits(),
            sandbox: "process".into(),
            seed: 7,
            created_at: NOW,
        }),
        deleted: true,
        queue: VecDeque::from([Seq(20), Seq(30)]),
        known,
        exec_count: 2,
        ask_count: 1,
        exec: Some(exec()),
        asks: BTreeMap::from([(AskId(1), open)]),
        answered: VecDeque::new(),
        collections: BTreeMap::new(),
        workspace: None,
        signals: VecDeque::from([(Seq(4), "paid".into())]),
        ended: Some(Ended {
            exec: ExecId(1),
            outcome: "execution.failed".into(),
            reason: "exit_status: 1".into(),
            at: NOW,
        }),
        usage: usage(),
    }
}

fn exec() -> Exec {
    let step = |phase| {
        Item::Step(Step {
            kind: StepKind::Tool,
            name: "shell".into(),
            effect: EffectClass::Once,
            digest: Digest([6; 32]),
            phase,
        })
    };
    let open = |due_at| StepPhase::Open { since: Seq(40), due_at, limit_millis: 5 };
    let mut items = Items::default();
    let recorded = [
        ("s1", step(open(NOW))),
        ("s2", step(open(Timestamp::NEVER))),
        ("s3", step(StepPhase::Lost)),
        ("s4", step(StepPhase::Unknown)),
        ("s5", step(StepPhase::Done(Seq(41)))),
        ("o1", Item::Output(Seq(42))),
        ("a1", Item::Ask(AskId(1))),
        ("a2", Item::AskDone(AskId(1), Seq(43))),
        ("t1", Item::Sleep(NOW, None)),
        ("t2", Item::Sleep(Timestamp::NEVER, Some(Seq(44)))),
        ("w1", Item::Signal("paid".into(), None)),
        ("w2", Item::Signal("paid".into(), Some((Seq(46), Seq(45))))),
        ("n1", Item::Note(Seq(47))),
        ("c1", Item::Checkpoint(Seq(48))),
    ];
    for (name, item) in recorded {
        assert_eq!(items.insert(&key(name), item), None);
    }
    Exec {
        id: ExecId(2),
        input: Seq(3),
        started_at: NOW,
        attempt: AttemptId(4),
        journal_from: Seq(5),
        continues: vec![ExecId(1)],
        failures: 6,
        losses: 7,
        usage: usage(),
        phase: Phase::Backoff { until: NOW },
        items,
        blocks: BTreeMap::from([(BlockId::from("b1"), 8)]),
        block_count: 9,
    }
}
