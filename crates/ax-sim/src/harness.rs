//! Harnesses that run programs, and misbehave.

use crate::outside::{Act, Outside};
use crate::prng::Prng;
use crate::program::{End, Op, Program, StepPlan};
use ax_core::session::{
    AskKind, BlockId, Body, Digest, EffectClass, Failure, Frame, Part, PartKind, StepKey, StepKind,
    Usage,
};
use ax_harness::{Exit, Io, JournalEntry, JournalKind, Launch, Launcher, Told};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

use crate::seams::SimClock;
use ax_engine::Clock as _;

/// How long a harness holds out that only waits and says that it lives, in heartbeats.
const HEARTBEATS_MAX: u64 = 20;

/// Launches harnesses that are scripted by their inputs.
#[derive(Debug)]
pub(crate) struct SimLauncher {
    pub(crate) outside: Outside,
    pub(crate) clock: Arc<SimClock>,
    pub(crate) seed: u64,
    /// No harness misbehaves any more.
    pub(crate) calm: bool,
    /// The process that it is of.
    pub(crate) process: u32,
    /// Looks at what acts, and where.
    pub(crate) witness: Option<Witness>,
    /// How many places there are to run.
    pub(crate) runs_max: usize,
}

/// Looks at an effect at the moment when it happens.
#[derive(Clone)]
pub(crate) struct Witness(pub(crate) Arc<dyn Fn(&Act) + Send + Sync>);

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Witness")
    }
}

impl Launcher for SimLauncher {
    fn launch(&self, launch: Launch, io: Io) -> BoxFuture<'static, Exit> {
        let run = Run::new(self, launch, io);
        async move {
            let (outside, key) = (run.outside.clone(), (run.process, run.launch.key.clone()));
            let exit = run.run().await;
            outside.lock().alive.remove(&key);
            outside.count();
            exit
        }
        .boxed()
    }
}

/// Why a harness stops.
enum Stop {
    /// It said why.
    Said,
    /// It is gone.
    Gone(&'static str),
}

type Next = Result<(), Stop>;

/// What goes wrong in an attempt, and before which operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doom {
    Gone,
    Silent,
    Malformed,
    FailRetry,
    EndEarly,
    Diverge,
}

struct Run {
    launch: Launch,
    io: Io,
    outside: Outside,
    clock: Arc<SimClock>,
    prng: Prng,
    journal: BTreeMap<StepKey, JournalEntry>,
    inbox: Vec<Told>,
    /// Looks at what is recorded before it asks again.
    reads_journal: bool,
    /// Says that it lives while it waits.
    beats: bool,
    /// Takes its time to die.
    stubborn: bool,
    doom: Option<(usize, Doom)>,
    process: u32,
    witness: Option<Witness>,
    runs_max: usize,
}

impl Run {
    fn new(launcher: &SimLauncher, launch: Launch, io: Io) -> Self {
        let name = format!("{} {} {}", launch.key, launch.exec, launch.attempt);
        let mut prng = Prng::of(launcher.seed, &name);
        let journal = launch.journal.iter().map(|entry| (entry.key.clone(), entry.clone()));
        let dooms = [
            Doom::Gone,
            Doom::Silent,
            Doom::Malformed,
            Doom::FailRetry,
            Doom::EndEarly,
            Doom::Diverge,
        ];
        let doom = (!launcher.calm && prng.chance(35)).then(|| (prng.index(6), *prng.pick(&dooms)));
        Self {
            journal: journal.collect(),
            io,
            outside: launcher.outside.clone(),
            clock: Arc::clone(&launcher.clock),
            inbox: Vec::new(),
            reads_journal: prng.chance(70),
            beats: prng.chance(20),
            stubborn: prng.chance(20),
            doom,
            prng,
            launch,
            process: launcher.process,
            witness: launcher.witness.clone(),
            runs_max: launcher.runs_max,
        }
    }

