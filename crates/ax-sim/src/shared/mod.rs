//! Several processes on one store, under a seed: each a real engine on a real [`SharedLog`].
//!
//! Each process lives in a runtime of its own, so that it can stand still (for less than a lease,
//! or much longer), be killed, be asked to stop, and have a clock that is wrong, jumps, and goes at
//! its own speed. Statements to the store are late, come twice, are lost with or without having
//! been carried out, or arrive when their sender is long gone. Clients and followers go from
//! process to process. In the end one process is left, takes over everything, and all that waits
//! is served, as in the simulation of one process, whose oracles hold as well.
//!
//! | id  | name    | oracle                                                                      |
//! |-----|---------|-----------------------------------------------------------------------------|
//! | S1  | fenced  | one event a position; none of an epoch after a newer one was granted        |
//! | S2  | leased  | a lease is taken after it lapsed or was given back, and never comes back    |
//! | S3  | gated   | nothing is done outside for a session while another process has its lease   |
//!
//! [`SharedLog`]: ax_log::SharedLog

mod network;
mod process;

use crate::client::{Client, Known};
use crate::life::{World, patience};
use crate::op::AGENTS;
use crate::outside::Outside;
use crate::prng::Prng;
use crate::{CLIENTS, Report, settle, watched};
use ax_core::id::SessionKey;
use ax_log::embedded::fake::FakeDisk;
use ax_store::Blobs;
use network::Network;
use process::{LEASE_MILLIS, Process};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::sleep;

/// How many processes there are at a time.
const PROCESSES: usize = 3;
/// How long the storm lasts, in milliseconds of the world.
const STORM_MILLIS: u64 = 40_000;
/// The longest time between two looks at the network, in milliseconds.
const TICK_MILLIS_MAX: u64 = 24;

/// Runs a seed twice with several processes.
///
/// # Errors
///
/// Returns what is wrong: what an oracle saw, or that the two runs differ.
pub fn check_shared(seed: u64, steps: u64) -> Result<Report, Vec<String>> {
    let first = run_shared(seed, steps)?;
    let second = run_shared(seed, steps)?;
    if first == second {
        return Ok(first);
    }
    Err(vec![format!("the same seed gave {first} and {second}")])
}

/// Runs a seed once with several processes.
///
/// # Errors
///
/// Returns what the oracles saw.
///
/// # Panics
///
/// Panics if there is no place for temporary files.
pub fn run_shared(seed: u64, steps: u64) -> Result<Report, Vec<String>> {
    let dir = tempfile::tempdir().expect("a place for temporary files");
    let mut prng = Prng::of(seed, "shared");
    let (outside, known) = (Outside::default(), Arc::new(Mutex::new(Known::default())));
    let clients = (0..CLIENTS).map(|number| {
        let left = steps / CLIENTS as u64;
        Client::new(number, Prng::new(prng.number()), left, &known, &outside)
    });
    let clients = clients.collect();
    let mut world = World {
        seed,
        disk: FakeDisk::new(0),
        coverage: crate::coverage::Coverage::default(),
        blobs: Blobs::memory(),
        data_dir: dir.path().to_owned(),
        outside: outside.clone(),
        known,
        clients,
        followers: BTreeMap::new(),
        now_millis: 1_700_000_000_000,
        story: Vec::new(),
        prng,
    };
    let network = Network::new(seed, &outside);
    let lives = watched(|| {
        let lives = Storm::new(&mut world, &network).rage();
        if world.outside.is_sound() {
            calm(&mut world, &network);
        }
        lives
    });
    let mut report = crate::report(&world, *lives.as_ref().unwrap_or(&0));
    let (moves, refused) = network.tally();
    report.tally.insert("leases moved".into(), moves);
    report.tally.insert("statements fenced".into(), refused);
    let mut failures = std::mem::take(&mut world.outside.lock().failures);
    failures.extend(lives.err().unwrap_or_default());
    if failures.is_empty() {
        return Ok(report);
    }
    failures.push(format!("what befell it: {}", world.story.join("; ")));
    Err(failures)
}

/// The time in which things happen to processes.
struct Storm<'a> {
    world: &'a mut World,
    network: &'a Network,
    prng: Prng,
    /// The process of each seat, and when an empty one is taken again.
    seats: Vec<Result<Process, u64>>,
    /// Where each client is.
    at: Vec<usize>,
    /// The connection of each follower: one at a time, as a person has.
    following: BTreeMap<SessionKey, AbortHandle>,
    millis: u64,
    started: u32,
}

impl<'a> Storm<'a> {
    fn new(world: &'a mut World, network: &'a Network) -> Self {
        let prng = Prng::of(world.seed, "storm");
        let seats = (0..PROCESSES).map(|_| Err(0)).collect();
        let at = vec![0; world.clients.len()];
        let following = BTreeMap::new();
        Self { world, network, prng, seats, at, following, millis: 0, started: 0 }
    }

    /// Returns how many processes there were.
    fn rage(mut self) -> u64 {
        while self.millis < STORM_MILLIS && self.world.outside.is_sound() {
            self.fill_seats();
            let tick = self.prng.between(4, TICK_MILLIS_MAX);
            self.millis += tick;
            self.world.now_millis += tick;
            self.network.pass(tick);
            for process in self.seats.iter_mut().flatten() {
                process.pass(tick);
            }
            self.befall();
            self.move_people();
        }
        let mut prng = self.prng.clone();
        for process in self.seats.into_iter().flatten() {
            process.end(self.world, self.network, &mut prng);
        }
        u64::from(self.started)
    }

