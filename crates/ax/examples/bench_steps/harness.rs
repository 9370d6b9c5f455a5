//! Harnesses that are Rust functions.

use ax_core::session::{Body, Digest, EffectClass, Failure, Frame, Part, StepKey, StepKind, Usage};
use ax_harness::{Exit, Io, JournalKind, Launch, Launcher, Told};
use futures::future::BoxFuture;
use std::fmt;
use std::sync::Arc;

type Program = Arc<dyn Fn(Launch, Talk) -> BoxFuture<'static, ()> + Send + Sync>;

/// Runs a function as the harness of every agent.
#[derive(Clone)]
pub(crate) struct Functions(Program);

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Functions")
    }
}

impl Functions {
    pub(crate) fn new<F, R>(program: F) -> Self
    where
        F: Fn(Launch, Talk) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        Self(Arc::new(move |launch, talk| Box::pin(program(launch, talk))))
    }
}

impl Launcher for Functions {
    fn launch(&self, launch: Launch, io: Io) -> BoxFuture<'static, Exit> {
        let kill = io.kill.clone();
        let running = (self.0)(launch, Talk(io));
        Box::pin(async move {
            tokio::select! {
                biased;
                () = kill.cancelled() => {
                    Exit::Gone(Failure { code: "killed".into(), message: String::new() })
                }
                () = running => Exit::Said,
            }
        })
    }
}

/// A harness' end of the conversation.
#[derive(Debug)]
pub(crate) struct Talk(Io);

impl Talk {
    pub(crate) async fn say(&self, frame: Frame) {
        drop(self.0.frames.send(frame).await);
    }

    pub(crate) async fn output(&self, text: &str) {
        self.say(Frame::Output { block: None, key: None, parts: vec![Part::text(text)] }).await;
    }

    pub(crate) async fn end(&self) {
        self.say(Frame::End { result: None }).await;
    }

    /// Carries out a step that does nothing, as an SDK does, unless it is in the journal.
    pub(crate) async fn step(&mut self, launch: &Launch, key: StepKey, effect: EffectClass) {
        let done = |entry: &&ax_harness::JournalEntry| {
            entry.key == key && matches!(entry.kind, JournalKind::Step { .. })
        };
        if launch.journal.iter().find(done).is_some() {
            return;
        }
        self.say(Frame::StepBegin {
            step: key.clone(),
            kind: StepKind::User,
            name: "work".into(),
            effect,
            digest: Digest([7; 32]),
            request: Some(Body::Text(r#"{"args": [1, "two"]}"#.into())),
            prefix: None,
            limit_millis: None,
        })
        .await;
        if effect == EffectClass::Once {
            self.wait(|told| matches!(told, Told::Granted { step } if *step == key)).await;
        }
        let result = Ok(Body::Text(r#"{"value": 3}"#.into()));
        self.say(Frame::StepEnd { step: key.clone(), result, usage: Usage::default() }).await;
        self.wait(|told| matches!(told, Told::Recorded { key: of, .. } if *of == key)).await;
    }

    async fn wait(&mut self, is_it: impl Fn(&Told) -> bool) {
        loop {
            let told = self.0.told.recv().await.expect("the engine runs");
            if is_it(&told) {
                return;
            }
        }
    }
}
