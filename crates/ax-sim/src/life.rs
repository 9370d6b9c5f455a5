//! One life of the runtime: from opening the store to its end, which is seldom a gentle one.

use crate::client::{Client, Known};
use crate::coverage::{CountedDisk, CountedLog, Coverage};
use crate::follower::Follower;
use crate::op::AGENTS;
use crate::outside::Outside;
use crate::prng::Prng;
use crate::seams::{SimClock, SimEntropy};
use crate::{harness::SimLauncher, settle};
use ax_core::id::{Namespace, SessionKey};
use ax_engine::{AgentSource, Engine};
use ax_log::embedded::fake::FakeDisk;
use ax_log::embedded::{Limits, ShuffleSpawner};
use ax_log::{EmbeddedLog, EventLog};
use ax_store::Blobs;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Everything that survives the runtime.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) prng: Prng,
    pub(crate) disk: FakeDisk,
    pub(crate) coverage: Coverage,
    pub(crate) blobs: Blobs,
    pub(crate) data_dir: PathBuf,
    pub(crate) outside: Outside,
    pub(crate) known: Arc<Mutex<Known>>,
    pub(crate) clients: Vec<Client>,
    pub(crate) followers: BTreeMap<SessionKey, Follower>,
    /// The time, in milliseconds since the Unix epoch.
    pub(crate) now_millis: u64,
    /// What befell it so far.
    pub(crate) story: Vec<String>,
}

/// More changes than a disk ever sees.
const NEVER: u64 = u64::MAX / 2;

/// What befalls a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is killed when so much has happened.
    Countdown(u64),
    /// It is killed at a time, in milliseconds.
    Killed(u64),
    /// The power fails in the middle of a change to the disk.
    PowerInWrite(u64),
    /// From a time on, writes fail.
    WritesFail(u64),
    /// From a time on, syncs fail.
    SyncsFail(u64),
    /// From a time on there is no space left; so it is for so long.
    Full(u64, u64),
    /// It is asked to stop at a time.
    Shutdown(u64),
    /// Nothing, until all is settled.
    Peace,
}

impl Fate {
    pub(crate) fn draw(prng: &mut Prng) -> Self {
        let at = if prng.chance(50) { prng.below(2_000) } else { prng.below(60_000) };
        match prng.below(20) {
            0..7 => Self::Countdown(prng.between(1, 120)),
            7..10 => Self::Killed(at),
            10..14 => Self::PowerInWrite(prng.below(60)),
            14 => Self::WritesFail(at),
            15 => Self::SyncsFail(at),
            16 | 17 => Self::Full(at, prng.between(10, 20_000)),
            _ => Self::Shutdown(at),
        }
    }

    /// Whether an error on opening the store is what the disk was told to do.
    const fn may_fail(self) -> bool {
        matches!(self, Self::PowerInWrite(_))
    }
}

