//! A round: twenty sessions, and blows that fall while they work.

use super::clients::{Report, World, drive};
use super::dice::Dice;
use super::effects;
use super::oracle::{self, Counts};
use super::program::{Carrier, Session};
use super::server::{self, Server};
use ax_client::Client;
use ax_fakemodel::{FakeModel, Options, Script};
use ax_proto::v1;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// How many sessions work at the same time.
const SESSION_COUNT: usize = 20;
/// How long a round may take.
pub(crate) const ROUND_MAX: Duration = Duration::from_secs(90);
/// How the model answers: slowly enough to be interrupted.
pub(crate) const SCRIPT: &str = r#"{"version": 1, "defaults":
    {"latency_millis": 20, "chunk_delay_millis": 2, "chunk_chars": 24}}"#;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Server,
    /// One harness.
    Harness,
    /// All harnesses, then the server.
    HarnessesThenServer,
    /// The server, then all harnesses.
    ServerThenHarnesses,
    /// The process that watches over a harness.
    Supervisor,
}

/// A blow of the schedule.
#[derive(Clone, Copy, Debug)]
struct Blow {
    /// After the one before.
    pause_millis: u64,
    victim: Victim,
    /// Which one, if there are several.
    which: u64,
    /// How long the server is down, if it is hit.
    down_millis: u64,
}

/// Everything that a seed decides.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) sessions: Vec<Session>,
    blows: Vec<Blow>,
    pub(crate) runs_max: u64,
    pub(crate) dice: Dice,
}

impl Plan {
    pub(crate) fn draw(seed: u64, effects: &Path) -> Self {
        let mut dice = Dice::new(seed);
        let runs_max = dice.pick(&[5, 16, 64]);
        let blow = |dice: &mut Dice| Blow {
            pause_millis: dice.between(20, 900),
            victim: dice.pick(&[
                Victim::Server,
                Victim::Server,
                Victim::Server,
                Victim::Harness,
                Victim::Harness,
                Victim::HarnessesThenServer,
                Victim::ServerThenHarnesses,
                Victim::Supervisor,
            ]),
            which: dice.next(),
            down_millis: dice.between(0, 150),
        };
        let count = dice.between(3, 9);
        let blows = (0..count).map(|_| blow(&mut dice)).collect();
        let effects = effects.to_str().unwrap();
        let sessions =
            (0..SESSION_COUNT).map(|number| Session::draw(number, effects, &mut dice)).collect();
        Self { sessions, blows, runs_max, dice }
    }
}

/// Runs a round in a directory, and checks what came of it.
pub(crate) async fn run(seed: u64, dir: PathBuf) -> Result<Counts, String> {
    let effects = dir.join("effects");
    fs::create_dir_all(&effects).unwrap();
    let mut plan = Plan::draw(seed, &effects);
    fs::write(dir.join("plan.txt"), format!("{plan:#?}\n")).unwrap();
    let script = Script::from_json(SCRIPT).unwrap();
    let model = FakeModel::start(Options { script, ..Options::default() }).await.unwrap();
    let (data, deadline) = (dir.join("data"), Instant::now() + ROUND_MAX);
    let world = Arc::new(World { data, effects, deadline });
    let runs_max = plan.runs_max.to_string();
    let args = ["--runs-max", runs_max.as_str()];
    let mut server = Server::start(&world.data, &args);
    server.ready().await;
    apply_agents(&world, &model, &dir).await;
    let mut sessions = JoinSet::new();
    for session in plan.sessions {
        sessions.spawn(drive(Arc::clone(&world), session, plan.dice.fork()));
    }
    for blow in &plan.blows {
        sleep(Duration::from_millis(blow.pause_millis)).await;
        server = strike(server, blow, &world, &args).await?;
    }
    let mut reports = Vec::new();
    while let Some(report) = sessions.join_next().await {
        match report.map_err(|error| error.to_string())? {
            Ok(report) => reports.push(report),
            Err(error) => return Err(with_sessions(&world, error).await),
        }
    }
    // What is looked at is what is durable, not what a server remembers.
    server.kill();
    let mut server = Server::start(&world.data, &args);
    server.ready().await;
    let counts = check(&world, &model, &reports).await?;
    server.stop();
    let left = server::find(&mark(&world));
    if !left.is_empty() {
        return Err(format!("processes {left:?} are left"));
    }
    Ok(counts)
}

/// Applies the agents of the carriers.
pub(crate) async fn apply_agents(world: &World, model: &FakeModel, dir: &Path) {
    let client = server::client(&world.data);
    for carrier in Carrier::ALL {
        let manifest = manifest(carrier, world, model, dir);
        let request = v1::ApplyAgentRequest { manifest, ..Default::default() };
        client.apply_agent(request).await.unwrap();
    }
}

