//! The stored agents: every version of every manifest, in the log like everything else.
//!
//! The agents of a namespace are the entries of its session 0, which no client sees. An entry is an
//! encoded `agentexecutor.store.v1.AgentRecord` and never changes; the newest one of a name counts.
//! A deleted agent's versions can still be read, because sessions keep the version they began with.
//! Nobody deletes entries.

use crate::manifest::{self, Manifest};
use crate::{AgentSource, AgentView, Code, Error};
use ax_core::id::{Namespace, Seq, SessionId, SessionKey};
use ax_core::session::{AgentRef, Digest};
use ax_core::time::Timestamp;
use ax_log::{Append, AppendError, EventLog, ReadError, ReadLimit, Row};
use ax_proto::store::v1::AgentRecord;
use prost::Message;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Mutex;

/// The session of each namespace that holds its agents. It is not a session for anybody else.
pub const SYSTEM_SESSION: SessionId = SessionId(0);
/// The state in the row of [`SYSTEM_SESSION`], which no other session has.
const ROW_STATE: u8 = 0;
/// The most agents of a namespace, deleted ones included.
const AGENTS_MAX: usize = 10_000;
/// The longest directory of a manifest, in bytes.
const DIR_BYTES_MAX: usize = 4_096;
/// How often a write is tried again because another writer came first.
const TRIES_MAX: usize = 16;

/// Keeps agents.
///
/// Every namespace is read when it is first used, and kept in memory from then on: agents are few.
/// Other processes may write the same log: what they wrote is seen by the next request.
pub struct AgentStore {
    log: Arc<dyn EventLog>,
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    namespaces: std::sync::Mutex<HashMap<Namespace, Shelf>>,
}

/// The agents of a namespace. Locked over a whole write, so that this store's writers come one
/// after the other; those of another namespace do not wait.
type Shelf = Arc<Mutex<Agents>>;

/// What a session needs of an agent.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) agent: AgentRef,
    pub(crate) manifest: Arc<Manifest>,
    /// The directory that its relative paths begin at.
    pub(crate) dir: Option<PathBuf>,
}

/// The agents of a namespace, up to a position.
#[derive(Debug, Default)]
struct Agents {
    last: Seq,
    by_name: BTreeMap<String, Versions>,
}

/// An agent. Version 1 comes first.
#[derive(Debug, Default)]
struct Versions {
    versions: Vec<AgentView>,
    /// The newest manifest as it was read, if it is still valid: nearly every input needs it.
    newest: Option<Arc<Manifest>>,
    deleted: bool,
}

impl fmt::Debug for AgentStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentStore").field("log", &self.log).finish_non_exhaustive()
    }
}

impl AgentStore {
    /// Keeps agents in a log; `clock` says when they were applied.
    pub fn new(
        log: Arc<dyn EventLog>,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        Self { log, clock: Box::new(clock), namespaces: std::sync::Mutex::default() }
    }

    /// Stores a manifest as the newest version of its agent. Says whether it was that already: then
    /// nothing is stored.
    ///
    /// # Errors
    ///
    /// Lists what is wrong with the manifest, or says why it cannot be stored.
    pub async fn apply(
        &self,
        namespace: &Namespace,
        source: AgentSource,
    ) -> Result<(AgentView, bool), Error> {
        let manifest = manifest::accept(&source.manifest).map_err(|problems| {
            let mut error = Error::new(Code::Manifest, "the manifest is not valid");
            error.causes = problems.iter().map(ToString::to_string).collect();
            error
        })?;
        let dir = source.dir.as_ref().map(|dir| dir_text(dir)).transpose()?.unwrap_or_default();
        let agents = &mut *self.shelf(namespace).lock_owned().await;
        let write = |agents: &Agents| {
            let newest = agents.by_name.get(&manifest.name);
            if newest.is_none() && agents.by_name.len() >= AGENTS_MAX {
                let what = format!("a namespace has {AGENTS_MAX} agents at most");
                return Err(Error::new(Code::TooLarge, what));
            }
            if newest.is_some_and(|newest| {
                let same_dir = newest.newest().is_some_and(|view| view.dir == source.dir);
                !newest.deleted && newest.digest() == Some(manifest.digest) && same_dir
            }) {
                return Ok(None);
            }
            Ok(Some(AgentRecord {
                name: manifest.name.clone(),
                version: newest.map_or(0, Versions::count) + 1,
                manifest: source.manifest.clone(),
                applied_at_millis: (self.clock)().millis,
                dir: dir.clone(),
            }))
        };
        let written = self.write(namespace, agents, write).await?;
        Ok((agents.get(&manifest.name)?, !written))
    }

    /// Returns an agent: `NAME` for its newest version, or `NAME@VERSION`, which may be deleted.
    ///
    /// # Errors
    ///
    /// Fails if there is none, or if the log cannot be read.
    pub async fn get(&self, namespace: &Namespace, agent: &str) -> Result<AgentView, Error> {
        self.look(namespace, agent, |_, view| view.clone()).await
    }

