//! Snapshots of a session's state.

use super::DecodeError;
use super::value::{
    answer, answer_message, ask, ask_kind, ask_kind_number, blob_message, blob_ref, block, counted,
    digest, digest_bytes, digest_or_nothing, digest_or_zero, effect, effect_number, exec,
    idempotency_option, limits, limits_message, required, seq, seq_option, seq_or_zero, step_key,
    step_key_option, step_key_text, step_kind, step_kind_number, usage, usage_message,
};
use ax_core::id::{AskId, AttemptId, Seq};
use ax_core::session::{
    AgentRef, Answered, Collection, Digest, Ended, Exec, IdempotencyKey, Identity, Item, Items,
    KnownKeys, OpenAsk, Phase, State, Step, StepKey, StepPhase, Workspace,
};
use ax_core::time::Timestamp;
use ax_proto::store::v1::{self, item::Item as ItemMessage};
use bytes::Bytes;
use prost::Message;
use std::collections::{BTreeMap, VecDeque};

/// The version of the format.
const VERSION: u32 = 1;

/// Encodes a state as an `agentexecutor.store.v1.Snapshot`.
pub fn encode_state(state: &State) -> Bytes {
    let message = v1::Snapshot {
        version: VERSION,
        last: state.last.0,
        identity: state.identity.as_ref().map(identity_message),
        deleted: state.deleted,
        queue: state.queue.iter().map(|seq| seq.0).collect(),
        keys: state.known.iter().map(key_message).collect(),
        exec_count: state.exec_count,
        ask_count: state.ask_count,
        execution: state.exec.as_ref().map(exec_message),
        asks: state.asks.iter().map(|(id, open)| ask_message(*id, open)).collect(),
        signals: state.signals.iter().map(signal_message).collect(),
        ended: state.ended.as_ref().map(ended_message),
        usage: usage_message(&state.usage),
        answered: state.answered.iter().map(answered_message).collect(),
        collections: state.collections.iter().map(collection_message).collect(),
        workspace: state.workspace.as_ref().map(workspace_message),
    };
    message.encode_to_vec().into()
}

/// Decodes a snapshot.
///
/// # Errors
///
/// Says which field is not what [`encode_state`] writes. The session can still be rebuilt from an
/// earlier snapshot, or from its events alone.
pub fn decode_state(bytes: &[u8]) -> Result<State, DecodeError> {
    let message = v1::Snapshot::decode(bytes)?;
    if message.version != VERSION {
        return Err(DecodeError::Version { what: "snapshot", version: message.version });
    }
    let queue = message.queue.into_iter().map(|input| seq("snapshot.queue", input));
    let signals = message.signals.into_iter().map(|signal| {
        let at = seq("snapshot.signals", signal.seq)?;
        Ok((at, signal.name))
    });
    Ok(State {
        last: seq_or_zero("snapshot.last", message.last)?,
        identity: message.identity.map(identity).transpose()?,
        deleted: message.deleted,
        queue: queue.collect::<Result<_, DecodeError>>()?,
        known: keys(message.keys)?,
        exec_count: below_max("snapshot.exec_count", message.exec_count)?,
        ask_count: below_max("snapshot.ask_count", message.ask_count)?,
        exec: message.execution.map(execution).transpose()?,
        asks: asks(message.asks)?,
        answered: answered(message.answered)?,
        signals: signals.collect::<Result<_, DecodeError>>()?,
        collections: collections(message.collections)?,
        workspace: message.workspace.map(workspace).transpose()?,
        ended: message.ended.map(ended).transpose()?,
        usage: usage(message.usage),
    })
}

/// Reads a counter, after which there must be a next number.
fn below_max(field: &'static str, number: u32) -> Result<u32, DecodeError> {
    if number == 0 { Ok(0) } else { counted(field, number) }
}

fn identity_message(identity: &Identity) -> v1::Identity {
    v1::Identity {
        name: identity.name.clone(),
        title: identity.title.clone(),
        agent: identity.agent.name.clone(),
        agent_version: identity.agent.version,
        limits: Some(limits_message(&identity.limits)),
        sandbox: identity.sandbox.clone(),
        seed: identity.seed,
        created_at_millis: identity.created_at.millis,
    }
}

