//! A launcher whose harnesses are Rust functions, and an engine around it.

use ax_core::id::{Namespace, Seq};
use ax_core::session::{Caller, Failure, Frame, Kind, Part, StepKey};
use ax_engine::{
    AgentSource, Clock, Engine, FollowItem, FollowOptions, Options, SessionRef, Submission,
    SystemClock, SystemEntropy, Until, codec,
};
use ax_harness::{Exit, Io, JournalKind, Launch, Launcher, Told};
use ax_log::{EventLog, MemoryLog};
use ax_store::Blobs;
use futures::StreamExt;
use futures::future::BoxFuture;
use std::fmt;
use std::sync::Arc;

type Program = Arc<dyn Fn(Launch, Io) -> BoxFuture<'static, Exit> + Send + Sync>;

/// Runs a function as the harness of every agent.
#[derive(Clone)]
pub(crate) struct Scripted(Program);

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

impl Scripted {
    pub(crate) fn new<F, R>(program: F) -> Self
    where
        F: Fn(Launch, Talk) -> R + Send + Sync + 'static,
        R: Future<Output = Exit> + Send + 'static,
    {
        Self(Arc::new(move |launch, io| {
            let kill = io.kill.clone();
            let running = program(launch, Talk(io));
            Box::pin(async move {
                tokio::select! {
                    biased;
                    () = kill.cancelled() => gone("killed"),
                    exit = running => exit,
                }
            })
        }))
    }
}

impl Launcher for Scripted {
    fn launch(&self, launch: Launch, io: Io) -> BoxFuture<'static, Exit> {
        (self.0)(launch, io)
    }
}

pub(crate) fn gone(code: &str) -> Exit {
    Exit::Gone(Failure { code: code.into(), message: code.into() })
}

/// A harness' end of the conversation.
pub(crate) struct Talk(pub(crate) Io);

impl Talk {
    pub(crate) async fn say(&self, frame: Frame) {
        drop(self.0.frames.send(frame).await);
    }

    pub(crate) async fn told(&mut self) -> Told {
        self.0.told.recv().await.unwrap_or(Told::Park { grace_millis: 0 })
    }

    pub(crate) async fn end(&self) -> Exit {
        self.say(Frame::End { result: None }).await;
        Exit::Said
    }

    /// Carries out a step, unless the journal has it; returns whether it did.
    pub(crate) async fn once(
        &mut self,
        launch: &Launch,
        step: &str,
        effect: impl Future<Output = ()>,
    ) -> bool {
        use ax_core::session::{Body, Digest, EffectClass, StepKind, Usage};
        let step: StepKey = step.into();
        let done = |entry: &ax_harness::JournalEntry| {
            entry.key == step && matches!(entry.kind, JournalKind::Step { .. })
        };
        if launch.journal.iter().any(done) {
            return false;
        }
        self.say(Frame::StepBegin {
            step: step.clone(),
            kind: StepKind::Tool,
            name: "effect".into(),
            effect: EffectClass::Once,
            digest: Digest::default(),
            request: None,
            prefix: None,
            limit_millis: None,
        })
        .await;
        assert_eq!(self.told().await, Told::Granted { step: step.clone() });
        effect.await;
        let result = Ok(Body::Text("true".into()));
        self.say(Frame::StepEnd { step: step.clone(), result, usage: Usage::default() }).await;
        assert!(matches!(self.told().await, Told::Recorded { key, .. } if key == step));
        true
    }
}

pub(crate) const MANIFEST: &str = "
apiVersion: agentexecutor.dev/v1
kind: Agent
metadata: {name: test}
spec:
  sandbox: process
  harness: {type: process, command: [\"true\"]}
  limits:
    parkAfter: 50ms
    retry: {attempts: 3, backoffMin: 10ms, backoffMax: 20ms}
";

/// An engine over a log that outlives it.
pub(crate) struct World {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) runs_max: usize,
    pub(crate) blobs: Blobs,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) namespace: Namespace,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::over(Arc::new(MemoryLog::new()))
    }

    pub(crate) fn over(log: Arc<dyn EventLog>) -> Self {
        Self {
            log,
            clock: Arc::new(SystemClock),
            runs_max: 8,
            blobs: Blobs::memory(),
            dir: tempfile::tempdir().unwrap(),
            namespace: Namespace::default(),
        }
    }

    pub(crate) async fn open(&self, launcher: Scripted) -> Engine {
        let engine = self.open_bare(launcher).await;
        let source = AgentSource { manifest: MANIFEST.into(), dir: None };
        engine.apply_agent(&self.namespace, source).await.unwrap();
        engine
    }

    /// Opens an engine without storing the agent.
    pub(crate) async fn open_bare(&self, launcher: Scripted) -> Engine {
        Engine::open(Options {
            data_dir: self.dir.path().into(),
            runs_max: self.runs_max,
            log: Arc::clone(&self.log),
            blobs: self.blobs.clone(),
            launcher: Arc::new(launcher),
            clock: Arc::clone(&self.clock),
            entropy: Arc::new(SystemEntropy),
        })
        .await
        .unwrap()
    }

    pub(crate) fn session(&self, name: &str) -> SessionRef {
        SessionRef::parse(&self.namespace, name).unwrap()
    }

    pub(crate) async fn submit(&self, engine: &Engine, name: &str, key: &str) -> Seq {
        let submission = Submission {
            session: Some(self.session(name)),
            agent: Some("test".into()),
            key: Some(key.into()),
            parts: vec![Part::text("hello")],
            ..Submission::default()
        };
        let submitted = engine.submit(Caller::default(), &self.namespace, submission).await;
        submitted.unwrap().seq
    }

    /// Follows until the execution of the input is over or waits; returns the events' names.
    pub(crate) async fn until(&self, engine: &Engine, name: &str, input: Seq) -> Vec<String> {
        let options = FollowOptions { until: Until::Input(input), ..FollowOptions::default() };
        let session = self.session(name);
        let mut items = engine.follow(&self.namespace, &session, options).await.unwrap();
        let mut names = Vec::new();
        while let Some(item) = items.next().await {
            match item.unwrap() {
                FollowItem::Event(seq, payload) => {
                    assert_eq!(seq.0, names.len() as u64 + 1, "no gap and no duplicate");
                    names.push(codec::decode_event(&payload).unwrap().kind.name().to_owned());
                }
                FollowItem::CaughtUp(_) => {}
                FollowItem::Reached(..) => return names,
                other => panic!("{other:?}"),
            }
        }
        panic!("the stream ended before its end: {names:?}")
    }

    /// Follows a branch from its own beginning until the execution of the input is over.
    pub(crate) async fn until_from(&self, engine: &Engine, session: &SessionRef, input: Seq) {
        let (after, until) = (input.prev(), Until::Input(input));
        let options = FollowOptions { after, until, ..FollowOptions::default() };
        let mut items = engine.follow(&self.namespace, session, options).await.unwrap();
        while let Some(item) = items.next().await {
            if let FollowItem::Reached(..) = item.unwrap() {
                return;
            }
        }
        panic!("the stream ended before its end");
    }

    pub(crate) async fn kinds(&self, engine: &Engine, name: &str) -> Vec<Kind> {
        let session = self.session(name);
        let page = engine.events(&self.namespace, &session, Seq::ZERO, 0).await.unwrap();
        page.events.iter().map(|(_, event)| codec::decode_event(event).unwrap().kind).collect()
    }
}
