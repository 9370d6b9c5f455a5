//! Walks the worlds, and checks the invariants on the way.

mod check;

use super::common::{self, Command};
use ax_core::id::Seq;
use ax_core::session::{Accepted, Effect, Event, Input, Ready, Refusal, Session};
use ax_core::time::Timestamp;
use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::hash::Hasher as _;

/// Everything that makes one world.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) session: Session,
    pub(crate) log: Vec<Event>,
    /// What was released, and how long the log was then.
    pub(crate) released: Vec<(usize, Effect)>,
    pub(crate) now: Timestamp,
    manual: bool,
    path: Vec<&'static str>,
}

/// What came of one input.
pub(crate) struct Outcome {
    pub(crate) input: Input,
    pub(crate) answer: Result<Accepted, Refusal>,
    pub(crate) ready: Ready,
}

/// Worlds to walk.
pub(crate) struct Walk {
    start: World,
    alphabet: &'static [&'static str],
    depth: usize,
}

impl Walk {
    pub(crate) fn from(
        beginning: &[&'static str],
        alphabet: &'static [&'static str],
        depth: usize,
    ) -> Self {
        assert!(alphabet.len() >= 25, "a world is worth walking");
        let session = Session::replay([]);
        let now = Timestamp::from_millis(1_000);
        let (log, released) = (Vec::new(), Vec::new());
        let mut start = World { session, log, released, now, manual: false, path: Vec::new() };
        for line in beginning {
            start.step(line);
        }
        Self { start, alphabet, depth }
    }

    /// Walks all of them. `states_min` says that the alphabet still leads somewhere.
    pub(crate) fn check(self, states_min: usize) {
        let mut seen = BTreeSet::new();
        let mut edge = vec![self.start];
        let mut count = 0;
        for _ in 0..self.depth {
            let mut next = Vec::new();
            for world in &edge {
                for line in self.alphabet {
                    let mut world = world.clone();
                    world.step(line);
                    count += 1;
                    if seen.insert(world.fingerprint()) {
                        check::state(&world);
                        next.push(world);
                    }
                }
            }
            edge = next;
        }
        let states = seen.len();
        assert!(states >= states_min, "only {states} states were found in {count} transitions");
    }
}

impl World {
    fn step(&mut self, line: &'static str) {
        self.path.push(line);
        match common::parse(line, &self.session, self.now) {
            Command::Feed(input) => self.feed(*input),
            Command::Wait(millis) => self.wait(millis),
            Command::Back(millis) => self.now.millis -= millis.min(self.now.millis),
            Command::Manual => self.manual = true,
            Command::Persisted(seq) => self.persist(seq),
            Command::Crash => {
                self.log.truncate(usize::try_from(self.session.durable().0).unwrap());
                self.session = Session::replay(&self.log);
                self.feed(Input::Recover);
            }
        }
    }

    fn persist(&mut self, seq: Option<Seq>) {
        let last = seq.unwrap_or_else(|| self.session.state().last);
        if self.session.durable() < last {
            self.feed(Input::Persisted(last));
        }
    }

    fn feed(&mut self, input: Input) {
        let before = self.clone();
        let answer = self.session.handle(self.now, &input);
        let ready = self.session.take_ready();
        self.log.extend(ready.persist.iter().cloned());
        let outcome = Outcome { input, answer, ready };
        check::transition(&before, self, &outcome);
        let at = self.log.len();
        self.released.extend(outcome.ready.effects.into_iter().map(|effect| (at, effect)));
        if !self.manual {
            self.persist(None);
        }
    }

    fn wait(&mut self, millis: u64) {
        let end = self.now.plus_millis(millis);
        while let Some(due) = self.session.deadline(self.now).filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let before = self.log.len();
            self.feed(Input::Tick);
            assert!(self.log.len() > before, "I13 deadline-acts: {:?}", self.path);
        }
        self.now = end;
    }

    /// Returns a hash of what decides the future.
    fn fingerprint(&self) -> u64 {
        let mut text = String::new();
        write!(text, "{:?} {}", self.session, self.now).unwrap();
        let mut hasher = DefaultHasher::new();
        hasher.write(text.as_bytes());
        hasher.finish()
    }

    /// Says how the world came about.
    pub(crate) fn story(&self) -> String {
        let mut story = self.path.join("\n");
        for (at, event) in self.log.iter().enumerate() {
            write!(story, "\n#{} {event:?}", at + 1).unwrap();
        }
        story
    }
}
