//! What all tasks of an engine share.

use crate::agents::AgentStore;
use crate::api::SessionView;
use crate::observe::{Observer, Waiting};
use crate::references::{Held, References};
use crate::registry::Registry;
use crate::seams::{Clock, Entropy};
use crate::session::{self, Asked, Command};
use crate::timers::Timers;
use crate::{Code, Error, codec, view};
use ax_core::id::{Namespace, SessionKey};
use ax_core::session::{Accepted, AgentRef, Caller, Request};
use ax_harness::{AgentInfo, Launcher};
use ax_log::EventLog;
use ax_store::Blobs;
use ax_workspace::Place;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The row state of a session whose deletion is not finished.
pub(crate) const ROW_DELETING: u8 = 31;
/// The row state of a session whose import is not finished; a crash leaves it so.
pub(crate) const ROW_IMPORTING: u8 = 30;
/// What all tasks of an engine share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) data_dir: PathBuf,
    pub(crate) runs_max: usize,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) blobs: Blobs,
    pub(crate) launcher: Arc<dyn Launcher>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) observer: Arc<dyn Observer>,
    /// How many followers there are.
    pub(crate) followers: Arc<AtomicUsize>,
    pub(crate) waiting: Arc<Waiting>,
    pub(crate) agents: AgentStore,
    pub(crate) registry: Registry,
    pub(crate) timers: Timers,
    /// The places to run.
    pub(crate) slots: Arc<Semaphore>,
    /// The places to keep files: it is work for cores and disks.
    pub(crate) keepers: Semaphore,
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
    /// Triggered when the log takes nothing more.
    pub(crate) failed: CancellationToken,
    /// What collections of blobs must know.
    pub(crate) references: Arc<References>,
    /// Collections, one at a time in a namespace.
    pub(crate) collections: crate::turns::Turns,
    /// Inputs with a key that may go to a session or to a branch of it: see [`crate::submit`].
    pub(crate) keyed: crate::turns::Turns,
    /// Sessions that are being imported, so that recovery leaves them alone.
    pub(crate) importing: Mutex<BTreeSet<SessionKey>>,
}

impl Inner {
    /// Whether the engine does more than record.
    pub(crate) const fn runs_anything(&self) -> bool {
        self.runs_max > 0
    }