fn identity(message: v1::Identity) -> Result<Identity, DecodeError> {
    Ok(Identity {
        name: message.name,
        title: message.title,
        agent: AgentRef { name: message.agent, version: message.agent_version },
        limits: limits("identity.limits", message.limits)?,
        sandbox: message.sandbox,
        seed: message.seed,
        created_at: Timestamp::from_millis(message.created_at_millis),
    })
}

fn workspace_message(workspace: &Workspace) -> v1::Workspace {
    v1::Workspace { seq: workspace.seq.0, snapshot: Some(blob_message(&workspace.snapshot)) }
}

fn workspace(message: v1::Workspace) -> Result<Workspace, DecodeError> {
    Ok(Workspace {
        seq: seq("workspace.seq", message.seq)?,
        snapshot: blob_ref("workspace.snapshot", message.snapshot)?,
    })
}

fn key_message((key, seq, digest): (&IdempotencyKey, Seq, Digest)) -> v1::KnownKey {
    v1::KnownKey { key: key.to_string(), seq: seq.0, digest: digest_or_nothing(digest) }
}

fn keys(messages: Vec<v1::KnownKey>) -> Result<KnownKeys, DecodeError> {
    if messages.len() > KnownKeys::COUNT_MAX {
        let number = messages.len() as u64;
        return Err(DecodeError::Range { field: "snapshot.keys", number });
    }
    let mut known = KnownKeys::default();
    for message in messages {
        let key = required("known_key.key", idempotency_option(message.key))?;
        if known.get(&key).is_some() {
            return Err(DecodeError::Twice { field: "snapshot.keys", key: key.to_string() });
        }
        let digest = digest_or_zero("known_key.digest", &message.digest)?;
        known.insert(&key, seq("known_key.seq", message.seq)?, digest);
    }
    Ok(known)
}

fn signal_message((seq, name): &(Seq, String)) -> v1::Signal {
    v1::Signal { seq: seq.0, name: name.clone() }
}

fn ended_message(ended: &Ended) -> v1::Ended {
    v1::Ended {
        execution: ended.exec.0,
        outcome: ended.outcome.clone(),
        reason: ended.reason.clone(),
        at_millis: ended.at.millis,
    }
}

fn ended(message: v1::Ended) -> Result<Ended, DecodeError> {
    Ok(Ended {
        exec: exec("ended.execution", message.execution)?,
        outcome: message.outcome,
        reason: message.reason,
        at: Timestamp::from_millis(message.at_millis),
    })
}

fn ask_message(id: AskId, open: &OpenAsk) -> v1::Ask {
    v1::Ask {
        ask: id.0,
        key: step_key_text(open.key.as_ref()),
        about: step_key_text(open.about.as_ref()),
        kind: ask_kind_number(open.kind),
        prompt: open.prompt.clone(),
        choices: open.choices.clone(),
        expires_at_millis: open.expires_at.map(|at| at.millis),
    }
}

fn asks(messages: Vec<v1::Ask>) -> Result<BTreeMap<AskId, OpenAsk>, DecodeError> {
    let mut asks = BTreeMap::new();
    for message in messages {
        let id = ask("ask.ask", message.ask)?;
        let open = OpenAsk {
            key: step_key_option(message.key),
            about: step_key_option(message.about),
            kind: ask_kind("ask.kind", message.kind)?,
            prompt: message.prompt,
            choices: message.choices,
            expires_at: message.expires_at_millis.map(Timestamp::from_millis),
        };
        if asks.insert(id, open).is_some() {
            return Err(DecodeError::Twice { field: "snapshot.asks", key: id.to_string() });
        }
    }
    Ok(asks)
}

fn answered_message(answered: &Answered) -> v1::Answered {
    let answer = Some(answer_message(&answered.answer));
    v1::Answered { ask: answered.ask.0, seq: answered.seq.0, answer }
}

fn answered(messages: Vec<v1::Answered>) -> Result<VecDeque<Answered>, DecodeError> {
    if messages.len() > Answered::COUNT_MAX {
        let number = messages.len() as u64;
        return Err(DecodeError::Range { field: "snapshot.answered", number });
    }
    let read = messages.into_iter().map(|message| {
        Ok(Answered {
            ask: ask("answered.ask", message.ask)?,
            seq: seq("answered.seq", message.seq)?,
            answer: answer("answered.answer", message.answer)?,
        })
    });
    read.collect()
}

fn collection_message((name, collection): (&String, &Collection)) -> v1::Collection {
    v1::Collection { name: name.clone(), base: collection.base.0, last: collection.last.0 }
}

