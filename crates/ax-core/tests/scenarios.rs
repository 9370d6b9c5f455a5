//! Plays `scenarios/*.txt`: a block is commands, then `----`, then what the machine answered.
//!
//! The language is that of `common`. Write the commands of a new scenario, run with
//! `UPDATE_EXPECT=1`, **read** the answers, commit.
//!
//! Beside the answers, each scenario is crashed at every position: what is replayed is what was
//! there, is stored and restored from everywhere, recovers, and branches.
#![expect(clippy::unwrap_used, reason = "a test")]

mod common;

use ax_core::id::SessionId;
use ax_core::session::{
    Accepted, Caller, Event, Input, Kind, Phase, Ready, Request, Session, State, Usage,
};
use ax_core::time::Timestamp;
use common::Command;
use std::fmt::Write as _;
use std::{fs, path::Path};

#[test]
fn scenarios() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        let actual = play(&fs::read_to_string(&path).unwrap());
        expect_test::expect_file![path].assert_eq(&actual);
    }
}

fn play(script: &str) -> String {
    let mut world = World::default();
    let mut out = String::new();
    for block in script.split("\n\n") {
        let commands = block.split("\n----").next().unwrap().trim();
        if commands.is_empty() {
            continue;
        }
        writeln!(out, "{commands}\n----").unwrap();
        for line in commands.lines().filter(|line| !line.starts_with('#')) {
            world.run(line, &mut out);
        }
        out.push('\n');
    }
    world.crash_everywhere();
    out.pop();
    out
}

struct World {
    session: Session,
    log: Vec<Event>,
    /// The state after each event.
    states: Vec<State>,
    /// Where a batch of events ends: only there can a crash leave the log.
    batches: Vec<usize>,
    now: Timestamp,
    manual: bool,
}

impl Default for World {
    fn default() -> Self {
        let now = Timestamp::from_millis(1_000);
        let session = Session::replay([]);
        let states = vec![State::default()];
        Self { session, log: Vec::new(), states, batches: vec![0], now, manual: false }
    }
}

impl World {
    fn run(&mut self, line: &str, out: &mut String) {
        match common::parse(line, &self.session, self.now) {
            Command::Feed(input) => self.feed(&input, out),
            Command::Wait(millis) => self.wait(millis, out),
            Command::Back(millis) => self.now.millis -= millis,
            Command::Manual => self.manual = true,
            Command::Persisted(seq) => {
                let last = self.session.state().last;
                self.feed(&Input::Persisted(seq.unwrap_or(last)), out);
            }
            Command::Crash => self.crash(out),
        }
    }

    fn feed(&mut self, input: &Input, out: &mut String) {
        let before = self.session.state().clone();
        match self.session.handle(self.now, input) {
            Err(refusal) => {
                writeln!(out, "refused: {refusal}").unwrap();
                assert_eq!(before, *self.session.state(), "a refusal changes nothing");
            }
            Ok(accepted @ (Accepted::Before(_) | Accepted::Branch(_))) => {
                writeln!(out, "accepted {accepted:?}").unwrap();
            }
            Ok(Accepted::At(_) | Accepted::Nothing) => {}
        }
        self.drain(out);
        if !self.manual && self.session.durable() < self.session.state().last {
            let last = self.session.state().last;
            self.session.handle(self.now, &Input::Persisted(last)).unwrap();
            self.drain(out);
        }
    }

    fn wait(&mut self, millis: u64, out: &mut String) {
        let end = self.now.plus_millis(millis);
        while let Some(due) = self.session.deadline(self.now).filter(|due| *due <= end) {
            let before = self.log.len();
            self.now = self.now.max(due);
            writeln!(out, "{}", self.now).unwrap();
            self.feed(&Input::Tick, out);
            assert!(self.log.len() > before, "a deadline that is reached does something");
        }
        self.now = end;
    }