impl World {
    /// Runs one life, and what comes between it and the next.
    pub(crate) fn live(&mut self, fate: Fate) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O asks nothing of the system");
        runtime.block_on(self.life(fate));
        drop(runtime);
        self.between(fate);
    }

    /// What a crash leaves behind.
    fn between(&mut self, fate: Fate) {
        self.disk.fail_syncs(false);
        self.disk.fail_writes(false);
        self.disk.set_capacity(None);
        self.disk.crash_after(NEVER);
        let was_dead = self.disk.is_dead();
        let loses_power = was_dead || self.prng.chance(40);
        self.story.push(format!("{fate:?}, dead {was_dead}, loses power {loses_power}"));
        if loses_power && fate != Fate::Peace {
            self.disk = self.disk.crash();
        }
        // When the machine is off nobody is left to finish anything.
        let mut prng = self.prng.clone();
        self.outside.orphaned(0, |_| prng.chance(30) && !loses_power);
        self.prng = prng;
        let downtime = if self.prng.chance(70) { 500 } else { 400_000 };
        self.now_millis += self.prng.below(downtime);
    }

    async fn life(&mut self, fate: Fate) {
        let clock = Arc::new(SimClock::new(self.now_millis));
        if let Fate::PowerInWrite(count) = fate {
            self.disk.crash_after(count);
        }
        self.outside.arm(match fate {
            Fate::Countdown(count) => Some(count),
            _ => None,
        });
        if let Some((engine, log)) = self.open(&clock, fate).await {
            self.people(&engine, fate, &clock).await;
            if fate == Fate::Peace {
                settle::settle(self, &engine).await;
                if self.outside.is_sound() {
                    settle::reopen(self, &engine, &log).await;
                }
            }
        }
        self.now_millis = clock.millis();
    }

    async fn open(
        &mut self,
        clock: &Arc<SimClock>,
        fate: Fate,
    ) -> Option<(Engine, Arc<dyn EventLog>)> {
        let log = match EmbeddedLog::open(&self.log_options()) {
            Ok(log) => {
                let coverage = self.coverage.clone();
                Arc::new(CountedLog { log, coverage }) as Arc<dyn EventLog>
            }
            Err(error) => {
                if !fate.may_fail() {
                    self.outside.fail(format!("E9 opened: the log cannot be opened: {error:?}"));
                }
                return None;
            }
        };
        let runs_max = usize::try_from(self.prng.between(1, 8)).unwrap_or(8);
        let options = ax_engine::Options {
            data_dir: self.data_dir.clone(),
            runs_max,
            log: Arc::clone(&log),
            blobs: self.blobs.clone(),
            launcher: Arc::new(SimLauncher {
                outside: self.outside.clone(),
                clock: Arc::clone(clock),
                seed: self.seed,
                calm: fate == Fate::Peace,
                process: 0,
                witness: None,
                runs_max,
            }),
            clock: Arc::clone(clock) as Arc<dyn ax_engine::Clock>,
            entropy: Arc::new(SimEntropy::new(self.prng.number())),
        };
        match Engine::open(options).await {
            Ok(engine) => Some((engine, log)),
            Err(error) => {
                if !fate.may_fail() {
                    let what = format!("E9 opened: the engine cannot be opened: {error:?}");
                    self.outside.fail(what);
                }
                None
            }
        }
    }

    pub(crate) fn log_options(&self) -> ax_log::Options {
        ax_log::Options {
            disk: Arc::new(CountedDisk {
                disk: self.disk.clone(),
                coverage: self.coverage.clone(),
            }),
            spawner: Arc::new(ShuffleSpawner::new(self.seed ^ self.disk.operations())),
            limits: Limits { segment_bytes_max: 64 * 1024, ..Limits::tiny() },
            store: Some(self.seed),
            ..ax_log::Options::new("/data")
        }
    }

    /// Lets everybody act until the life ends.
    async fn people(&mut self, engine: &Engine, fate: Fate, clock: &Arc<SimClock>) {
        self.apply_agents(engine).await;
        for client in &self.clients {
            drop(tokio::spawn(client.visit().run(engine.clone())));
        }
        let patience = patience(fate == Fate::Peace);
        for follower in self.followers.values() {
            drop(tokio::spawn(follower.visit().run(engine.clone(), patience)));
        }
        let (outside, disk) = (self.outside.clone(), self.disk.clone());
        let end = async {
            match fate {
                Fate::Killed(at) => sleep(Duration::from_millis(at)).await,
                Fate::WritesFail(at) => {
                    sleep(Duration::from_millis(at)).await;
                    disk.fail_writes(true);
                    failed(engine).await;
                }
                Fate::SyncsFail(at) => {
                    sleep(Duration::from_millis(at)).await;
                    disk.fail_syncs(true);
                    failed(engine).await;
                }
                Fate::Full(at, millis) => {
                    sleep(Duration::from_millis(at)).await;
                    disk.set_capacity(Some(disk.used_bytes()));
                    sleep(Duration::from_millis(millis)).await;
                    disk.set_capacity(None);
                    sleep(Duration::from_millis(5_000)).await;
                }
                Fate::Shutdown(at) => {
                    sleep(Duration::from_millis(at)).await;
                    engine.shutdown().await;
                }
                Fate::PowerInWrite(_) => failed(engine).await,
                Fate::Countdown(_) | Fate::Peace => {
                    timeout(Duration::from_secs(120), outside.fatal()).await.unwrap_or_default();
                }
            }
        };
        let mut end = std::pin::pin!(end);
        loop {
            let moment = Duration::from_millis(self.prng.between(1, 5_000));
            let ended = timeout(moment, &mut end).await.is_ok();
            let done = self.clients.iter().all(Client::is_done);
            if ended || !self.outside.is_sound() || (done && fate == Fate::Peace) {
                break;
            }
            self.meet(engine, fate == Fate::Peace);
            self.set_clock(clock);
        }
        // Whatever is ready now gets a little further, or not.
        for _ in 0..self.prng.below(30) {
            tokio::task::yield_now().await;
        }
    }

    /// New sessions find followers.
    pub(crate) fn meet(&mut self, engine: &Engine, calm: bool) {
        let patience = patience(calm);
        let sessions = self.known.lock().expect("no holder panics").sessions.clone();
        for key in sessions {
            if !self.followers.contains_key(&key) {
                let follower = Follower::new(self.seed, &key, &self.outside);
                drop(tokio::spawn(follower.visit().run(engine.clone(), patience)));
                self.followers.insert(key, follower);
            }
        }
    }

    fn set_clock(&mut self, clock: &SimClock) {
        match self.prng.below(40) {
            0 => clock.set_back(self.prng.below(20_000)),
            1 => clock.set_forward(self.prng.below(20_000)),
            _ => {}
        }
    }

    async fn apply_agents(&self, engine: &Engine) {
        for namespace in [Namespace::default(), Namespace::new("other").expect("a name")] {
            for name in AGENTS {
                let source = AgentSource { manifest: manifest(name), dir: None };
                match engine.apply_agent(&namespace, source).await {
                    Ok(_) => {
                        let mut known = self.known.lock().expect("no holder panics");
                        known.agents.insert((namespace.clone(), name));
                    }
                    Err(error) if error.code.retryable() => {}
                    Err(error) => {
                        self.outside.fail(format!("E9 opened: {name} is not taken: {error:?}"));
                    }
                }
            }
        }
    }
}

