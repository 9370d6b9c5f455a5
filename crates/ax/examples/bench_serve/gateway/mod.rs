//! Model calls through the gateway, through nginx as a plain reverse proxy, and without anything
//! between, in turns. The model is in this process and says in its answer when it heard the
//! question and when it spoke, so that what is measured is the way alone.

mod caller;
mod model;
mod nginx;

use crate::raw;
use crate::server::{Server, cpu_seconds_of_threads, input};
use crate::stats::{part, round1};
use crate::{Arguments, say};
use ax_proto::v1;
use caller::{Caller, Heard};
use futures::future::join_all;
use model::Model;
use nginx::Nginx;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a question is, in bytes, and how many ask at a time.
const CALLS: &[(usize, usize)] = &[(1 << 10, 1), (64 << 10, 1), (1 << 10, 16)];
/// How many ask for streams at a time.
const STREAMS: &[usize] = &[1, 16];
/// How long each way has its turn when many ask.
const TURN: Duration = Duration::from_millis(500);
/// How many syncs follow such turns.
const SYNCS_A_TURN: usize = 20;
/// Until a harness has begun.
const BEGIN_MAX: Duration = Duration::from_secs(30);

/// How a question goes to the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Direct,
    Nginx,
    Gateway,
}

const WAYS: [Way; 3] = [Way::Direct, Way::Nginx, Way::Gateway];

/// What came of the questions that went one way.
#[derive(Debug, Default)]
struct Took {
    /// What calls took beyond what the model took; of streams, until they were over.
    whole: Vec<Duration>,
    /// The same until the first piece of a stream.
    first: Vec<Duration>,
    /// How long pieces were on their way, but the first and those that end the stream.
    pieces: Vec<Duration>,
    /// How long whatever is between computed.
    cpu_seconds: f64,
}

/// The three ways, and the disk beside them.
struct World {
    addresses: [String; 3],
    key: String,
    nginx: Nginx,
    server: Server,
    _model: Model,
}

/// Measures calls whose answers come at once.
pub(crate) async fn calls(arguments: &Arguments) {
    for &(bytes, callers) in CALLS {
        let case = Case { bytes, callers, streams: false };
        case.measure(arguments).await;
    }
}