fn manifest(carrier: Carrier, world: &World, model: &FakeModel, dir: &Path) -> String {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (effects, scripts) = (world.effects.display(), here.join("tests/crash"));
    let sdk = here.join("../../sdk/python/src");
    // The interpreter's own files stay out of the source tree.
    let (cache, python) = (dir.join("../pycache"), server::python());
    let script = match carrier {
        Carrier::Raw => "harness.py",
        Carrier::Sdk => "harness_sdk.py",
        Carrier::Builtin => "",
    };
    let harness = match carrier {
        Carrier::Builtin => format!(
            "type: builtin, model: {{provider: anthropic, name: m, base_url: \"{}\"}}, \
             tools: [shell]",
            model.base_url()
        ),
        _ => format!(
            "type: process, command: [\"{python}\", \"{}\", \"{}\"], \
             env: {{PYTHONPATH: \"{}\", PYTHONPYCACHEPREFIX: \"{}\"}}, \
             config: {{effects: \"{effects}\", model: \"{}\"}}",
            scripts.join(script).display(),
            mark(world),
            sdk.display(),
            cache.display(),
            model.addr()
        ),
    };
    format!(
        "apiVersion: agentexecutor.dev/v1\nkind: Agent\nmetadata: {{name: {}}}\nspec:\n  \
         sandbox: process\n  harness: {{{harness}}}\n  limits:\n    parkAfter: 30ms\n    \
         retry: {{attempts: 60, backoffMin: 5ms, backoffMax: 40ms}}\n",
        carrier.agent()
    )
}

/// What the command line of the harnesses of a round has, and no other.
pub(crate) fn mark(world: &World) -> String {
    format!("--mark={}", world.data.display())
}

/// Lets a blow fall; returns the server that runs then.
async fn strike(
    mut server: Server,
    blow: &Blow,
    world: &World,
    args: &[&str],
) -> Result<Server, String> {
    if let Some(status) = server.has_ended() {
        return Err(format!("the server has ended with {status}: {}", server.errors()));
    }
    let all = server::find(&mark(world));
    let one = match all.len() as u64 {
        0 => None,
        count => Some(&all[usize::try_from(blow.which % count).unwrap()]),
    };
    match blow.victim {
        Victim::Harness => one.iter().for_each(|harness| harness.kill()),
        Victim::Supervisor => one.iter().for_each(|harness| server::kill_supervisor(harness)),
        Victim::HarnessesThenServer => all.iter().for_each(server::Found::kill),
        Victim::Server | Victim::ServerThenHarnesses => {}
    }
    if matches!(blow.victim, Victim::Harness | Victim::Supervisor) {
        return Ok(server);
    }
    server.kill();
    if blow.victim == Victim::ServerThenHarnesses {
        all.iter().for_each(server::Found::kill);
    }
    sleep(Duration::from_millis(blow.down_millis)).await;
    Ok(Server::start(&world.data, args))
}

pub(crate) async fn check(
    world: &World,
    model: &FakeModel,
    reports: &[Report],
) -> Result<Counts, String> {
    let client = server::client(&world.data);
    let ledger = model.ledger();
    let mut total = Counts::default();
    for report in reports {
        let log = read_log(&client, &report.id).await?;
        let lines = effects::read(&world.effects, &report.id);
        effects::one_at_a_time(&world.effects, &report.id)
            .map_err(|error| format!("{} ({}): {error}", report.session.name, report.id))?;
        let counts = oracle::check(report, &log, &lines, &ledger)
            .map_err(|error| format!("{} ({}): {error}", report.session.name, report.id))?;
        total.add(&counts);
    }
    Ok(total)
}

/// Reads the log of a session from its beginning to its end.
pub(crate) async fn read_log(client: &Client, session: &str) -> Result<Vec<v1::Event>, String> {
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

/// Adds to an error what the sessions are doing.
pub(crate) async fn with_sessions(world: &World, error: String) -> String {
    let client = server::client(&world.data);
    let states = vec![
        v1::State::Running.into(),
        v1::State::Retrying.into(),
        v1::State::WaitingAsk.into(),
        v1::State::WaitingTimer.into(),
        v1::State::WaitingSignal.into(),
        v1::State::WaitingCapacity.into(),
    ];
    let request = v1::ListSessionsRequest { states, ..Default::default() };
    match client.list_sessions(request).await {
        Err(unavailable) => format!("{error}; {unavailable:?}"),
        Ok(page) => {
            let sessions = page.sessions.iter().map(|session| {
                let status = session.status.clone().unwrap_or_default();
                let (id, name, last) = (&session.id, &session.name, session.last);
                format!("\n  {name} {id} at {last}: {:?} {:?}", status.state(), status.waiting)
            });
            error + &sessions.collect::<String>()
        }
    }
}
