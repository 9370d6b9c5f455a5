//! A process of several: an engine in a runtime of its own, whose time is its own.

use super::network::{Network, SimWire};
use crate::client::is_passing;
use crate::harness::{SimLauncher, Witness};
use crate::life::{World, manifest};
use crate::op::AGENTS;
use crate::prng::Prng;
use crate::seams::{SimClock, SimEntropy};
use ax_core::id::Namespace;
use ax_engine::{AgentSource, Engine};
use ax_log::shared::{Options, Owner};
use ax_log::{EventLog, SharedLog};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};

/// How long a lease is.
pub(super) const LEASE_MILLIS: u64 = 3_000;
/// How long it is when nobody else is there.
const CALM_LEASE_MILLIS: u64 = 60_000;
/// How much earlier it is let go of.
const MARGIN_MILLIS: u64 = 600;
/// How much faster or slower the clock of a process may go, in thousandths.
const DRIFT_MAX: u64 = 40;

/// A process.
pub(super) struct Process {
    pub(super) number: u32,
    pub(super) owner: u128,
    pub(super) engine: Engine,
    pub(super) clock: Arc<SimClock>,
    pub(super) runtime: Runtime,
    /// How far its clock goes in a millisecond of the world, in microseconds.
    rate: u64,
    /// How long it still does nothing, in milliseconds of the world.
    pub(super) stands_still: u64,
    /// For how long it has done nothing.
    stood_still: u64,
    pub(super) has_stopped: Arc<AtomicBool>,
}

impl Process {
    /// Starts a process: a new one each time, as far as the store knows.
    pub(super) fn start(world: &mut World, network: &Network, number: u32, calm: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O asks nothing of the system");
        let owner = u128::from(world.prng.number());
        let skew = world.prng.below(30_000);
        let rate = 1_000 - DRIFT_MAX / 2 + world.prng.below(DRIFT_MAX);
        let rate = if calm { 1_000 } else { rate };
        let (clock, engine) = runtime.block_on(async {
            if calm {
                network.calm_down();
            }
            let clock = Arc::new(SimClock::new(world.now_millis + skew));
            let lease_millis = if calm { CALM_LEASE_MILLIS } else { LEASE_MILLIS };
            let log = open_log(network, owner, number, lease_millis);
            let engine = open(world, network, number, owner, log, &clock, calm).await;
            (clock, engine)
        });
        runtime.block_on(async {
            drop(tokio::spawn(apply_agents(world.known.clone(), engine.clone())));
        });
        let has_stopped = Arc::default();
        let (stands_still, stood_still) = (0, 0);
        Self { number, owner, engine, clock, runtime, rate, stands_still, stood_still, has_stopped }
    }

    /// Lets so much time pass, in which the process does something or stands still.
    pub(super) fn pass(&mut self, millis: u64) {
        if self.stands_still > 0 {
            self.stands_still = self.stands_still.saturating_sub(millis);
            self.stood_still += millis;
            return;
        }
        let rate = self.rate;
        let missed = std::mem::take(&mut self.stood_still);
        self.runtime.block_on(async {
            if missed > 0 {
                // Everything that came due meanwhile is due now, and the clock has gone on.
                tokio::time::advance(Duration::from_micros(missed * rate)).await;
            }
            sleep(Duration::from_micros(millis * rate)).await;
        });
    }

    /// Asks it to stop.
    pub(super) fn stop(&self) {
        let (engine, has_stopped) = (self.engine.clone(), Arc::clone(&self.has_stopped));
        self.runtime.block_on(async {
            drop(tokio::spawn(async move {
                engine.shutdown().await;
                has_stopped.store(true, Ordering::Relaxed);
            }));
        });
    }

    /// Ends it, wherever it is.
    pub(super) fn end(self, world: &World, network: &Network, prng: &mut Prng) {
        let owner = self.owner;
        world.outside.orphaned(self.number, |act| {
            prng.chance(30) && network.is_free_for(&act.session, owner)
        });
        drop(self.runtime);
    }
}

fn open_log(network: &Network, owner: u128, number: u32, lease_millis: u64) -> SharedLog {
    let start = Instant::now();
    let owner = Owner { id: owner, address: format!("process-{number}").into() };
    let options = Options {
        lease: Duration::from_millis(lease_millis),
        margin: Duration::from_millis(MARGIN_MILLIS),
        now: Arc::new(move || start.elapsed()),
        ..Options::new(owner)
    };
    SharedLog::open(Arc::new(SimWire { network: network.clone(), process: number }), options)
}

async fn open(
    world: &mut World,
    network: &Network,
    number: u32,
    owner: u128,
    log: SharedLog,
    clock: &Arc<SimClock>,
    calm: bool,
) -> Engine {
    let seen = network.clone();
    let witness = Witness(Arc::new(move |act| {
        seen.acts(&act.session, owner, &format!("{act:?}"));
    }));
    let runs_max = usize::try_from(world.prng.between(2, 8)).unwrap_or(8);
    let options = ax_engine::Options {
        data_dir: world.data_dir.clone(),
        runs_max,
        log: Arc::new(log) as Arc<dyn EventLog>,
        blobs: world.blobs.clone(),
        launcher: Arc::new(SimLauncher {
            outside: world.outside.clone(),
            clock: Arc::clone(clock),
            seed: world.seed,
            calm,
            process: number,
            witness: Some(witness),
            runs_max,
        }),
        clock: Arc::clone(clock) as Arc<dyn ax_engine::Clock>,
        entropy: Arc::new(SimEntropy::new(world.prng.number())),
    };
    Engine::open(options).await.expect("nothing is read when an engine is opened")
}

/// Stores the agents, whoever has their list.
async fn apply_agents(known: Arc<std::sync::Mutex<crate::client::Known>>, engine: Engine) {
    for namespace in [Namespace::default(), Namespace::new("other").expect("a name")] {
        for name in AGENTS {
            let is_known = || known.lock().expect("no holder panics").agents.clone();
            while !is_known().contains(&(namespace.clone(), name)) {
                let source = AgentSource { manifest: manifest(name), dir: None };
                match engine.apply_agent(&namespace, source).await {
                    Ok(_) => {
                        let mut known = known.lock().expect("no holder panics");
                        known.agents.insert((namespace.clone(), name));
                    }
                    Err(error) if is_passing(error.code) => sleep(Duration::from_secs(1)).await,
                    Err(error) => panic!("E9 opened: {name} is not taken: {error:?}"),
                }
            }
        }
    }
}