    /// Returns what a session needs of an agent, named as in [`AgentStore::get`].
    ///
    /// # Errors
    ///
    /// Fails if there is none, if its manifest is not valid any more, or if the log cannot be read.
    pub(crate) async fn find(&self, namespace: &Namespace, agent: &str) -> Result<Found, Error> {
        let found = |versions: &Versions, view: &AgentView| {
            let newest = versions.newest.clone().filter(|_| versions.count() == view.version);
            let agent = AgentRef { name: view.name.clone(), version: view.version };
            (agent, view.dir.clone(), newest.ok_or_else(|| view.manifest.clone()))
        };
        let (agent, dir, manifest) = self.look(namespace, agent, found).await?;
        // An older version is read while nobody waits for it.
        let read = |text: String| manifest::parse(&text).map(Arc::new);
        let manifest = manifest.or_else(read).map_err(|problems| {
            let what = format!("the manifest of {}@{} is not valid", agent.name, agent.version);
            let mut error = Error::new(Code::Manifest, what);
            error.causes = problems.iter().map(ToString::to_string).collect();
            error
        })?;
        Ok(Found { agent, manifest, dir })
    }

    /// Hands a version of an agent over; what is written elsewhere is read if it may matter.
    async fn look<T>(
        &self,
        namespace: &Namespace,
        agent: &str,
        take: impl FnOnce(&Versions, &AgentView) -> T,
    ) -> Result<T, Error> {
        let (name, version) = match agent.split_once('@') {
            None => (agent, None),
            Some((name, version)) => match version.parse() {
                Ok(version) if version > 0 => (name, Some(version)),
                _ => {
                    let what = format!("{version:?} is not a version: it is a number from 1 on");
                    return Err(Error::invalid(what));
                }
            },
        };
        let agents = &mut *self.shelf(namespace).lock_owned().await;
        if version.is_none() || agents.find(name, version).is_none() {
            self.refresh(namespace, agents).await?;
        }
        let (versions, view) =
            agents.find(name, version).ok_or_else(|| agents.no_agent(name, version))?;
        Ok(take(versions, view))
    }

    fn shelf(&self, namespace: &Namespace) -> Shelf {
        let mut namespaces = self.namespaces.lock().expect("no holder of the lock panics");
        match namespaces.get(namespace) {
            Some(shelf) => Arc::clone(shelf),
            None => Arc::clone(namespaces.entry(namespace.clone()).or_default()),
        }
    }

    /// Says whether an agent was deleted, and not applied again since.
    ///
    /// # Errors
    ///
    /// Fails if the log cannot be read.
    pub async fn is_deleted(&self, namespace: &Namespace, name: &str) -> Result<bool, Error> {
        let agents = &mut *self.shelf(namespace).lock_owned().await;
        self.refresh(namespace, agents).await?;
        Ok(agents.by_name.get(name).is_some_and(|versions| versions.deleted))
    }

    /// Returns the newest version of every agent that is not deleted, in the order of the names.
    ///
    /// # Errors
    ///
    /// Fails if the log cannot be read.
    pub async fn list(&self, namespace: &Namespace) -> Result<Vec<AgentView>, Error> {
        let agents = &mut *self.shelf(namespace).lock_owned().await;
        self.refresh(namespace, agents).await?;
        let present = agents.by_name.values().filter(|versions| !versions.deleted);
        Ok(present.filter_map(Versions::newest).cloned().collect())
    }

    /// Deletes an agent: no session begins with it any more.
    ///
    /// # Errors
    ///
    /// Fails if there is none, or if the log cannot be written.
    pub async fn delete(&self, namespace: &Namespace, name: &str) -> Result<(), Error> {
        let agents = &mut *self.shelf(namespace).lock_owned().await;
        let write = |agents: &Agents| {
            let newest = agents.get(name)?;
            Ok(Some(AgentRecord {
                name: newest.name,
                version: newest.version,
                manifest: String::new(),
                applied_at_millis: (self.clock)().millis,
                dir: String::new(),
            }))
        };
        self.write(namespace, agents, write).await.map(drop)
    }

