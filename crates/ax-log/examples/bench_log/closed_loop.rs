//! Clients that each keep one append under way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ax_core::id::{Namespace, SessionId, SessionKey};
use ax_log::{Append, EmbeddedLog, EventLog as _};
use bytes::Bytes;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::raw::Raw;
use crate::round2;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) clients: usize,
    pub(crate) bytes: usize,
    /// How many sessions the clients share out among them.
    pub(crate) sessions: usize,
    pub(crate) length: Duration,
}

/// What was measured.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) rate: f64,
    pub(crate) p50_millis: f64,
    pub(crate) p99_millis: f64,
    /// All appends, also those of the warming up.
    pub(crate) count: u64,
    /// What the process computed for each append, client and all.
    pub(crate) cpu_micros: f64,
}

impl Figures {
    pub(crate) fn json(&self) -> Value {
        json!({
            "rate": self.rate.round(), "p50_millis": round2(self.p50_millis),
            "p99_millis": round2(self.p99_millis), "cpu_micros": round2(self.cpu_micros),
        })
    }

    pub(crate) fn median(mut rounds: Vec<Self>) -> Self {
        rounds.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        rounds.swap_remove(rounds.len() / 2)
    }

    fn of(mut micros: Vec<u32>, length: Duration, count: u64) -> Self {
        micros.sort_unstable();
        let at = |part: usize| {
            let index = (micros.len() * part / 100).min(micros.len() - 1);
            f64::from(micros[index]) / 1000.0
        };
        let rate = micros.len() as f64 / length.as_secs_f64();
        Self { rate, p50_millis: at(50), p99_millis: at(99), count, cpu_micros: 0.0 }
    }
}

pub(crate) fn key(session: usize) -> SessionKey {
    // Spread over the whole space of ids, as random ones are.
    let mixed = (session as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    SessionKey::new(Namespace::default(), SessionId(mixed))
}

pub(crate) fn payloads(bytes: usize) -> Vec<Bytes> {
    let text = |seed: usize| {
        let digits = (0..bytes).map(|at| b"0123456789abcdef"[(at * 7 + seed * 31 + at / 13) % 16]);
        digits.collect::<Bytes>()
    };
    (0..64).map(text).collect()
}

/// Times the calls of one client until the end. Returns the latencies and the count of all calls.
async fn client<F: Future<Output = ()>>(
    length: Duration,
    mut call: impl FnMut(u64) -> F,
) -> (Vec<u32>, u64) {
    let warm = Instant::now() + (length / 5).min(Duration::from_millis(500));
    let end = warm + length;
    let mut micros = Vec::new();
    let mut count = 0;
    loop {
        let before = Instant::now();
        if before >= end {
            return (micros, count);
        }
        call(count).await;
        count += 1;
        let after = Instant::now();
        if after >= warm && after < end {
            micros.push(u32::try_from((after - before).as_micros()).unwrap_or(u32::MAX));
        }
    }
}

fn together(results: Vec<(Vec<u32>, u64)>, length: Duration, cpu_before: f64) -> Figures {
    let cpu = cpu_seconds() - cpu_before;
    let count = results.iter().map(|(_, count)| count).sum();
    let micros = results.into_iter().flat_map(|(micros, _)| micros).collect();
    let figures = Figures::of(micros, length, count);
    Figures { cpu_micros: cpu * 1e6 / count as f64, ..figures }
}

/// Returns how long this process has computed, in all its threads.
fn cpu_seconds() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

pub(crate) async fn raw(raw: Raw, cell: Cell) -> Figures {
    let payloads = payloads(cell.bytes);
    let cpu = cpu_seconds();
    let clients = (0..cell.clients).map(|number| {
        let (raw, payloads) = (&raw, &payloads);
        let call = move |count: u64| {
            let payload = payloads[(number + usize::try_from(count).unwrap()) % 64].clone();
            raw.append(number as u128, count, payload)
        };
        client(cell.length, call)
    });
    together(join_all(clients).await, cell.length, cpu)
}

pub(crate) async fn log(log: &Arc<EmbeddedLog>, cell: Cell) -> Figures {
    let payloads = payloads(cell.bytes);
    let share = cell.sessions / cell.clients;
    let mut owned = Vec::new();
    for number in 0..cell.clients {
        let keys = (0..share).map(|at| key(number * share + at));
        let leases = keys.map(|key| async move {
            let lease = log.acquire(&key).await.unwrap();
            (key, lease)
        });
        owned.push(join_all(leases).await);
    }
    let cpu = cpu_seconds();
    let clients = owned.iter_mut().enumerate().map(|(number, mine)| {
        let payloads = &payloads;
        let call = move |count: u64| {
            let count = usize::try_from(count).unwrap();
            // A step that meets every session of the share in a scattered order.
            let at = (count * 97) % mine.len();
            let (key, lease) = &mut mine[at];
            let append = Append {
                key: key.clone(),
                epoch: lease.epoch,
                expected: lease.next,
                entries: vec![payloads[(number + count) % 64].clone()],
                row: None,
                snapshot: None,
            };
            lease.next = lease.next.next();
            async move {
                log.append(append).await.unwrap();
            }
        };
        client(cell.length, call)
    });
    together(join_all(clients).await, cell.length, cpu)
}