    fn note(&mut self, what: &str) {
        self.world.story.push(format!("{} {what}", self.millis));
    }

    fn fill_seats(&mut self) {
        for seat in 0..self.seats.len() {
            let stopped = match &self.seats[seat] {
                Ok(process) => process.has_stopped.load(Ordering::Relaxed),
                Err(at) => {
                    if *at <= self.millis {
                        let number = self.started;
                        self.started += 1;
                        let process = Process::start(self.world, self.network, number, false);
                        self.note(&format!("process {number} is {:x}", process.owner));
                        self.seats[seat] = Ok(process);
                    }
                    false
                }
            };
            if stopped {
                self.end(seat);
            }
        }
    }

    fn end(&mut self, seat: usize) {
        let pause = self.prng.below(2 * LEASE_MILLIS);
        let ended = std::mem::replace(&mut self.seats[seat], Err(self.millis + pause));
        if let Ok(process) = ended {
            self.note(&format!("process {} ends", process.number));
            process.end(self.world, self.network, &mut self.prng);
        }
    }

    /// Something happens to a process, about once in two seconds.
    fn befall(&mut self) {
        if !self.prng.chance(1) && !self.prng.chance(1) {
            return;
        }
        let seat = self.prng.index(self.seats.len());
        let Ok(process) = &mut self.seats[seat] else { return };
        let number = process.number;
        if self.prng.chance(50) {
            self.network.hold_up(number, self.prng.between(1, 3 * LEASE_MILLIS));
        }
        let what = match self.prng.below(20) {
            0..5 => {
                process.stands_still = self.prng.between(1, LEASE_MILLIS);
                format!("process {number} stands still for {}", process.stands_still)
            }
            5..12 => {
                process.stands_still = self.prng.between(LEASE_MILLIS, 4 * LEASE_MILLIS);
                format!("process {number} stands still for {}", process.stands_still)
            }
            12..14 => {
                let by = self.prng.below(20_000);
                if self.prng.chance(50) {
                    process.runtime.block_on(async { process.clock.set_forward(by) });
                } else {
                    process.runtime.block_on(async { process.clock.set_back(by) });
                }
                format!("the clock of {number} jumps by {by}")
            }
            14..18 => return self.end(seat),
            _ => {
                process.stop();
                format!("process {number} is asked to stop")
            }
        };
        self.note(&what);
    }

    /// Clients and followers go where something answers, and sometimes elsewhere.
    fn move_people(&mut self) {
        let agents = self.world.known.lock().expect("no holder panics").agents.len();
        if agents < 2 * AGENTS.len() {
            return;
        }
        for (number, client) in self.world.clients.iter().enumerate() {
            let lost = match &self.seats[self.at[number]] {
                Ok(process) => process.stands_still > 1_000 && self.prng.chance(10),
                Err(_) => true,
            };
            if client.is_new() || lost || client.is_astray() || self.prng.below(2_000) == 0 {
                let seat = self.prng.index(self.seats.len());
                if let Ok(process) = &self.seats[seat] {
                    self.at[number] = seat;
                    let (client, engine) = (client.visit(), process.engine.clone());
                    process.runtime.block_on(async {
                        drop(tokio::spawn(client.run(engine)));
                    });
                }
            }
        }
        if self.prng.chance(5) {
            self.move_followers();
        }
    }

    fn move_followers(&mut self) {
        let sessions = self.world.known.lock().expect("no holder panics").sessions.clone();
        for key in sessions {
            let is_new = !self.world.followers.contains_key(&key);
            if !is_new && !self.prng.chance(20) {
                continue;
            }
            let seat = self.prng.index(self.seats.len());
            if let Ok(process) = &self.seats[seat] {
                let (seed, outside) = (self.world.seed, &self.world.outside);
                let follower = self.world.followers.entry(key.clone());
                let follower =
                    follower.or_insert_with(|| crate::follower::Follower::new(seed, &key, outside));
                let (follower, engine) = (follower.visit(), process.engine.clone());
                let handle = process.runtime.block_on(async {
                    tokio::spawn(follower.run(engine, patience(false))).abort_handle()
                });
                if let Some(before) = self.following.insert(key, handle) {
                    before.abort();
                }
            }
        }
    }
}

/// One process is left. It takes over what the others had, and everything ends.
fn calm(world: &mut World, network: &Network) {
    let process = Process::start(world, network, u32::MAX, true);
    let engine = process.engine.clone();
    process.runtime.block_on(async {
        // Whoever is gone has let go by then.
        sleep(Duration::from_millis(2 * LEASE_MILLIS)).await;
        for client in &world.clients {
            drop(tokio::spawn(client.visit().run(engine.clone())));
        }
        for follower in world.followers.values() {
            drop(tokio::spawn(follower.visit().run(engine.clone(), patience(true))));
        }
        for _ in 0..600 {
            if world.clients.iter().all(Client::is_done) || !world.outside.is_sound() {
                break;
            }
            world.meet(&engine, true);
            sleep(Duration::from_secs(1)).await;
        }
        settle::settle(world, &engine).await;
        engine.shutdown().await;
    });
}