    async fn run(mut self) -> Exit {
        self.arrive();
        let gone = |what: &str| Exit::Gone(Failure { code: "sim".into(), message: what.into() });
        let text = self.launch.input.first().map(|part| part.text.clone()).unwrap_or_default();
        let Some(number) = text.strip_prefix("program ").and_then(|rest| rest.parse().ok()) else {
            self.outside.fail(format!("the input is {text:?}"));
            return gone("no program");
        };
        match self.play(&Program::of(number)).await {
            Ok(()) | Err(Stop::Said) => Exit::Said,
            Err(Stop::Gone(why)) => {
                if self.stubborn {
                    // Whatever it says now comes too late.
                    drop(self.io.frames.try_send(Frame::Heartbeat));
                    sleep(Duration::from_millis(self.prng.below(300))).await;
                }
                gone(why)
            }
        }
    }

    /// E5 alone, E6 journal, E17 placed: checked before it acts.
    fn arrive(&self) {
        let (key, who) = (self.launch.key.clone(), (self.launch.exec, self.launch.attempt));
        let mut state = self.outside.lock();
        state.attempts += 1;
        let other = state.alive.insert((self.process, key.clone()), who);
        let alive = state.alive.keys().filter(|(process, _)| *process == self.process).count();
        let known = state.confirmed.range((key.clone(), who.0, String::new())..);
        let known = known.take_while(|(session, exec, _)| *session == key && *exec == who.0);
        let missing: Vec<_> = known
            .filter(|(_, _, step)| !self.journal.contains_key(step.as_str()))
            .map(|(_, _, step)| step.clone())
            .collect();
        drop(state);
        if let Some(other) = other {
            self.outside.fail(format!("E5 alone: {who:?} of {key} acts beside {other:?}"));
        }
        if alive > self.runs_max {
            let what =
                format!("E17 placed: {alive} attempts are alive in {} places", self.runs_max);
            self.outside.fail(what);
        }
        if !missing.is_empty() {
            let what = format!("E6 journal: {who:?} of {key} is not told of {missing:?}");
            self.outside.fail(what);
        }
    }

    async fn play(&mut self, program: &Program) -> Next {
        for (at, op) in program.ops.iter().enumerate() {
            if let Some((_, doom)) = self.doom.filter(|(when, _)| *when == at) {
                self.misbehave(doom).await?;
            }
            match op {
                Op::Steps(steps) => self.steps(steps).await?,
                Op::Output { key, pieces } => self.output(at, key.as_deref(), *pieces).await?,
                Op::Ask { key, kind, expires } => self.ask(key, *kind, *expires).await?,
                Op::Sleep { key, millis } => self.sleep(key, *millis).await?,
                Op::Await { key, name } => self.await_signal(key, name).await?,
                Op::Mark { key } => {
                    let name = format!("mark-{at}");
                    self.record(key, Frame::Checkpoint { key: key.as_str().into(), name }).await?;
                }
                Op::Note { key, bytes } => {
                    let data = Body::Text(format!("\"{}\"", "n".repeat(*bytes)));
                    let frame =
                        Frame::Note { key: Some(key.as_str().into()), name: "seen".into(), data };
                    self.record(key, frame).await?;
                }
                Op::Think { millis } => self.pause(*millis).await?,
                Op::Chatter { count } => self.chatter(*count).await?,
            }
        }
        let failure =
            Failure { code: "program".into(), message: "the program ends in failure".into() };
        let last = match program.end {
            End::Done => Frame::End { result: Some("{}".into()) },
            End::FailFinal => Frame::Fail { failure, retry: false },
            End::FailAlways => Frame::Fail { failure, retry: true },
        };
        self.say(last).await?;
        Err(Stop::Said)
    }

