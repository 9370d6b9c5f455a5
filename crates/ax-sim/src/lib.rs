//! The whole of Agent Executor under a seed: the real core, engine and log over a disk, a clock,
//! harnesses and people that are made up, and fail.
//!
//! It is not a test of any one crate, and it looks at nothing from within: everything it knows it
//! was told by the engine, as a client or a follower is, or saw happen outside, as a harness does.
//!
//! A run is a row of lives of the runtime. Each is cut short by a fate: killed after so many things
//! have happened or at a time, the power failing in the middle of a write, writes or syncs that
//! fail, a full disk, a gentle stop; the clock is set forward and back meanwhile. The last one is
//! left in peace, and everything that waits is served until it ends. Then the oracles look at all
//! that is left. The same seed gives the same run: every seed runs twice, and must agree.
//!
//! | id  | name         | oracle                                                                  |
//! |-----|--------------|-------------------------------------------------------------------------|
//! | E1  | acknowledged | what a client was told is durable is there, through every crash         |
//! | E2  | followed     | every follower saw every event once, in order, however often it broke   |
//! | E3  | immutable    | an event that anybody was shown never changes, and is never taken back  |
//! | E4  | named-wait   | after a quiet while each session has ended or waits for a named thing,  |
//! |     |              | and ends when it is given what it waits for                             |
//! | E5  | alone        | at most one attempt of a session acts, and none is heard that is over   |
//! | E6  | effects      | a `once` step has its effect once, unless a person says again; it rests |
//! |     |              | on durable intent, and what came of it is said; what is done stays done |
//! | E7  | branched     | a branch begins with exactly the prefix that it was made from           |
//! | E8  | idempotent   | a request with a key is recorded once, and answered the same            |
//! | E9  | opened       | the store can always be opened again                                    |
//! | E10 | listed       | lists show what is there, and what it is                                |
//! | E11 | asleep       | what waits or has ended has no task                                     |
//! | E12 | in-time      | time does not go back within a session                                  |
//! | E13 | sound        | nothing panics                                                          |
//! | E17 | placed       | no more attempts are alive than there are places                        |
//!
//! Start with [`run`]; [`run_shared`] runs several processes on one store, with oracles of its own.

mod audit;
mod client;
mod coverage;
mod follower;
mod harness;
mod life;
mod op;
mod outside;
mod prng;
mod program;
mod seams;
mod settle;
mod shared;

pub use shared::{check_shared, run_shared};

use ax_log::embedded::fake::FakeDisk;
use ax_store::Blobs;
use client::{Client, Known};
use coverage::Coverage;
pub use coverage::missing;
use life::{Fate, World};
use outside::Outside;
use prng::Prng;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, Once};

/// How many things clients do in a run, unless it is said otherwise.
pub const STEPS_DEFAULT: u64 = 60;
/// The most lives of a run.
const LIVES_MAX: u64 = 12;
/// How many clients there are.
const CLIENTS: usize = 4;

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Lives of the runtime.
    pub lives: u64,
    /// Sessions that came to be.
    pub sessions: u64,
    /// Events that were recorded in them.
    pub events: u64,
    /// Attempts that were launched.
    pub attempts: u64,
    /// Effects on the outside.
    pub effects: u64,
    /// How often followers came back.
    pub resumes: u64,
    /// A hash of everything that was recorded, seen and done.
    pub trace: u64,
    /// How often each request had each outcome.
    pub tally: BTreeMap<String, u64>,
    /// How often the code under it did each thing that has to be tried.
    pub reached: BTreeMap<String, u64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} lives, {} sessions, {} events, {} attempts, {} effects, {} resumes, trace {:016x}",
            self.lives,
            self.sessions,
            self.events,
            self.attempts,
            self.effects,
            self.resumes,
            self.trace
        )
    }
}

/// Runs a seed twice.
///
/// # Errors
///
/// Returns what is wrong: what an oracle saw, or that the two runs differ.
pub fn check(seed: u64, steps: u64) -> Result<Report, Vec<String>> {
    let first = run(seed, steps)?;
    let second = run(seed, steps)?;
    if first == second {
        return Ok(first);
    }
    Err(vec![format!("the same seed gave {first} and {second}")])
}

