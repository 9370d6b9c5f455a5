//! What a step costs beyond its durable writes, and how soon an input shows.

use crate::harness::Functions;
use crate::timed::Timed;
use crate::world::World;
use crate::{Arguments, part, round1, say};
use ax_core::id::{Namespace, SessionId, SessionKey};
use ax_core::session::{EffectClass, StepKey};
use ax_engine::{FollowItem, FollowOptions};
use ax_log::{Append, EventLog as _, Lease};
use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::json;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// Steps of each class, and appends beside them.
const COUNT_DEFAULT: usize = 2_000;
/// So many of the first are not counted.
const WARM_UP: usize = 200;
/// What is appended beside the steps: as much as the two events of a step have, in bytes.
const APPEND_BYTES: usize = 200;

/// The time that one kind of thing took.
#[derive(Debug, Default)]
struct Times {
    /// From its beginning to its end.
    whole: Vec<Duration>,
    /// Of it, within appends of the session.
    in_append: Vec<Duration>,
    /// The rest.
    beyond: Vec<Duration>,
    append_count: usize,
}

impl Times {
    fn add(&mut self, whole: Duration, appends: (usize, Duration)) {
        self.whole.push(whole);
        self.in_append.push(appends.1);
        self.beyond.push(whole.saturating_sub(appends.1));
        self.append_count += appends.0;
    }
}

/// A session of the log alone, to append to beside the steps.
struct Beside {
    key: SessionKey,
    lease: Lease,
}

impl Beside {
    async fn new(log: &Timed) -> Self {
        let key = SessionKey::new(Namespace::default(), SessionId(0xbe5));
        let lease = log.acquire(&key).await.unwrap();
        Self { key, lease }
    }

    async fn append(&mut self, log: &Timed) {
        let append = Append {
            key: self.key.clone(),
            epoch: self.lease.epoch,
            expected: self.lease.next,
            entries: vec![Bytes::from(vec![b'x'; APPEND_BYTES])],
            row: None,
            snapshot: None,
        };
        self.lease.next = self.lease.next.next();
        log.append(append).await.unwrap();
    }
}

#[derive(Default)]
struct Measured {
    idempotent: Times,
    once: Times,
    append: Times,
}

/// Steps of both classes and plain appends take turns, so that the disk is the same to all.
pub(crate) async fn steps(arguments: &Arguments) {
    let count = arguments.count.unwrap_or(COUNT_DEFAULT) + WARM_UP;
    let dir = tempfile::tempdir_in(&arguments.dir).unwrap();
    let log: Arc<OnceLock<Arc<Timed>>> = Arc::default();
    let measured: Arc<Mutex<Measured>> = Arc::default();
    let (shared, result) = (Arc::clone(&log), Arc::clone(&measured));
    let harness = Functions::new(move |launch, mut talk| {
        let (log, result) = (Arc::clone(shared.get().unwrap()), Arc::clone(&result));
        async move {
            let mut beside = Beside::new(&log).await;
            let mut measured = Measured::default();
            for number in 0..count {
                for effect in [EffectClass::Idempotent, EffectClass::Once] {
                    let key = StepKey::from(format!("{effect:?}-{number}"));
                    log.take_spent();
                    let began = Instant::now();
                    talk.step(&launch, key, effect).await;
                    let (whole, appends) = (began.elapsed(), log.take_spent());
                    let times = match effect {
                        EffectClass::Once => &mut measured.once,
                        _ => &mut measured.idempotent,
                    };
                    if number >= WARM_UP {
                        times.add(whole, appends);
                    }
                }
                let began = Instant::now();
                beside.append(&log).await;
                let (whole, appends) = (began.elapsed(), log.take_spent());
                if number >= WARM_UP {
                    measured.append.add(whole, appends);
                }
            }
            *result.lock().unwrap() = measured;
            talk.end().await;
        }
    });
    let world = World::open(dir.path(), 4, harness).await;
    assert!(log.set(Arc::clone(&world.log)).is_ok(), "it is set once");
    world.apply_agent().await;
    let submitted = world.submit("steps", "go").await;
    world.finished("steps", submitted.seq).await;
    world.engine.shutdown().await;
    let mut measured = std::mem::take(&mut *measured.lock().unwrap());
    let append_p50 = part(&mut measured.append.whole, 0.5);
    tell("append", &mut measured.append, append_p50);
    tell("step_idempotent", &mut measured.idempotent, append_p50);
    tell("step_once", &mut measured.once, append_p50);
}

fn tell(name: &str, times: &mut Times, append_p50: f64) {
    let count = times.whole.len();
    let p50 = part(&mut times.whole, 0.5);
    say(&json!({
        "name": name, "count": count,
        "p50_us": p50, "p99_us": part(&mut times.whole, 0.99),
        "appends_each": round1(times.append_count as f64 / count as f64),
        "in_append_p50_us": part(&mut times.in_append, 0.5),
        "overhead_p50_us": part(&mut times.beyond, 0.5),
        "overhead_p99_us": part(&mut times.beyond, 0.99),
        "ratio_to_append": round1(p50 / append_p50),
    }));
}

/// An input to a session that has been used before, until a live follower sees it, and until it
/// sees what the harness says first.
pub(crate) async fn warm(arguments: &Arguments) {
    let count = arguments.count.unwrap_or(COUNT_DEFAULT / 2) + WARM_UP;
    let dir = tempfile::tempdir_in(&arguments.dir).unwrap();
    let harness = Functions::new(|_, talk| async move {
        talk.output("here I am").await;
        talk.end().await;
    });
    let world = World::open(dir.path(), 4, harness).await;
    world.apply_agent().await;
    let first = world.submit("warm", "hello").await;
    world.finished("warm", first.seq).await;
    let session = world.session("warm");
    let after = world.engine.session(&world.namespace, &session).await.unwrap().last;
    let options = FollowOptions { after, ..FollowOptions::default() };
    let mut items = world.engine.follow(&world.namespace, &session, options).await.unwrap();
    let (mut event, mut output, mut acknowledged) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..count {
        world.asleep().await;
        let began = Instant::now();
        let mut answered = Duration::ZERO;
        let (mut shown, mut said) = (None, None);
        let submit = async {
            world.submit("warm", "and now?").await;
            answered = began.elapsed();
        };
        let follow = async {
            loop {
                let Some(Ok(FollowItem::Event(_, payload))) = items.next().await else { continue };
                shown.get_or_insert_with(|| began.elapsed());
                let kind = ax_engine::codec::decode_event(&payload).unwrap().kind;
                match kind.name() {
                    "output.message" => said = Some(began.elapsed()),
                    "execution.completed" => return,
                    _ => {}
                }
            }
        };
        futures::join!(submit, follow);
        if number >= WARM_UP {
            event.push(shown.unwrap());
            output.push(said.unwrap());
            acknowledged.push(answered);
        }
    }
    for (name, mut times) in
        [("submit_ack", acknowledged), ("submit_to_event", event), ("submit_to_output", output)]
    {
        say(&json!({
            "name": name, "count": times.len(),
            "p50_us": part(&mut times, 0.5), "p99_us": part(&mut times, 0.99),
        }));
    }
    drop(items);
    world.engine.shutdown().await;
}
