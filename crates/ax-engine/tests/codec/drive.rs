//! States as they are reached: by the session machine itself, from what clients and harnesses do.

use ax_core::id::Seq;
use ax_core::session::{
    AgentRef, Answer, AskKind, BlockId, Body, Caller, Digest, EffectClass, Event, Failure, Frame,
    IdempotencyKey, Input, Limits, Part, PartKind, Request, Session, State, StepKey, StepKind,
    SubmitPolicy, Usage,
};
use ax_core::time::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Something that happens after a while.
#[derive(Clone, Debug)]
pub(crate) struct Move {
    millis: u64,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Client(Request),
    Frame(Frame),
    Gone,
    Recover,
    Tick,
}

/// A session that takes whatever it is given; what it refuses changes nothing.
#[derive(Debug)]
pub(crate) struct Driver {
    session: Session,
    now: Timestamp,
    events: Vec<Event>,
}

impl Driver {
    pub(crate) fn new() -> Self {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let mut driver = Self { session: Session::replay([]), now, events: Vec::new() };
        let limits = Limits { queue_max: 3, ..Limits::default() };
        driver.feed(&Input::Client(
            Caller::default(),
            Request::Create {
                name: "name".into(),
                agent: AgentRef { name: "agent".into(), version: 1 },
                limits,
                sandbox: "process".into(),
                seed: 7,
            },
        ));
        driver
    }

    pub(crate) const fn state(&self) -> &State {
        self.session.state()
    }

    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub(crate) fn go(&mut self, step: Move) {
        self.now = self.now.plus_millis(step.millis);
        let running = self.state().running();
        let failure = Failure { code: "exit_status".into(), message: "1".into() };
        let input = match (step.what, running) {
            (What::Client(request), _) => Input::Client(Caller::default(), request),
            (What::Frame(frame), Some((exec, attempt))) => Input::Frame(exec, attempt, frame),
            (What::Gone, Some((exec, attempt))) => Input::HarnessGone(exec, attempt, failure),
            (What::Recover, _) => Input::Recover,
            _ => Input::Tick,
        };
        self.feed(&input);
    }

    fn feed(&mut self, input: &Input) {
        drop(self.session.handle(self.now, input));
        self.events.extend(self.session.take_ready().persist);
        let last: Seq = self.session.state().last;
        drop(self.session.handle(self.now, &Input::Persisted(last)));
        drop(self.session.take_ready());
    }
}

fn key() -> impl Strategy<Value = StepKey> {
    select(vec!["k1", "k2", "k3", "k4", "k5", "k6"]).prop_map(StepKey::from)
}

fn request() -> impl Strategy<Value = Request> {
    let once = || proptest::option::of(".{1,4}".prop_map(IdempotencyKey::from));
    let answer = select(vec![
        Answer::Approve,
        Answer::Deny("no".into()),
        Answer::Text("text".into()),
        Answer::Choice("retry".into(), String::new()),
        Answer::Choice("completed".into(), "1".into()),
    ]);
    let policy = select(vec![None, Some(SubmitPolicy::Interrupt), Some(SubmitPolicy::Reject)]);
    prop_oneof![
        4 => (once(), any::<u8>(), policy).prop_map(|(key, byte, policy)| Request::Submit {
            key,
            digest: Digest([byte; 32]),
            parts: vec![Part::text("hello")],
            policy,
        }),
        3 => answer.prop_map(|answer| Request::Answer { ask: None, answer, via: "cli".into() }),
        2 => once().prop_map(|key| Request::Signal {
            name: "paid".into(),
            key,
            digest: Digest::default(),
            payload: Body::from("1"),
        }),
        1 => any::<bool>().prop_map(|queued| Request::Cancel {
            exec: None,
            queued,
            reason: "enough".into(),
        }),
        2 => (once(), any::<bool>(), 0..9_u64).prop_map(|(key, replaces, after)| Request::Record {
            collection: if replaces { "c1" } else { "c2" }.into(),
            key,
            digest: Digest::default(),
            parts: vec![Part::text("kept")],
            replaces,
            after: after.checked_sub(1).map(Seq),
        }),
        1 => Just(Request::Rename { title: "title".into() }),
        1 => Just(Request::Checkpoint { name: "here".into() }),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    let effect = select(vec![
        EffectClass::Read,
        EffectClass::Idempotent,
        EffectClass::Once,
        EffectClass::Probed,
    ]);
    let block = select(vec!["b1", "b2"]).prop_map(BlockId::from);
    let failure = Failure { code: "code".into(), message: "message".into() };
    let results = select(vec![Ok(Body::from("1")), Err(failure.clone())]);
    prop_oneof![
        block.prop_map(|block| {
            Frame::Delta { block, part: PartKind::Text, text: "text".into() }
        }),
        proptest::option::of(key()).prop_map(|key| Frame::Output {
            block: None,
            key,
            parts: vec![Part::text("out")],
        }),
        (key(), effect, proptest::option::of(0..9_000u64)).prop_map(
            |(step, effect, limit_millis)| Frame::StepBegin {
                step,
                kind: StepKind::Tool,
                name: "shell".into(),
                effect,
                digest: Digest([9; 32]),
                request: Some("{}".into()),
                prefix: None,
                limit_millis,
            }
        ),
        (key(), results).prop_map(|(step, result)| {
            let usage = Usage { input_tokens: 5, ..Usage::default() };
            Frame::StepEnd { step, result, usage }
        }),
        (key(), proptest::option::of(0..9_000u64)).prop_map(|(key, expires_millis)| Frame::Ask {
            key,
            kind: AskKind::Approval,
            prompt: "may I?".into(),
            choices: Vec::new(),
            details: None,
            expires_millis,
        }),
        key().prop_map(|key| Frame::Sleep {
            key,
            due_at: Timestamp::from_millis(1_700_000_020_000),
        }),
        key().prop_map(|key| Frame::AwaitSignal { key, name: "paid".into() }),
        key().prop_map(|key| Frame::Note { key: Some(key), name: "note".into(), data: "1".into() }),
        key().prop_map(|key| Frame::Checkpoint { key, name: "there".into() }),
        Just(Frame::End { result: None }),
        Just(Frame::Fail { failure, retry: true }),
    ]
}

/// What may happen to a session.
pub(crate) fn moves() -> impl Strategy<Value = Vec<Move>> {
    let what = prop_oneof![
        4 => request().prop_map(What::Client),
        12 => frame().prop_map(What::Frame),
        1 => Just(What::Gone),
        1 => Just(What::Recover),
        2 => Just(What::Tick),
    ];
    let step = (0..5_000u64, what).prop_map(|(millis, what)| Move { millis, what });
    vec(step, 0..60)
}