fn collections(messages: Vec<v1::Collection>) -> Result<BTreeMap<String, Collection>, DecodeError> {
    if messages.len() > Collection::COUNT_MAX {
        let number = messages.len() as u64;
        return Err(DecodeError::Range { field: "snapshot.collections", number });
    }
    let mut collections = BTreeMap::new();
    for message in messages {
        let collection = Collection {
            base: seq_or_zero("collection.base", message.base)?,
            last: seq("collection.last", message.last)?,
        };
        if collections.insert(message.name.clone(), collection).is_some() {
            return Err(DecodeError::Twice { field: "snapshot.collections", key: message.name });
        }
    }
    Ok(collections)
}

/// Writes a time; one that never comes as nothing.
fn until_millis(time: Timestamp) -> Option<u64> {
    (time != Timestamp::NEVER).then_some(time.millis)
}

/// Reads a time; nothing means that it never comes.
fn until(millis: Option<u64>) -> Timestamp {
    millis.map_or(Timestamp::NEVER, Timestamp::from_millis)
}

fn exec_message(exec: &Exec) -> v1::Execution {
    let (phase, until) = match exec.phase {
        Phase::Running => (v1::Phase::Running, None),
        Phase::Backoff { until } => (v1::Phase::Backoff, until_millis(until)),
        Phase::Parked => (v1::Phase::Parked, None),
        Phase::Unresolved => (v1::Phase::Unresolved, None),
    };
    let blocks = exec.blocks.iter();
    let blocks = blocks.map(|(block, &deltas)| v1::Block { block: block.to_string(), deltas });
    v1::Execution {
        id: exec.id.0,
        input: exec.input.0,
        started_at_millis: exec.started_at.millis,
        attempt: exec.attempt.0,
        journal_from: exec.journal_from.0,
        continues: exec.continues.iter().map(|id| id.0).collect(),
        failures: exec.failures,
        losses: exec.losses,
        usage: usage_message(&exec.usage),
        phase: phase.into(),
        until_millis: until,
        items: exec.items.iter().map(|(key, item)| item_message(key, item)).collect(),
        blocks: blocks.collect(),
        block_count: exec.block_count,
    }
}

fn execution(message: v1::Execution) -> Result<Exec, DecodeError> {
    let continues = message.continues.into_iter().map(|id| exec("execution.continues", id));
    let mut items = Items::default();
    for item in message.items {
        let (key, item) = recorded(item)?;
        if items.insert(&key, item).is_some() {
            return Err(DecodeError::Twice { field: "execution.items", key: key.to_string() });
        }
    }
    let mut blocks = BTreeMap::new();
    for message in message.blocks {
        let name = block("block.block", message.block)?;
        if blocks.insert(name.clone(), message.deltas).is_some() {
            return Err(DecodeError::Twice { field: "execution.blocks", key: name.to_string() });
        }
    }
    Ok(Exec {
        id: exec("execution.id", message.id)?,
        input: seq("execution.input", message.input)?,
        started_at: Timestamp::from_millis(message.started_at_millis),
        attempt: AttemptId(below_max("execution.attempt", message.attempt)?),
        journal_from: seq("execution.journal_from", message.journal_from)?,
        continues: continues.collect::<Result<_, DecodeError>>()?,
        failures: message.failures,
        losses: message.losses,
        usage: usage(message.usage),
        phase: phase(message.phase, message.until_millis)?,
        items,
        blocks,
        block_count: message.block_count,
    })
}

fn phase(number: i32, until_millis: Option<u64>) -> Result<Phase, DecodeError> {
    let field = "execution.phase";
    match v1::Phase::try_from(number) {
        Ok(v1::Phase::Running) => Ok(Phase::Running),
        Ok(v1::Phase::Backoff) => Ok(Phase::Backoff { until: until(until_millis) }),
        Ok(v1::Phase::Parked) => Ok(Phase::Parked),
        Ok(v1::Phase::Unresolved) => Ok(Phase::Unresolved),
        Ok(v1::Phase::Unspecified) => Err(DecodeError::Missing { field }),
        Err(_) => Err(DecodeError::Unknown { field, number }),
    }
}