/// How long a follower stays at most, in milliseconds; in calm times there is less to see.
pub(crate) const fn patience(calm: bool) -> u64 {
    if calm { 900_000 } else { 40_000 }
}

/// Waits until the log takes nothing more, or long enough.
async fn failed(engine: &Engine) {
    timeout(Duration::from_secs(60), engine.failed()).await.unwrap_or_default();
}

/// The manifest of an agent.
pub(crate) fn manifest(name: &str) -> String {
    let limits = if name == "steady" {
        "queue: 4, idleTimeout: 8s, stepTimeout: 20s, parkAfter: 1s, \
         retry: {attempts: 4, backoffMin: 100ms, backoffMax: 3s, restarts: 8}"
    } else {
        "queue: 1, idleTimeout: 3s, stepTimeout: 2s, parkAfter: 200ms, executionTimeout: 20m, \
         retry: {attempts: 2, backoffMin: 0ms, backoffMax: 0ms, restarts: 5}, \
         budget: {tokens: 30, toolCalls: 3}"
    };
    format!(
        "apiVersion: agentexecutor.dev/v1\nkind: Agent\nmetadata: {{name: {name}}}\nspec:\n  \
         sandbox: process\n  harness: {{type: process, command: [agent]}}\n  limits: {{{limits}}}\n"
    )
}