    async fn misbehave(&mut self, doom: Doom) -> Next {
        let failure = Failure { code: "moody".into(), message: "not today".into() };
        match doom {
            Doom::Gone => Err(Stop::Gone("it is gone, as it pleases")),
            Doom::Silent => {
                self.io.kill.cancelled().await;
                Err(Stop::Gone("it was silent"))
            }
            Doom::Malformed => self.malformed().await,
            Doom::FailRetry => {
                self.say(Frame::Fail { failure, retry: true }).await?;
                Err(Stop::Said)
            }
            Doom::EndEarly => {
                self.say(begin(&once("early"))).await?;
                self.say(Frame::End { result: None }).await?;
                Err(Stop::Said)
            }
            Doom::Diverge => {
                let Some(entry) = self.launch.journal.first() else { return Ok(()) };
                let key = entry.key.clone();
                let (expected, found) = ("what is recorded".into(), "something else".into());
                self.say(Frame::Diverged { step: key, expected, found }).await?;
                Err(Stop::Gone("it diverged"))
            }
        }
    }

    /// Says what may not be said. With a key it is told so and goes on; without, it is the end.
    async fn malformed(&mut self) -> Next {
        let usage = Usage::default();
        let frame = match self.prng.below(5) {
            0 => Frame::StepEnd { step: "never".into(), result: Ok("1".into()), usage },
            1 => Frame::Note { key: Some("".into()), name: "n".into(), data: "1".into() },
            2 => Frame::AwaitSignal { key: "long".into(), name: "x".repeat(300) },
            3 => Frame::Ask {
                key: "nothing".into(),
                kind: AskKind::Choice,
                prompt: "which?".into(),
                choices: Vec::new(),
                details: None,
                expires_millis: None,
            },
            _ => Frame::Delta { block: "".into(), part: PartKind::Text, text: "x".into() },
        };
        self.say(frame).await?;
        self.hear(|told| matches!(told, Told::Refused { .. }).then_some(())).await
    }

    async fn say(&mut self, frame: Frame) -> Next {
        self.outside.count();
        tokio::select! {
            biased;
            () = self.io.kill.cancelled() => Err(Stop::Gone("it was killed")),
            sent = self.io.frames.send(frame) => {
                sent.map_err(|_| Stop::Gone("nobody listens"))
            }
        }
    }

    /// Waits until it is told something that fits.
    async fn hear<T>(&mut self, mut fits: impl FnMut(&Told) -> Option<T>) -> Result<T, Stop> {
        let mut beats = if self.beats { HEARTBEATS_MAX } else { 0 };
        loop {
            if let Some(at) = self.inbox.iter().position(|told| fits(told).is_some()) {
                let told = self.inbox.remove(at);
                return Ok(fits(&told).expect("it did just now"));
            }
            tokio::select! {
                biased;
                () = self.io.kill.cancelled() => return Err(Stop::Gone("it was killed")),
                told = self.io.told.recv() => match told {
                    None => return Err(Stop::Gone("nobody speaks")),
                    Some(Told::Park { .. } | Told::Cancel { .. }) => {
                        return Err(Stop::Gone("it was told to go"));
                    }
                    Some(told) => self.inbox.push(told),
                },
                () = sleep(Duration::from_millis(400)), if beats > 0 => {
                    beats -= 1;
                    drop(self.io.frames.try_send(Frame::Heartbeat));
                }
            }
        }
    }

    async fn pause(&mut self, millis: u64) -> Next {
        tokio::select! {
            biased;
            () = self.io.kill.cancelled() => Err(Stop::Gone("it was killed")),
            () = sleep(Duration::from_millis(millis)) => Ok(()),
        }
    }

    /// Says something that is recorded once, and waits until it is.
    async fn record(&mut self, key: &str, frame: Frame) -> Next {
        if self.reads_journal && self.journal.contains_key(key) {
            return Ok(());
        }
        self.say(frame).await?;
        self.recorded(key).await
    }

    async fn recorded(&mut self, key: &str) -> Next {
        self.hear(|told| match told {
            Told::Recorded { key: told, .. } if told.as_str() == key => Some(Ok(())),
            Told::Refused { key: Some(told), .. } if told.as_str() == key => {
                Some(Err(Stop::Gone("it was refused")))
            }
            _ => None,
        })
        .await?
    }

