//! The oracles that look at everything that was left behind.

mod effects;
mod session;

use crate::client::{Fact, Known, named};
use crate::life::World;
use crate::prng;
use ax_core::id::{Namespace, Seq, SessionKey};
use ax_core::session::{Event, Kind};
use ax_engine::{Code, Engine, codec};
use std::collections::BTreeMap;

/// The whole log of a session.
pub(crate) struct Book {
    pub(crate) key: SessionKey,
    pub(crate) events: Vec<Event>,
    pub(crate) hashes: Vec<u64>,
}

impl Book {
    pub(crate) fn event(&self, seq: Seq) -> Option<&Event> {
        self.events.get(usize::try_from(seq.0.checked_sub(1)?).ok()?)
    }

    /// Goes through the events, with their positions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Seq, &Event)> {
        (1..).map(Seq).zip(&self.events)
    }

    /// The position of the last event that it shares with its parent.
    pub(crate) fn shared(&self) -> Seq {
        let branched = self.iter().filter_map(|(_, event)| match event.kind {
            Kind::SessionBranched { at, .. } => Some(at),
            _ => None,
        });
        branched.last().unwrap_or_default()
    }
}

pub(crate) fn namespaces() -> [Namespace; 2] {
    [Namespace::default(), Namespace::new("other").expect("a name")]
}

/// Looks at everything.
pub(crate) async fn audit(world: &World, engine: &Engine) {
    let known = {
        let known = world.known.lock().expect("no holder of the lock panics");
        (known.sessions.clone(), known.deleted.clone(), known.doomed.clone())
    };
    let (sessions, deleted, doomed) = known;
    let mut books = BTreeMap::new();
    for key in sessions {
        match read(world, engine, &key).await {
            Some(book) => {
                if deleted.contains(&key) {
                    world.outside.fail(format!("E1 acknowledged: {key} was deleted, is there"));
                }
                books.insert(key, book);
            }
            None if doomed.contains(&key) => {}
            None => world.outside.fail(format!("E1 acknowledged: {key} is lost")),
        }
    }
    for book in books.values() {
        for (_, event) in book.iter().skip_while(|(seq, _)| *seq <= book.shared()) {
            world.coverage.count(&format!("event: {}", event.kind.name()));
            if format!("{:?}", event.kind).contains("blob_") {
                world.coverage.count("event: with content in a blob");
            }
        }
        session::check(world, book);
        effects::check(world, book);
        branch(world, book);
    }
    let known = world.known.lock().expect("no holder of the lock panics");
    acknowledged(world, &known, &books);
    followed(world, &books);
}

/// Adds the logs of the sessions that something is wrong with to what is wrong.
pub(crate) async fn tell(world: &World, engine: &Engine) {
    let wrong = world.outside.lock().failures.join(" ");
    let sessions = world.known.lock().expect("no holder of the lock panics").sessions.clone();
    for key in sessions {
        if !wrong.contains(&key.session.to_string()) {
            continue;
        }
        let Some(book) = read(world, engine, &key).await else { continue };
        let lines = book.iter().map(|(seq, event)| {
            let (exec, attempt) =
                (event.exec.unwrap_or_default(), event.attempt.unwrap_or_default());
            format!("#{seq} {} {exec}/{attempt} {:?}", event.at, event.kind)
        });
        let lines: Vec<_> = lines.collect();
        let acts = world.outside.lock().acts.clone();
        let acts = acts.iter().filter(|act| act.session == key).map(|act| format!("{act:?}"));
        let acts: Vec<_> = acts.collect();
        let story = format!("{key}:\n{}\n{}", lines.join("\n"), acts.join("\n"));
        world.outside.lock().failures.push(story);
    }
}

