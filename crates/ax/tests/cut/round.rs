//! A round: sessions that stream, clients that are cut off, a server that is killed.

use super::browser::Browser;
use super::check::Seen;
use super::plan::{Plan, Session};
use super::proxy::{self, Proxy};
use super::rust;
use super::server::{self, Server};
use super::{python, text};
use ax_client::Client;
use ax_proto::v1;
use ax_proto::v1::event::Kind;
use futures::future::try_join_all;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long a round may take.
const ROUND_MAX: Duration = Duration::from_secs(150);
/// What the server is told: pages of any origin may read.
const ARGUMENTS: &[&str] = &[
    "--listen",
    "127.0.0.1:0",
    "--insecure-no-auth",
    "--allow-unsandboxed",
    "--allow-origin",
    "*",
];

/// What was done, and what was compared.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) cuts: u64,
    pub(crate) resets: u64,
    pub(crate) stalls: u64,
    /// Cuts of each client.
    pub(crate) rust: u64,
    pub(crate) python: u64,
    pub(crate) browser: u64,
    pub(crate) kills: u64,
    /// Events that were compared, once for each client that saw them.
    pub(crate) events: u64,
    /// Clients that were compared.
    pub(crate) streams: u64,
    /// Blocks that a lost attempt left unfinished.
    pub(crate) superseded: u64,
}

impl Counts {
    pub(crate) const fn add(&mut self, other: &Self) {
        self.cuts += other.cuts;
        self.resets += other.resets;
        self.stalls += other.stalls;
        self.rust += other.rust;
        self.python += other.python;
        self.browser += other.browser;
        self.kills += other.kills;
        self.events += other.events;
        self.streams += other.streams;
        self.superseded += other.superseded;
    }

    /// How often the client was cut off that was cut off least.
    pub(crate) fn fewest(&self) -> u64 {
        self.rust.min(self.python).min(self.browser)
    }

    fn cut(&mut self, counts: proxy::Counts) -> u64 {
        self.cuts += counts.cuts;
        self.resets += counts.resets;
        self.stalls += counts.stalls;
        counts.cuts
    }
}

/// Runs a round in a directory, and checks what came of it.
pub(crate) async fn run(seed: u64, dir: &Path, browser: &mut Browser) -> Result<Counts, String> {
    fs::create_dir_all(dir).unwrap();
    let mut plan = Plan::draw(seed);
    fs::write(dir.join("plan.txt"), format!("{plan:#?}\n")).unwrap();
    let data = dir.join("data");
    let mut server = Server::start(&data, ARGUMENTS);
    server.ready().await;
    let direct = server::client(&data);
    apply_agent(&direct, dir).await;
    let proxies = [plan.dice.fork(), plan.dice.fork(), plan.dice.fork()];
    let proxies = proxies.map(|dice| Proxy::start(server::socket(&data), dice));
    let [for_rust, for_python, for_browser] =
        <[_; 3]>::try_from(futures::future::join_all(proxies).await).unwrap();
    begin(&rust::client(&for_rust.url()), &plan.sessions).await?;
    let kills = plan.blows.len() as u64;
    let following = async {
        let rusts = plan.sessions.iter().map(|one| rust::follow(for_rust.url(), one.clone()));
        let (rusts, pythons, browsers) = futures::try_join!(
            try_join_all(rusts),
            python::follow(for_python.url(), &plan.sessions, dir),
            show(browser, for_browser.url(), &plan.sessions),
        )?;
        Ok::<_, String>([rusts, pythons, browsers].concat())
    };
    let striking = async {
        for blow in &plan.blows {
            sleep(Duration::from_millis(blow.pause_millis)).await;
            if let Some(status) = server.has_ended() {
                return Err(format!("the server has ended with {status}: {}", server.errors()));
            }
            server.kill();
            sleep(Duration::from_millis(blow.down_millis)).await;
            server = Server::start(&data, ARGUMENTS);
        }
        Ok(server)
    };
    let done = timeout(ROUND_MAX, futures::future::try_join(following, striking)).await;
    let (seen, server) = done.map_err(|_| "not all clients have come to the end")??;
    // What is looked at is what is durable, not what a server remembers.
    server.kill();
    let mut server = Server::start(&data, ARGUMENTS);
    server.ready().await;
    let mut counts = Counts { kills, ..compare(&direct, &plan.sessions, &seen).await? };
    counts.rust = counts.cut(for_rust.counts());
    counts.python = counts.cut(for_python.counts());
    counts.browser = counts.cut(for_browser.counts());
    server.stop();
    Ok(counts)
}