/// Measures calls whose answers come in pieces.
pub(crate) async fn streams(arguments: &Arguments) {
    for &callers in STREAMS {
        let case = Case { bytes: 1 << 10, callers, streams: true };
        case.measure(arguments).await;
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// How long a question is.
    bytes: usize,
    callers: usize,
    streams: bool,
}

impl Case {
    async fn measure(self, arguments: &Arguments) {
        let world = World::begin(arguments).await;
        let mut all: Vec<[Caller; 3]> = Vec::new();
        for _ in 0..self.callers {
            all.push(world.callers().await);
        }
        let mut number = 0;
        // Once before anything counts: connections are made, and what is grown once is there.
        for way in WAYS {
            self.turn(&world, way, &mut all, &mut number, Duration::ZERO).await;
        }
        let (turn, sync_count) =
            if self.callers == 1 { (Duration::ZERO, 1) } else { (TURN, SYNCS_A_TURN) };
        let (mut took, mut syncs) = (WAYS.map(|_| Took::default()), Vec::new());
        let mut disk = raw::Disk::new(&arguments.dir);
        let until = Instant::now() + arguments.span * 3;
        while Instant::now() < until {
            for (way, took) in WAYS.into_iter().zip(&mut took) {
                took.add(self.turn(&world, way, &mut all, &mut number, turn).await);
            }
            syncs.extend((0..sync_count).map(|_| disk.sync()));
        }
        let sync_cpu = tokio::task::spawn_blocking(move || disk.cpu_micros()).await.unwrap();
        self.say(&mut took, &mut syncs, sync_cpu);
    }

    /// Lets all callers ask by one way, one question after the other, for a time.
    async fn turn(
        self,
        world: &World,
        way: Way,
        all: &mut [[Caller; 3]],
        number: &mut u64,
        span: Duration,
    ) -> Took {
        let cpu = world.cpu_seconds(way);
        let until = Instant::now() + span;
        let first = *number;
        *number += 1 << 32;
        let asking = all.iter_mut().enumerate().map(|(at, callers)| async move {
            let caller = &mut callers[way as usize];
            let mut heard = Vec::new();
            let mut number = first + ((at as u64) << 24);
            loop {
                heard.push(caller.ask(number, self.bytes, self.streams).await);
                number += 1;
                if Instant::now() >= until {
                    return heard;
                }
            }
        });
        let heard = join_all(asking).await.into_iter().flatten();
        let mut took = Took::default();
        heard.for_each(|heard| took.take_in(heard));
        if span.is_zero() {
            // Whatever is done after an answer is part of its cost.
            sleep(Duration::from_millis(2)).await;
        }
        // A thread that ended takes its share away.
        took.cpu_seconds = (world.cpu_seconds(way) - cpu).max(0.0);
        took
    }

    fn say(self, took: &mut [Took; 3], syncs: &mut [Duration], sync_cpu: f64) {
        let piece = if self.streams { "streams" } else { "calls" };
        let mut line = json!({
            "piece": piece, "callers": self.callers, "kib": self.bytes >> 10,
            "sync": [part(syncs, 0.5), part(syncs, 0.99)], "sync_cpu_us": sync_cpu,
        });
        for (way, took) in WAYS.into_iter().zip(took) {
            line[format!("{way:?}").to_lowercase()] = took.figures();
        }
        say(&line);
    }
}

impl Took {
    fn take_in(&mut self, heard: Heard) {
        let Heard { whole, first, pieces } = heard;
        self.whole.push(whole);
        self.first.extend(first);
        self.pieces.extend(pieces);
    }

    fn add(&mut self, mut other: Self) {
        self.whole.append(&mut other.whole);
        self.first.append(&mut other.first);
        self.pieces.append(&mut other.pieces);
        self.cpu_seconds += other.cpu_seconds;
    }

    /// Microseconds at p50 and p99, and what is between computed for a call and for a piece.
    fn figures(&mut self) -> Value {
        let each = |count: usize| round1(self.cpu_seconds * 1e6 / count as f64);
        let mut figures = json!({"calls": self.whole.len(), "cpu_us": each(self.whole.len())});
        if !self.pieces.is_empty() {
            figures["piece_cpu_us"] = each(self.pieces.len()).into();
        }
        let spans =
            [("whole", &mut self.whole), ("first", &mut self.first), ("piece", &mut self.pieces)];
        for (name, spans) in spans {
            if !spans.is_empty() {
                figures[name] = json!([part(spans, 0.5), part(spans, 0.99)]);
            }
        }
        figures
    }
}

impl World {
    async fn begin(arguments: &Arguments) -> Self {
        let model = Model::start().await;
        let dir = tempfile::tempdir_in(&arguments.dir).unwrap().keep();
        let nginx = Nginx::start(&arguments.peer, &dir, &model.address).await;
        let server = Server::start(&arguments.ax, &dir.join("data"));
        let found = harness(&server, &model.address, &dir.join("environment")).await;
        let gateway = found["ANTHROPIC_BASE_URL"].trim_start_matches("http://").to_owned();
        let addresses = [model.address.clone(), nginx.address.clone(), gateway];
        let key = found["ANTHROPIC_API_KEY"].clone();
        Self { addresses, key, nginx, server, _model: model }
    }

    async fn callers(&self) -> [Caller; 3] {
        let [direct, nginx, gateway] = &self.addresses;
        [
            Caller::open(direct, &self.key).await,
            Caller::open(nginx, &self.key).await,
            Caller::open(gateway, &self.key).await,
        ]
    }

    /// How long whatever is between has computed.
    fn cpu_seconds(&self, way: Way) -> f64 {
        match way {
            Way::Direct => 0.0,
            Way::Nginx => self.nginx.processes().into_iter().map(cpu_seconds_of_threads).sum(),
            Way::Gateway => self.server.cpu_seconds_of_threads(),
        }
    }
}

/// Starts a harness that only says what it found in its environment, and waits for nothing.
async fn harness(server: &Server, model: &str, found: &Path) -> HashMap<String, String> {
    let new = found.with_extension("new");
    let command = format!(
        "env > '{}' && mv '{}' '{}' && exec sleep 1000000",
        new.display(),
        new.display(),
        found.display()
    );
    let manifest = json!({
        "apiVersion": "agentexecutor.dev/v1",
        "kind": "Agent",
        "metadata": {"name": "busy"},
        "spec": {
            "sandbox": "process",
            "harness": {"type": "process", "protocol": "text", "command": ["sh", "-c", command]},
            "gateway": {
                "models": [{"provider": "anthropic", "baseUrl": format!("http://{model}")}],
            },
        },
    });
    let client = server.client();
    // JSON is YAML.
    let manifest = manifest.to_string();
    client.apply_agent(v1::ApplyAgentRequest { manifest, ..Default::default() }).await.unwrap();
    client.submit(input("gateway", 1)).await.unwrap();
    let until = Instant::now() + BEGIN_MAX;
    loop {
        if let Ok(text) = std::fs::read_to_string(found) {
            let pairs = text.lines().filter_map(|line| line.split_once('='));
            return pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        }
        assert!(Instant::now() < until, "the harness begins");
        sleep(Duration::from_millis(5)).await;
    }
}