fn item_message(key: &StepKey, item: &Item) -> v1::Item {
    let item = match item {
        Item::Step(step) => ItemMessage::Step(step_message(step)),
        Item::Output(seq) => ItemMessage::Output(seq.0),
        Item::Ask(ask) => ItemMessage::Ask(ask.0),
        Item::AskDone(ask, seq) => ItemMessage::AskDone(v1::AskDone { ask: ask.0, seq: seq.0 }),
        Item::Sleep(due_at, fired) => ItemMessage::Sleep(v1::SleepItem {
            due_at_millis: due_at.millis,
            fired: fired.map_or(0, |seq| seq.0),
        }),
        Item::Signal(name, delivery) => {
            let (delivered, signal) = delivery.map_or((0, 0), |(at, signal)| (at.0, signal.0));
            ItemMessage::Signal(v1::SignalItem { name: name.clone(), delivered, signal })
        }
        Item::Note(seq) => ItemMessage::Note(seq.0),
        Item::Checkpoint(seq) => ItemMessage::Checkpoint(seq.0),
    };
    v1::Item { key: key.to_string(), item: Some(item) }
}

fn recorded(message: v1::Item) -> Result<(StepKey, Item), DecodeError> {
    let key = step_key("item.key", message.key)?;
    let item = match required("item.item", message.item)? {
        ItemMessage::Step(message) => Item::Step(step(message)?),
        ItemMessage::Output(at) => Item::Output(seq("item.output", at)?),
        ItemMessage::Ask(id) => Item::Ask(ask("item.ask", id)?),
        ItemMessage::AskDone(done) => {
            Item::AskDone(ask("ask_done.ask", done.ask)?, seq("ask_done.seq", done.seq)?)
        }
        ItemMessage::Sleep(sleep) => Item::Sleep(
            Timestamp::from_millis(sleep.due_at_millis),
            seq_option("sleep_item.fired", sleep.fired)?,
        ),
        ItemMessage::Signal(wait) => {
            let delivered = seq_option("signal_item.delivered", wait.delivered)?;
            let delivery = match delivered {
                Some(at) => Some((at, seq("signal_item.signal", wait.signal)?)),
                None => None,
            };
            Item::Signal(wait.name, delivery)
        }
        ItemMessage::Note(at) => Item::Note(seq("item.note", at)?),
        ItemMessage::Checkpoint(at) => Item::Checkpoint(seq("item.checkpoint", at)?),
    };
    Ok((key, item))
}

fn step_message(step: &Step) -> v1::StepItem {
    let mut message = v1::StepItem {
        kind: step_kind_number(step.kind),
        name: step.name.clone(),
        effect: effect_number(step.effect),
        digest: digest_bytes(step.digest),
        ..v1::StepItem::default()
    };
    let phase = match step.phase {
        StepPhase::Open { since, due_at, limit_millis } => {
            message.seq = since.0;
            message.due_at_millis = until_millis(due_at);
            message.limit_millis = limit_millis;
            v1::StepPhase::Open
        }
        StepPhase::Lost => v1::StepPhase::Lost,
        StepPhase::Unknown => v1::StepPhase::Unknown,
        StepPhase::Doubt => v1::StepPhase::Doubt,
        StepPhase::Done(seq) => {
            message.seq = seq.0;
            v1::StepPhase::Done
        }
    };
    message.phase = phase.into();
    message
}

fn step(message: v1::StepItem) -> Result<Step, DecodeError> {
    let (field, number) = ("step_item.phase", message.phase);
    let phase = match v1::StepPhase::try_from(number) {
        Ok(v1::StepPhase::Open) => StepPhase::Open {
            since: seq("step_item.seq", message.seq)?,
            due_at: until(message.due_at_millis),
            limit_millis: message.limit_millis,
        },
        Ok(v1::StepPhase::Lost) => StepPhase::Lost,
        Ok(v1::StepPhase::Unknown) => StepPhase::Unknown,
        Ok(v1::StepPhase::Doubt) => StepPhase::Doubt,
        Ok(v1::StepPhase::Done) => StepPhase::Done(seq("step_item.seq", message.seq)?),
        Ok(v1::StepPhase::Unspecified) => return Err(DecodeError::Missing { field }),
        Err(_) => return Err(DecodeError::Unknown { field, number }),
    };
    Ok(Step {
        kind: step_kind("step_item.kind", message.kind)?,
        name: message.name,
        effect: effect("step_item.effect", message.effect)?,
        digest: digest("step_item.digest", &message.digest)?,
        phase,
    })
}