/// Runs a seed once.
///
/// # Errors
///
/// Returns what the oracles saw.
///
/// # Panics
///
/// Panics if there is no place for temporary files.
pub fn run(seed: u64, steps: u64) -> Result<Report, Vec<String>> {
    let dir = tempfile::tempdir().expect("a place for temporary files");
    let mut prng = Prng::new(seed);
    let (outside, known) = (Outside::default(), Arc::new(Mutex::new(Known::default())));
    let clients = (0..CLIENTS).map(|number| {
        let left = steps / CLIENTS as u64;
        Client::new(number, Prng::new(prng.number()), left, &known, &outside)
    });
    let clients = clients.collect();
    let mut world = World {
        seed,
        disk: FakeDisk::new(prng.number()),
        coverage: Coverage::default(),
        blobs: Blobs::memory(),
        data_dir: dir.path().to_owned(),
        outside,
        known,
        clients,
        followers: BTreeMap::new(),
        now_millis: 1_700_000_000_000,
        story: Vec::new(),
        prng,
    };
    let lives = watched(|| live(&mut world));
    let report = report(&world, *lives.as_ref().unwrap_or(&0));
    let mut failures = std::mem::take(&mut world.outside.lock().failures);
    failures.extend(lives.err().unwrap_or_default());
    if failures.is_empty() {
        return Ok(report);
    }
    failures.push(format!("its lives: {}", world.story.join("; ")));
    Err(failures)
}

fn live(world: &mut World) -> u64 {
    let mut lives = 0;
    while lives < LIVES_MAX && world.outside.is_sound() {
        let done = world.clients.iter().all(Client::is_done);
        if done && world.prng.chance(60) {
            break;
        }
        let fate = Fate::draw(&mut world.prng);
        world.live(fate);
        lives += 1;
    }
    if world.outside.is_sound() {
        world.live(Fate::Peace);
    }
    lives + 1
}

fn report(world: &World, lives: u64) -> Report {
    let state = world.outside.lock();
    let known = world.known.lock().expect("no holder of the lock panics");
    let acts = state.acts.iter().map(|act| prng::hash(format!("{act:?}").as_bytes()));
    let mut trace = acts.fold(0, |trace, act| prng::mix(trace ^ act));
    for (session, history) in &state.history {
        trace = prng::mix(trace ^ prng::hash(session.to_string().as_bytes()));
        trace = history.values().fold(trace, |trace, event| prng::mix(trace ^ event));
    }
    let facts = known.facts.iter().map(|fact| prng::hash(format!("{fact:?}").as_bytes()));
    trace = facts.fold(trace, |trace, fact| prng::mix(trace ^ fact));
    let followers: Vec<_> = world.followers.values().collect();
    Report {
        lives,
        sessions: state.history.len() as u64,
        events: state.history.values().map(|history| history.len() as u64).sum(),
        attempts: state.attempts,
        effects: state.acts.len() as u64,
        resumes: followers.iter().map(|follower| follower.memory().resumes).sum(),
        trace,
        tally: known.tally.clone(),
        reached: world.coverage.counts(),
    }
}

thread_local! {
    /// What panicked on this thread, if that is watched.
    static PANICS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// E13 sound: runs something, and returns what panicked meanwhile, also in tasks.
fn watched<T>(work: impl FnOnce() -> T) -> Result<T, Vec<String>> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let noted = PANICS.with_borrow_mut(|panics| {
                panics.as_mut().map(|panics| panics.push(format!("E13 sound: {info}")))
            });
            if noted.is_none() {
                before(info);
            }
        }));
    });
    PANICS.set(Some(Vec::new()));
    let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    let panics = PANICS.take().unwrap_or_default();
    match worked {
        Ok(worked) if panics.is_empty() => Ok(worked),
        _ => Err(panics),
    }
}