    async fn steps(&mut self, plans: &[StepPlan]) -> Next {
        let done = |run: &Self, plan: &StepPlan| {
            let entry = run.journal.get(plan.key.as_str());
            entry.is_some_and(|entry| matches!(entry.kind, JournalKind::Step { .. }))
        };
        let mut granted = Vec::new();
        for plan in plans {
            // Only what must not happen twice is answered when it begins: of others a harness must
            // know for itself.
            let looks = self.reads_journal || !plan.class.is_once();
            if looks && done(self, plan) {
                continue;
            }
            if self.launch.doubts.iter().any(|step| step.as_str() == plan.key) {
                self.find_out(plan, &mut granted).await?;
                continue;
            }
            self.say(begin(plan)).await?;
            if !plan.class.is_once() || self.granted(plan).await? {
                granted.push(plan);
            }
        }
        for plan in granted {
            self.act(plan).await?;
        }
        Ok(())
    }

    /// Finds out what an earlier attempt did, and goes on from there.
    async fn find_out<'a>(&mut self, plan: &'a StepPlan, granted: &mut Vec<&'a StepPlan>) -> Next {
        let found = self.outside.find(&self.launch.key, self.launch.exec, &plan.key);
        let Some(happened) = found.filter(|_| self.prng.chance(80)) else {
            self.say(begin(&StepPlan { class: EffectClass::Once, ..plan.clone() })).await?;
            self.granted(plan).await?;
            return Err(Stop::Gone("nobody can tell what became of it"));
        };
        self.say(begin(plan)).await?;
        if !self.granted(plan).await? {
            return Ok(());
        }
        if happened {
            return self.told(plan).await;
        }
        granted.push(plan);
        Ok(())
    }

    /// Whether a step may be carried out; not if it was before.
    async fn granted(&mut self, plan: &StepPlan) -> Result<bool, Stop> {
        self.hear(|told| match told {
            Told::Granted { step } if step.as_str() == plan.key => Some(Ok(true)),
            Told::Recorded { key, before: Some(_), .. } if key.as_str() == plan.key => {
                Some(Ok(false))
            }
            Told::Refused { key: Some(key), .. } if key.as_str() == plan.key => {
                Some(Err(Stop::Gone("it was refused")))
            }
            _ => None,
        })
        .await?
    }

    /// Has an effect on the outside, and says so.
    async fn act(&mut self, plan: &StepPlan) -> Next {
        let act = Act {
            process: self.process,
            session: self.launch.key.clone(),
            exec: self.launch.exec,
            attempt: self.launch.attempt,
            step: plan.key.clone(),
            class: plan.class,
        };
        self.may_act(&act)?;
        self.outside.begin(&act);
        if let Err(stop) = self.pause(plan.millis / 2).await {
            // Whether the blow came before or after, nobody can say.
            let happens = self.prng.chance(50);
            self.outside.settle(&act, happens);
            return Err(stop);
        }
        if let Err(stop) = self.may_act(&act) {
            self.outside.settle(&act, false);
            return Err(stop);
        }
        self.outside.settle(&act, true);
        self.pause(plan.millis.div_ceil(2)).await?;
        self.told(plan).await
    }

    /// Says what came of a step.
    async fn told(&mut self, plan: &StepPlan) -> Next {
        let result = if plan.fails {
            Err(Failure { code: "tool".into(), message: "the tool failed".into() })
        } else {
            Ok(Body::Text(format!("\"{}\"", "r".repeat(plan.bytes))))
        };
        let usage = Usage { output_tokens: 7, tool_calls: 1, ..Usage::default() };
        self.say(Frame::StepEnd { step: plan.key.as_str().into(), result, usage }).await?;
        self.recorded(&plan.key).await?;
        let known = (self.launch.key.clone(), self.launch.exec, plan.key.clone());
        self.outside.lock().confirmed.insert(known);
        Ok(())
    }

    /// What may not act does not: its session may be another's.
    fn may_act(&self, act: &Act) -> Next {
        if !self.io.may_act.now() {
            return Err(Stop::Gone("it may not act any more"));
        }
        if let Some(witness) = &self.witness {
            (witness.0)(act);
        }
        Ok(())
    }

    async fn output(&mut self, at: usize, key: Option<&str>, pieces: u64) -> Next {
        if self.reads_journal && key.is_some_and(|key| self.journal.contains_key(key)) {
            return Ok(());
        }
        let block = BlockId::from(format!("block-{at}"));
        for piece in 0..pieces {
            let (block, text) = (block.clone(), format!("piece {piece} "));
            self.say(Frame::Delta { block, part: PartKind::Text, text }).await?;
            let millis = self.prng.below(60);
            self.pause(millis).await?;
        }
        let parts = if pieces == 0 { vec![Part::text("all at once")] } else { Vec::new() };
        let named = key.map(StepKey::from);
        self.say(Frame::Output { block: Some(block), key: named, parts }).await?;
        match key {
            Some(key) => self.recorded(key).await,
            None => Ok(()),
        }
    }

    async fn chatter(&mut self, count: u64) -> Next {
        for number in 0..count {
            // Some of it is too large for an event and goes to the blob store.
            let times = if number % 10 == 9 { 70_000 } else { 1 };
            let data = Body::Text(number.to_string().repeat(times));
            self.say(Frame::Note { key: None, name: "chatter".into(), data }).await?;
            if number % 50 == 0 {
                self.pause(20).await?;
            }
        }
        Ok(())
    }

    async fn ask(&mut self, key: &str, kind: AskKind, expires: Option<u64>) -> Next {
        let answered = |entry: &JournalEntry| matches!(entry.kind, JournalKind::Ask(Some(_)));
        if self.reads_journal && self.journal.get(key).is_some_and(answered) {
            return Ok(());
        }
        let choices =
            if kind == AskKind::Choice { vec!["red".into(), "green".into()] } else { Vec::new() };
        self.say(Frame::Ask {
            key: key.into(),
            kind,
            prompt: format!("what about {key}?"),
            choices,
            details: None,
            expires_millis: expires,
        })
        .await?;
        self.hear(|told| match told {
            Told::Answered { key: told, .. } => (told.as_str() == key).then_some(()),
            Told::Recorded { key: told, before: Some(_), .. } => {
                (told.as_str() == key).then_some(())
            }
            _ => None,
        })
        .await
    }

    async fn sleep(&mut self, key: &str, millis: u64) -> Next {
        let fired =
            |entry: &JournalEntry| matches!(entry.kind, JournalKind::Sleep { fired, .. } if fired);
        if self.reads_journal && self.journal.get(key).is_some_and(fired) {
            return Ok(());
        }
        let due_at = self.clock.now().plus_millis(millis);
        self.say(Frame::Sleep { key: key.into(), due_at }).await?;
        self.hear(|told| {
            matches!(told, Told::Fired { key: told } if told.as_str() == key).then_some(())
        })
        .await
    }

    async fn await_signal(&mut self, key: &str, name: &str) -> Next {
        let came = |entry: &JournalEntry| {
            matches!(&entry.kind, JournalKind::Signal { payload: Some(_), .. })
        };
        if self.reads_journal && self.journal.get(key).is_some_and(came) {
            return Ok(());
        }
        self.say(Frame::AwaitSignal { key: key.into(), name: name.into() }).await?;
        self.hear(|told| {
            matches!(told, Told::Signaled { key: told, .. } if told.as_str() == key).then_some(())
        })
        .await
    }
}

fn once(key: &str) -> StepPlan {
    let class = EffectClass::Once;
    let kind = StepKind::Tool;
    StepPlan { key: key.into(), kind, class, millis: 0, fails: false, bytes: 0 }
}

fn begin(plan: &StepPlan) -> Frame {
    Frame::StepBegin {
        step: plan.key.as_str().into(),
        kind: plan.kind,
        name: "work".into(),
        effect: plan.class,
        digest: Digest([7; 32]),
        request: Some("{}".into()),
        prefix: None,
        limit_millis: None,
    }
}
