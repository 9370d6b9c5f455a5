//! Those who talk with sessions, one turn after the other.

use crate::Size;
use ax_client::{Client, Item};
use ax_proto::v1;
use ax_proto::v1::event::Kind;
use futures::StreamExt as _;
use futures::stream;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How many sessions are begun at the same time.
const BEGIN_COUNT: usize = 64;
/// How long it takes until all are at work, a little more than a turn. Turns take the same time:
/// those that begin at one moment would go on in step, and measure each other.
const RAMP: Duration = Duration::from_secs(10);

pub(crate) fn name(number: usize) -> String {
    format!("load-{number}")
}

/// Begins all sessions, each with a short turn.
pub(crate) async fn begin_all(clients: &[Client], size: Size) {
    let turns = (0..size.sessions).map(|number| {
        let client = clients[number % clients.len()].clone();
        async move { turn(&client, &name(number), "Say hello").await }
    });
    stream::iter(turns).buffer_unordered(BEGIN_COUNT).for_each(|_| async {}).await;
}

/// Keeps so many sessions at work until then, each of them in its turn. Returns how long it took
/// until each agent was at work, in microseconds, by session.
pub(crate) async fn work(
    clients: &[Client],
    size: Size,
    until: Instant,
) -> BTreeMap<usize, Vec<u64>> {
    let mut workers = JoinSet::new();
    for worker in 0..size.active {
        let client = clients[worker % clients.len()].clone();
        let pause =
            RAMP.min((until - Instant::now()) / 2) * index_of(worker) / index_of(size.active);
        workers.spawn(async move {
            tokio::time::sleep(pause).await;
            let mut turns = Vec::new();
            let mine = (worker..size.sessions).step_by(size.active).cycle();
            for number in mine {
                if Instant::now() >= until {
                    break;
                }
                turns.push((number, turn(&client, &name(number), "Count slowly").await));
            }
            turns
        });
    }
    let mut all = BTreeMap::<usize, Vec<u64>>::new();
    while let Some(turns) = workers.join_next().await {
        for (number, micros) in turns.unwrap() {
            all.entry(number).or_default().push(micros);
        }
    }
    all
}

fn index_of(worker: usize) -> u32 {
    u32::try_from(worker).unwrap()
}

/// Sends an input and follows its execution to the end; returns how long it took until a follower
/// saw the agent at work.
async fn turn(client: &Client, session: &str, text: &str) -> u64 {
    let body = v1::Body { body: Some(v1::body::Body::Text(text.into())) };
    let part = v1::Part {
        kind: v1::PartKind::Text.into(),
        media_type: "text/plain".into(),
        name: String::new(),
        body: Some(body),
    };
    let request = v1::SubmitRequest {
        session: session.into(),
        agent: "talker".into(),
        parts: vec![part],
        ..Default::default()
    };
    let began = Instant::now();
    let sent = client.submit(request).await.unwrap();
    let mut follow = client.follow(v1::FollowRequest {
        session: session.into(),
        after: sent.seq,
        until_input: sent.seq,
        ..Default::default()
    });
    let (mut first, mut completed) = (None, false);
    while let Some(item) = follow.next().await.unwrap() {
        match item {
            Item::Event(event) => match event.kind {
                // The agent asks its model: from here on the pace is the model's.
                Some(Kind::StepStarted(_)) => {
                    first.get_or_insert_with(|| began.elapsed());
                }
                Some(Kind::ExecutionCompleted(_)) => completed = true,
                Some(Kind::ExecutionFailed(failed)) => panic!("{session}: {failed:?}"),
                _ => {}
            },
            Item::CaughtUp(_) | Item::End(_) => {}
            Item::Broken(error) => panic!("{session}: {error:?}"),
        }
    }
    assert!(completed, "{session} did not complete");
    u64::try_from(first.expect("it asks its model").as_micros()).unwrap()
}

/// What came of all turns.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) turns: u64,
    /// Of all turns, in microseconds.
    pub(crate) median: u64,
    /// What the worst turn of 99 % of the sessions was not longer than.
    pub(crate) p99: u64,
    pub(crate) most: u64,
    /// `p99` in percent of `median`.
    pub(crate) ratio_percent: u64,
}

impl Figures {
    pub(crate) fn of(turns: BTreeMap<usize, Vec<u64>>) -> Self {
        let mut worst: Vec<u64> =
            turns.values().filter_map(|turns| turns.iter().copied().max()).collect();
        let mut all: Vec<u64> = turns.into_values().flatten().collect();
        assert!(!all.is_empty(), "there were turns");
        all.sort_unstable();
        worst.sort_unstable();
        let median = all[all.len() / 2].max(1);
        let p99 = worst[worst.len() * 99 / 100];
        let most = worst[worst.len() - 1];
        let ratio_percent = p99 * 100 / median;
        Self { turns: all.len() as u64, median, p99, most, ratio_percent }
    }
}
