//! What clients want.

use crate::prng::Prng;
use crate::program::SIGNALS;
use ax_core::id::{Namespace, SessionKey};
use ax_core::session::SubmitPolicy;

/// The agents that there are.
pub(crate) const AGENTS: [&str; 2] = ["steady", "hasty"];

/// Something that a client wants. It can be sent again and means the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Op {
    pub(crate) namespace: Namespace,
    /// A number of its own: the program of an input, the choice of an answer.
    pub(crate) number: u64,
    pub(crate) target: Target,
}

/// What, and of which session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Create { name: Option<String>, agent: &'static str, id: Option<String> },
    Submit { key: SessionKey, id: Option<String>, policy: Option<SubmitPolicy> },
    Answer { key: SessionKey, fits: bool },
    Signal { key: SessionKey, name: String, id: Option<String> },
    Cancel { key: SessionKey, queued: bool },
    Rename { key: SessionKey, title: String },
    Checkpoint { key: SessionKey, name: String },
    Branch { key: SessionKey, from_end: Option<u64>, carry_on: bool, name: Option<String> },
    Delete(SessionKey),
    Look(SessionKey),
    List,
}

impl Op {
    /// An input for a new session.
    pub(crate) fn create(prng: &mut Prng, namespace: Namespace, name: String) -> Self {
        let agent = prng.pick(&AGENTS);
        // What has neither a name nor a key may be there twice when it is sent again.
        let id = prng.chance(80).then(|| name.clone());
        let name = prng.chance(50).then_some(name);
        Self { namespace, number: prng.number(), target: Target::Create { name, agent, id } }
    }

    /// Something with a session.
    pub(crate) fn on(prng: &mut Prng, key: SessionKey, name: String) -> Self {
        let (namespace, number) = (key.namespace.clone(), prng.number());
        let target = match prng.below(100) {
            0..32 => {
                let id = prng.chance(70).then_some(name);
                Target::Submit { key, id, policy: policy(prng) }
            }
            32..54 => Target::Answer { key, fits: prng.chance(90) },
            54..68 => {
                let id = prng.chance(60).then_some(name);
                Target::Signal { key, name: (*prng.pick(&SIGNALS)).into(), id }
            }
            68..73 => Target::Cancel { key, queued: prng.chance(50) },
            73..75 => Target::Rename { key, title: name },
            75..78 => Target::Checkpoint { key, name },
            78..86 => {
                let from_end = prng.chance(70).then(|| prng.below(12));
                let name = prng.chance(30).then_some(name);
                Target::Branch { key, from_end, carry_on: prng.chance(60), name }
            }
            86..88 => Target::Delete(key),
            88..96 => Target::Look(key),
            _ => Target::List,
        };
        Self { namespace, number, target }
    }

    /// The idempotency key.
    pub(crate) fn key(&self) -> Option<&str> {
        match &self.target {
            Target::Create { id, .. } | Target::Submit { id, .. } | Target::Signal { id, .. } => {
                id.as_deref()
            }
            _ => None,
        }
    }

    /// The session that it is about.
    pub(crate) const fn session(&self) -> Option<&SessionKey> {
        match &self.target {
            Target::Submit { key, .. }
            | Target::Answer { key, .. }
            | Target::Signal { key, .. }
            | Target::Cancel { key, .. }
            | Target::Rename { key, .. }
            | Target::Checkpoint { key, .. }
            | Target::Branch { key, .. }
            | Target::Delete(key)
            | Target::Look(key) => Some(key),
            Target::Create { .. } | Target::List => None,
        }
    }

    /// Says in a word what it is.
    pub(crate) const fn word(&self) -> &'static str {
        match self.target {
            Target::Create { .. } => "create",
            Target::Submit { .. } => "submit",
            Target::Answer { .. } => "answer",
            Target::Signal { .. } => "signal",
            Target::Cancel { .. } => "cancel",
            Target::Rename { .. } => "rename",
            Target::Checkpoint { .. } => "checkpoint",
            Target::Branch { .. } => "branch",
            Target::Delete(_) => "delete",
            Target::Look(_) => "look",
            Target::List => "list",
        }
    }
}

fn policy(prng: &mut Prng) -> Option<SubmitPolicy> {
    match prng.below(10) {
        0 => Some(SubmitPolicy::Reject),
        1 => Some(SubmitPolicy::Interrupt),
        2 => Some(SubmitPolicy::Branch),
        3 => Some(SubmitPolicy::Enqueue),
        _ => None,
    }
}