    /// Appends what `decide` makes of the newest agents; says whether there was anything. If
    /// another writer comes first, it decides again.
    async fn write(
        &self,
        namespace: &Namespace,
        agents: &mut Agents,
        decide: impl Fn(&Agents) -> Result<Option<AgentRecord>, Error>,
    ) -> Result<bool, Error> {
        let key = SessionKey::new(namespace.clone(), SYSTEM_SESSION);
        let mut tries = 0;
        loop {
            self.refresh(namespace, agents).await?;
            let Some(record) = decide(agents)? else { return Ok(false) };
            let epoch = self.log.acquire(&key).await?.epoch;
            let append = Append {
                key: key.clone(),
                epoch,
                expected: agents.last.next(),
                entries: vec![record.encode_to_vec().into()],
                row: Some(Row {
                    state: ROW_STATE,
                    updated_millis: record.applied_at_millis,
                    ..Row::default()
                }),
                snapshot: None,
            };
            let appended = self.log.append(append).await;
            self.log.release(&key, epoch);
            match appended {
                Ok(last) => {
                    agents.add(last, record);
                    return Ok(true);
                }
                Err(AppendError::WrongSeq { .. } | AppendError::Fenced { .. })
                    if tries < TRIES_MAX =>
                {
                    tries += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads what is new.
    async fn refresh(&self, namespace: &Namespace, agents: &mut Agents) -> Result<(), Error> {
        let key = SessionKey::new(namespace.clone(), SYSTEM_SESSION);
        loop {
            let entries = match self.log.read(&key, agents.last, ReadLimit::default()).await {
                Ok(entries) => entries,
                Err(ReadError::NotFound) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            if entries.is_empty() {
                return Ok(());
            }
            for entry in entries {
                let record = AgentRecord::decode(&*entry.payload);
                let record = record.map_err(|error| {
                    let what = format!("entry {} of the agents is unreadable", entry.seq);
                    Error::new(Code::Damaged, what).caused_by(&error)
                })?;
                agents.add(entry.seq, record);
            }
        }
    }
}

fn dir_text(dir: &std::path::Path) -> Result<String, Error> {
    let text = dir.to_str().ok_or_else(|| {
        Error::invalid(format!("the name of the directory {} is not UTF-8", dir.display()))
    })?;
    if text.len() > DIR_BYTES_MAX {
        let what = format!("the name of a manifest's directory has {DIR_BYTES_MAX} bytes at most");
        return Err(Error::new(Code::TooLarge, what));
    }
    if !dir.is_absolute() || text.contains('\0') {
        let what = format!("the directory of a manifest must be an absolute path, not {text:?}");
        return Err(Error::invalid(what));
    }
    Ok(text.to_owned())
}

impl Agents {
    fn add(&mut self, seq: Seq, record: AgentRecord) {
        assert_eq!(seq, self.last.next(), "entries are read in order and once");
        self.last = seq;
        let AgentRecord { name, version, manifest, applied_at_millis, dir } = record;
        let versions = self.by_name.entry(name.clone()).or_default();
        versions.deleted = manifest.is_empty();
        if versions.deleted {
            return;
        }
        versions.newest = manifest::parse(&manifest).ok().map(Arc::new);
        let dir = (!dir.is_empty()).then(|| PathBuf::from(dir));
        let applied_at = Timestamp::from_millis(applied_at_millis);
        versions.versions.push(AgentView { name, version, manifest, dir, applied_at });
    }

    fn get(&self, name: &str) -> Result<AgentView, Error> {
        let found = self.find(name, None).map(|(_, view)| view.clone());
        found.ok_or_else(|| self.no_agent(name, None))
    }

    fn find(&self, name: &str, version: Option<u32>) -> Option<(&Versions, &AgentView)> {
        let versions = self.by_name.get(name)?;
        let view = match version {
            None if versions.deleted => None,
            None => versions.newest(),
            Some(version) => versions.version(version),
        };
        view.map(|view| (versions, view))
    }

    fn no_agent(&self, name: &str, version: Option<u32>) -> Error {
        let Some(version) = version else {
            let error = Error::new(Code::NoAgent, format!("there is no agent {name:?}"));
            return match self.closest(name) {
                Some(meant) => error.with_hint(format!("did you mean `{meant}`?")),
                None => error,
            };
        };
        let error = Error::new(Code::NoAgent, format!("there is no version {version} of {name:?}"));
        match self.by_name.get(name).and_then(Versions::newest) {
            Some(newest) => error.with_hint(format!("the newest version is {}", newest.version)),
            None => error,
        }
    }

    fn closest(&self, name: &str) -> Option<&str> {
        let present = self.by_name.iter().filter(|(_, versions)| !versions.deleted);
        let scored = present.map(|(known, _)| (strsim::jaro_winkler(name, known), known.as_str()));
        let best = scored.max_by(|one, other| one.0.total_cmp(&other.0));
        best.filter(|(score, _)| *score > 0.8).map(|(_, known)| known)
    }
}

impl Versions {
    fn newest(&self) -> Option<&AgentView> {
        self.versions.last()
    }

    fn digest(&self) -> Option<Digest> {
        self.newest.as_ref().map(|manifest| manifest.digest)
    }

    fn count(&self) -> u32 {
        self.newest().map_or(0, |view| view.version)
    }

    fn version(&self, version: u32) -> Option<&AgentView> {
        self.versions.iter().find(|view| view.version == version)
    }
}

#[cfg(test)]
mod tests;