    /// Hands requests to a session, and returns what came of them once that is durable.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        key: &SessionKey,
        caller: Caller,
        requests: Vec<Request>,
    ) -> Result<Vec<Accepted>, Error> {
        self.ask_with(key, caller, requests, None).await
    }

    /// Hands requests to a session that name blobs, which are held until that is durable.
    pub(crate) async fn ask_with(
        self: &Arc<Self>,
        key: &SessionKey,
        caller: Caller,
        requests: Vec<Request>,
        held: Option<Arc<Held>>,
    ) -> Result<Vec<Accepted>, Error> {
        self.hand(key, caller, requests, held)?.await
    }

    /// Hands requests to a session at once: what is handed over later comes later. The answer comes
    /// once they are durable.
    pub(crate) fn hand(
        self: &Arc<Self>,
        key: &SessionKey,
        caller: Caller,
        requests: Vec<Request>,
        held: Option<Arc<Held>>,
    ) -> Result<impl Future<Output = Result<Vec<Accepted>, Error>> + use<>, Error> {
        let (sender, receiver) = oneshot::channel();
        let asked = Asked::new(sender, held);
        self.registry.send(self, key, Command::Ask(caller, requests, asked))?;
        let gone = || Error::new(Code::Stopping, "the session's task has ended");
        Ok(async move { receiver.await.map_err(|_| gone())? })
    }

    /// Shows a session, awake or asleep; `None` if there is none.
    pub(crate) async fn show(&self, key: &SessionKey) -> Result<Option<SessionView>, Error> {
        let (sender, receiver) = oneshot::channel();
        if self.registry.send_if_awake(key, Command::Show(sender)).is_ok()
            && let Ok(shown) = receiver.await
        {
            return match shown {
                Err(error) if matches!(error.code, Code::NoSession | Code::Deleted) => Ok(None),
                shown => shown.map(Some),
            };
        }
        if self.log.head(key).await?.is_none() {
            return Ok(None);
        }
        let (session, head) = session::read_only(self, key).await?;
        // A branch to which nothing has happened yet still has its parent's state.
        if head.parent.is_some_and(|(_, at)| at == head.last) {
            let view = codec::decode_row(key.session, &head);
            return view.map(Some).map_err(|error| {
                Error::new(Code::Damaged, "the row is unreadable").caused_by(&error)
            });
        }
        let status = view::status(&session, self.clock.now(), !self.log.owns(key));
        let updated_at = ax_core::time::Timestamp::from_millis(head.row.updated_millis);
        Ok(view::session_view(key.session, &session, head.parent, status, updated_at))
    }

    /// Whether a session that is to run does not run yet: no place is free, or it has not been
    /// taken up since the engine began.
    pub(crate) fn lacks_place(&self, key: &SessionKey) -> bool {
        // What another process writes, it runs.
        self.log.owns(key) && (!self.registry.is_awake(key) || self.waiting.has(key))
    }

    pub(crate) async fn must_exist(&self, key: &SessionKey) -> Result<(), Error> {
        let (sender, receiver) = oneshot::channel();
        drop(receiver);
        if self.registry.send_if_awake(key, Command::Show(sender)).is_ok() {
            return Ok(());
        }
        if self.log.head(key).await?.is_some() {
            return Ok(());
        }
        Err(Error::new(Code::NoSession, format!("there is no session {}", key.session)))
    }

    /// Finishes the deletion of a session.
    pub(crate) async fn forget(&self, key: &SessionKey) -> Result<(), Error> {
        let Place { dir: workspace, beside } = self.place(key);
        for dir in [workspace, beside] {
            match remove(&dir).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(path = %dir.display(), %error, "a directory stays behind");
                }
                _ => {}
            }
        }
        // The row says to the end what is to be done, so that a crash before it is made up for.
        self.let_go(key).await
    }

    /// Returns what an adapter needs of an agent's manifest.
    pub(crate) async fn agent_of(
        &self,
        namespace: &Namespace,
        agent: &AgentRef,
    ) -> Result<AgentInfo, Error> {
        let name = format!("{}@{}", agent.name, agent.version);
        let found = self.agents.find(namespace, &name).await?;
        let mut harness = found.manifest.harness.clone();
        if let (Some(dir), Some(fields)) = (&found.dir, harness.as_object_mut())
            && starts_a_program(fields, !found.manifest.gateway.is_null())
            && !fields.contains_key("dir")
        {
            drop(fields.insert("dir".into(), dir.to_string_lossy().into()));
        }
        let (name, version) = (agent.name.clone(), agent.version);
        let (gateway, sandbox) = (found.manifest.gateway.clone(), found.manifest.sandbox.clone());
        Ok(AgentInfo { name, version, harness, gateway, sandbox })
    }

    pub(crate) fn workspace_path(&self, key: &SessionKey) -> PathBuf {
        let namespace = self.data_dir.join("workspaces").join(key.namespace.as_str());
        namespace.join(key.session.to_string())
    }
}

/// Removes a directory and what is in it.
async fn remove(dir: &Path) -> std::io::Result<()> {
    // An empty directory is gone in one small call; what has content goes on another thread.
    match std::fs::remove_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
            tokio::fs::remove_dir_all(dir).await
        }
        removed => removed,
    }
}

/// Whether a harness is a program of its own, or has tool servers that are: their relative paths
/// begin beside the manifest.
fn starts_a_program(
    harness: &serde_json::Map<String, serde_json::Value>,
    has_gateway: bool,
) -> bool {
    match harness.get("type").and_then(serde_json::Value::as_str) {
        Some("process" | "acp" | "antigravity") => true,
        Some("ax1") => harness.contains_key("command"),
        Some("builtin" | "interactions") => has_gateway,
        _ => false,
    }
}