/// E2 followed: reading page by page gives every event once.
async fn read(world: &World, engine: &Engine, key: &SessionKey) -> Option<Book> {
    let mut book = Book { key: key.clone(), events: Vec::new(), hashes: Vec::new() };
    let mut after = Seq::ZERO;
    loop {
        let page = match engine.events(&key.namespace, &named(key), after, 7).await {
            Ok(page) => page,
            Err(error) => {
                if error.code != Code::NoSession {
                    world.outside.fail(format!("E1 acknowledged: {key} after {after}: {error:?}"));
                }
                return None;
            }
        };
        if page.events.is_empty() {
            if after != page.last {
                world.outside.fail(format!("E2 followed: {key} ends at {after}, {}", page.last));
            }
            return Some(book);
        }
        for (seq, payload) in page.events {
            if seq != after.next() {
                world.outside.fail(format!("E2 followed: {key} has {seq} after {after}"));
            }
            after = seq;
            world.outside.shown(key, seq, &payload);
            book.hashes.push(prng::hash(&payload));
            match codec::decode_event(&payload) {
                Ok(event) => book.events.push(event),
                Err(error) => {
                    world.outside.fail(format!("E3 immutable: {seq} of {key}: {error}"));
                    return None;
                }
            }
        }
    }
}

/// E1 acknowledged: what a client was told is durable is there.
fn acknowledged(world: &World, known: &Known, books: &BTreeMap<SessionKey, Book>) {
    for (key, seq, fact) in &known.facts {
        let Some(book) = books.get(key) else { continue };
        let right = match (fact, book.event(*seq).map(|event| &event.kind)) {
            (Fact::Input { text, key }, Some(Kind::InputReceived { parts, key: found, .. })) => {
                let said = ax_core::session::Part::text(text.clone());
                parts == &[said] && found.as_ref().map(ToString::to_string) == *key
            }
            (Fact::Answered, Some(Kind::AskAnswered { .. })) => true,
            (Fact::Signaled(name), Some(Kind::SignalReceived { name: found, .. })) => name == found,
            (Fact::Titled(title), Some(Kind::SessionRenamed { title: found })) => title == found,
            (Fact::Checkpoint(name), Some(Kind::CheckpointCreated { name: found, .. })) => {
                name == found
            }
            (Fact::Branched(from), Some(Kind::SessionBranched { parent, at, .. })) => {
                parent == from && at.next() == *seq
            }
            _ => false,
        };
        if !right {
            let found = book.event(*seq);
            let what = format!("E1 acknowledged: {fact:?} at {seq} of {key} is {found:?}");
            world.outside.fail(what);
        }
    }
}

/// E2 followed: every follower has seen it all.
fn followed(world: &World, books: &BTreeMap<SessionKey, Book>) {
    for (key, follower) in &world.followers {
        let memory = follower.memory();
        let Some(book) = books.get(key) else { continue };
        let last = Seq(book.events.len() as u64);
        let hash = book.hashes.iter().fold(0, |hash, event| prng::mix(hash ^ event));
        if memory.last != last || memory.hash != hash || memory.ended {
            let (at, ended) = (memory.last, memory.ended);
            drop(memory);
            let what = format!("E2 followed: {key} ends at {last}, was seen to {at}, {ended}");
            world.outside.fail(what);
        }
    }
}

/// E7 branched: a branch begins with exactly the prefix that it was made from.
fn branch(world: &World, book: &Book) {
    let Some((at, parent)) = book.iter().find_map(|(_, event)| match event.kind {
        Kind::SessionBranched { at, parent, .. } if at == book.shared() => Some((at, parent)),
        _ => None,
    }) else {
        return;
    };
    let parent = SessionKey::new(book.key.namespace.clone(), parent);
    let state = world.outside.lock();
    let Some(seen) = state.history.get(&parent) else { return };
    let differs = book
        .hashes
        .iter()
        .zip(1..=at.0)
        .find(|(hash, seq)| seen.get(&Seq(*seq)).is_some_and(|before| before != *hash));
    let differs = differs.map(|(_, seq)| seq);
    drop(state);
    if let Some(seq) = differs {
        let what = format!("E7 branched: {} differs from {parent} at {seq}", book.key);
        world.outside.fail(what);
    }
}