async fn apply_agent(client: &Client, dir: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cut/streamer.py");
    let manifest = format!(
        "apiVersion: agentexecutor.dev/v1\nkind: Agent\nmetadata: {{name: streamer}}\nspec:\n  \
         sandbox: process\n  harness: {{type: process, command: [\"{}\", \"{}\"], \
         env: {{PYTHONPYCACHEPREFIX: \"{}\"}}}}\n  limits:\n    \
         retry: {{attempts: 60, backoffMin: 5ms, backoffMax: 40ms}}\n",
        server::python(),
        script.display(),
        dir.join("../pycache").display(),
    );
    let request = v1::ApplyAgentRequest { manifest, ..Default::default() };
    client.apply_agent(request).await.unwrap();
}

/// Makes the sessions, with their first inputs.
async fn begin(client: &Client, sessions: &[Session]) -> Result<(), String> {
    let submits = sessions
        .iter()
        .map(|one| rust::submit(client, &one.name, &one.inputs[0], "first".to_owned()));
    for seq in try_join_all(submits).await? {
        if seq == 0 {
            return Err("an input was acknowledged at no position".into());
        }
    }
    Ok(())
}

async fn show(
    browser: &mut Browser,
    url: String,
    sessions: &[Session],
) -> Result<Vec<Seen>, String> {
    let tasks = sessions.iter().filter(|session| session.browser);
    let tasks = tasks.map(|session| json!({"session": session.name, "ends": session.inputs.len()}));
    let job = json!({"server": url, "sessions": Value::from_iter(tasks)});
    let reports = browser.show(job).await;
    let reports = reports.as_array().cloned().unwrap_or_default();
    reports.iter().map(|report| Seen::of_json("Browser", report)).collect()
}

async fn compare(client: &Client, sessions: &[Session], seen: &[Seen]) -> Result<Counts, String> {
    let mut counts = Counts::default();
    for session in sessions {
        let log = read_log(client, &session.name).await?;
        let inputs = log.iter().filter(|one| matches!(one.kind, Some(Kind::InputReceived(_))));
        if inputs.count() != session.inputs.len() || text::ends(&log) != session.inputs.len() {
            return Err(format!("{} has other inputs than it was sent", session.name));
        }
        counts.superseded += superseded(&log);
        let clients = seen.iter().filter(|seen| seen.session == session.name);
        for client in clients {
            client.check(&log)?;
            counts.streams += 1;
            counts.events += log.len() as u64;
        }
    }
    let expected = 2 * sessions.len() + sessions.iter().filter(|one| one.browser).count();
    if seen.len() != expected || counts.streams != expected as u64 {
        return Err(format!("{} of {expected} clients have reported", counts.streams));
    }
    Ok(counts)
}

fn superseded(log: &[v1::Event]) -> u64 {
    let counts = log.iter().map(|event| match &event.kind {
        Some(Kind::AttemptLost(lost)) => lost.superseded.len() as u64,
        _ => 0,
    });
    counts.sum()
}

/// Reads the log of a session from its beginning to its end.
async fn read_log(client: &Client, session: &str) -> Result<Vec<v1::Event>, String> {
    let mut events: Vec<v1::Event> = Vec::new();
    loop {
        let after = events.last().map_or(0, |event| event.seq);
        let request =
            v1::ListEventsRequest { session: session.into(), after, ..Default::default() };
        let page = client.list_events(request).await.map_err(|error| format!("{error:?}"))?;
        events.extend(page.events);
        if events.last().map_or(0, |event| event.seq) >= page.last {
            return Ok(events);
        }
    }
}
