//! An engine over the embedded log, as `ax serve` has it, but for the harness.

use crate::harness::Functions;
use crate::timed::Timed;
use ax_core::id::{Namespace, Seq};
use ax_core::session::{Caller, Part};
use ax_engine::{
    AgentSource, Engine, Options, SessionRef, Submission, Submitted, SystemClock, SystemEntropy,
};
use ax_log::EmbeddedLog;
use ax_store::Blobs;
use std::path::Path;
use std::sync::Arc;

const MANIFEST: &str = "
apiVersion: agentexecutor.dev/v1
kind: Agent
metadata: {name: bench}
spec:
  sandbox: process
  harness: {type: process, command: [\"true\"]}
";

pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) log: Arc<Timed>,
    pub(crate) namespace: Namespace,
}

impl World {
    pub(crate) async fn open(dir: &Path, runs_max: usize, harness: Functions) -> Self {
        let log = EmbeddedLog::open(&ax_log::Options::new(dir.join("log"))).unwrap();
        let log = Arc::new(Timed::new(log));
        let engine = Engine::open(Options {
            data_dir: dir.to_owned(),
            runs_max,
            log: Arc::clone(&log) as Arc<dyn ax_log::EventLog>,
            blobs: Blobs::local(&dir.join("blobs")).unwrap(),
            launcher: Arc::new(harness),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
        });
        Self { engine: engine.await.unwrap(), log, namespace: Namespace::default() }
    }

    pub(crate) async fn apply_agent(&self) {
        let source = AgentSource { manifest: MANIFEST.into(), dir: None };
        self.engine.apply_agent(&self.namespace, source).await.unwrap();
    }

    pub(crate) fn session(&self, name: &str) -> SessionRef {
        SessionRef::parse(&self.namespace, name).unwrap()
    }

    pub(crate) async fn submit(&self, name: &str, text: &str) -> Submitted {
        let submission = Submission {
            session: Some(self.session(name)),
            agent: Some("bench".into()),
            parts: vec![Part::text(text)],
            ..Submission::default()
        };
        self.engine.submit(Caller::default(), &self.namespace, submission).await.unwrap()
    }

    /// Waits until the execution of an input is over.
    pub(crate) async fn finished(&self, name: &str, input: Seq) {
        use ax_engine::{FollowItem, FollowOptions, Until};
        use futures::StreamExt as _;
        let options = FollowOptions { until: Until::Input(input), ..FollowOptions::default() };
        let session = self.session(name);
        let follow = self.engine.follow(&self.namespace, &session, options).await;
        let mut items = follow.unwrap();
        while let Some(item) = items.next().await {
            if matches!(item.unwrap(), FollowItem::Reached(..)) {
                return;
            }
        }
        panic!("the engine has stopped");
    }

    /// Waits until every session sleeps.
    pub(crate) async fn asleep(&self) {
        while self.engine.info().awake_sessions > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
}