    /// Loses what is not durable, and starts again.
    fn crash(&mut self, out: &mut String) {
        let kept = usize::try_from(self.session.durable().0).unwrap();
        assert!(self.batches.contains(&kept), "batches are atomic");
        self.log.truncate(kept);
        self.states.truncate(kept + 1);
        self.batches.retain(|end| *end <= kept);
        self.session = Session::replay(&self.log);
        self.feed(&Input::Recover, out);
    }

    fn drain(&mut self, out: &mut String) {
        let Ready { persist, effects } = self.session.take_ready();
        for event in persist {
            writeln!(out, "persist {}", shown(self.log.len() + 1, &event)).unwrap();
            let mut state = self.states.last().unwrap().clone();
            state.apply(&event);
            self.states.push(state);
            self.log.push(event);
        }
        if *self.batches.last().unwrap() < self.log.len() {
            self.batches.push(self.log.len());
        }
        assert_eq!(*self.session.state(), *self.states.last().unwrap());
        for effect in effects {
            writeln!(out, "effect {effect:?}").unwrap();
        }
    }

    /// What a crash or a branch at any position finds.
    fn crash_everywhere(&self) {
        for kept in 0..=self.log.len() {
            let (log, tail) = self.log.split_at(kept);
            let replayed = Session::replay(log);
            assert_eq!(*replayed.state(), self.states[kept], "the prefix up to {kept}");
            let restored = Session::restore(self.states[kept].clone(), tail);
            assert_eq!(*restored.state(), *self.states.last().unwrap(), "restored from {kept}");
            if self.batches.contains(&kept) {
                self.recover(replayed);
            }
            if kept > 0 && !self.states[kept].deleted {
                self.branch(log, true);
                self.branch(log, false);
            }
        }
    }

    fn recover(&self, mut session: Session) {
        session.handle(self.now, &Input::Recover).unwrap();
        assert!(!is_stuck(&session, self.now), "{:#?}", session.state());
    }

    fn branch(&self, log: &[Event], carry_on: bool) {
        let mut session = Session::replay(log);
        let at = session.state().last;
        let request = Request::Branch { parent: SessionId(1), at, carry_on, seed: 1 };
        session.handle(self.now, &Input::Client(Caller::default(), request)).unwrap();
        assert!(!is_stuck(&session, self.now), "{:#?}", session.state());
        let ready = session.take_ready();
        let raised = ready.persist.iter().filter(|e| matches!(e.kind, Kind::AskRaised { .. }));
        assert_eq!(session.state().asks.len(), raised.count(), "no question is inherited");
        let replayed = Session::replay(log.iter().chain(&ready.persist));
        assert_eq!(replayed.state(), session.state());
    }
}

/// Whether nothing that has a name will make the session go on.
fn is_stuck(session: &Session, now: Timestamp) -> bool {
    let state = session.state();
    let Some(exec) = &state.exec else { return !state.queue.is_empty() && !state.deleted };
    let waits = exec.phase == Phase::Running || !state.asks.is_empty() || exec.is_waiting();
    !waits && session.deadline(now).is_none()
}

fn shown(seq: usize, event: &Event) -> String {
    let mut out = format!("#{seq}");
    if let Some(exec) = event.exec {
        write!(out, " {exec}").unwrap();
    }
    if let Some(attempt) = event.attempt {
        write!(out, "/{attempt}").unwrap();
    }
    let who = format!("{:?}", event.actor).to_lowercase();
    let who = if event.principal.is_empty() { who } else { format!("{who} {}", event.principal) };
    match &event.kind {
        Kind::SessionCreated { agent, .. } => {
            write!(out, " by {who}: SessionCreated {{ agent: {}@{} }}", agent.name, agent.version)
        }
        kind => write!(out, " by {who}: {kind:?}"),
    }
    .unwrap();
    // What is nothing is not shown.
    let nothing = format!("{:?}", Usage::default());
    out.replace(&format!(", usage: {nothing}"), "")
}
