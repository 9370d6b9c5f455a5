//! Two servers on one data directory: stopped, continued and killed at random, under load.
//!
//! Real processes, real files. One has the directory, the other stands by, and ends the first one
//! when it does not answer for a second. `AX_TWO_ROUNDS` says how many rounds (2 unless given), and
//! `AX_TWO_SEED` the seed of the first. What is done, and what must hold of it, is that of the
//! crash test.

#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::print_stdout, reason = "the seed must be known")]

#[expect(dead_code, reason = "the crash test uses the rest")]
mod crash {
    pub(crate) mod clients;
    pub(crate) mod dice;
    pub(crate) mod effects;
    pub(crate) mod oracle;
    pub(crate) mod program;
    pub(crate) mod round;
    pub(crate) mod server;
    pub(crate) mod terminal;
}

use ax_fakemodel::{FakeModel, Options, Script};
use crash::clients::{World, drive};
use crash::dice::Dice;
use crash::oracle::Counts;
use crash::round::{self, Plan};
use crash::server::{self, Server};
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How many rounds, unless the environment says.
const ROUNDS_DEFAULT: u64 = 2;
/// Sends a server a signal, if it is still there.
fn signal(server: &Server, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(server.pid()).unwrap()).unwrap();
    // It is a child that nobody has waited for, so that the number is its own.
    let _gone_already = kill_process(pid, signal);
}

/// How long a server may be silent, in seconds.
const TAKEOVER_SECONDS: &str = "1";

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

#[test]
fn two_servers_never_write_or_act_at_once() {
    let rounds = number("AX_TWO_ROUNDS").unwrap_or(ROUNDS_DEFAULT);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let base = number("AX_TWO_SEED").unwrap_or(now.as_secs() << 8);
    println!("AX_TWO_SEED={base} AX_TWO_ROUNDS={rounds}");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let home = tempfile::tempdir().unwrap();
    let (mut total, mut takeovers) = (Counts::default(), 0);
    for seed in base..base + rounds {
        let began = Instant::now();
        let dir = home.path().join(seed.to_string());
        let ended = runtime.block_on(runtime.spawn(run(seed, dir.clone())));
        match ended.unwrap_or_else(|error| Err(error.to_string())) {
            Ok((counts, taken)) => {
                let seconds = began.elapsed().as_secs_f64();
                println!("seed {seed}: {taken} takeovers, {counts:?} in {seconds:.1} s");
                total.add(&counts);
                takeovers += taken;
                std::fs::remove_dir_all(dir).unwrap();
            }
            Err(error) => {
                let kept = home.keep().join(seed.to_string());
                let again = format!("AX_TWO_SEED={seed} AX_TWO_ROUNDS=1");
                panic!("{again} fails: {error}\nkept: {}", kept.display());
            }
        }
    }
    let summary = serde_json::json!({
        "name": "two-servers", "rounds": rounds, "takeovers": takeovers, "events": total.events,
        "attempts": total.attempts, "attempts_lost": total.attempts_lost,
        "effects": total.effects, "unknown": total.unknown, "lost": 0, "duplicates": 0,
    });
    println!("{summary}");
    // Of a few rounds none need have come to it.
    assert!(rounds < 5 || takeovers > 0, "no server took the place of another");
}

/// Two servers, one of which has the directory.
struct Pair {
    servers: [Server; 2],
    data: PathBuf,
    runs_max: String,
    /// How often a silent server was ended by the other.
    taken: usize,
}

impl Pair {
    fn start_one(data: &Path, runs_max: &str) -> Server {
        let args = ["--standby", "--takeover-after", TAKEOVER_SECONDS, "--runs-max", runs_max];
        Server::start(data, &args)
    }

    fn start(data: &Path, runs_max: u64) -> Self {
        let runs_max = runs_max.to_string();
        let servers = [Self::start_one(data, &runs_max), Self::start_one(data, &runs_max)];
        Self { servers, data: data.to_owned(), runs_max, taken: 0 }
    }

    fn start_again(&mut self, which: usize) {
        self.servers[which] = Self::start_one(&self.data, &self.runs_max);
    }

    /// A server that was stopped may have been ended by the other; nothing else ends one.
    fn mend(&mut self, stopped: Option<usize>) -> Result<(), String> {
        for which in 0..2 {
            let Some(status) = self.servers[which].has_ended() else { continue };
            let killed = status.signal() == Some(Signal::KILL.as_raw());
            if !killed || stopped != Some(which) {
                let errors = self.servers[which].errors();
                return Err(format!("server {which} ended with {status}: {errors}"));
            }
            self.taken += 1;
            self.start_again(which);
        }
        Ok(())
    }

    /// Lets something befall one of them.
    async fn strike(&mut self, dice: &mut Dice) -> Result<(), String> {
        sleep(Duration::from_millis(dice.between(20, 700))).await;
        self.mend(None)?;
        let which = usize::try_from(dice.between(0, 2)).unwrap();
        let (pause, long) = (dice.between(0, 150), dice.chance(50));
        match dice.between(0, 10) {
            0..4 => {
                signal(&self.servers[which], Signal::KILL);
                while self.servers[which].has_ended().is_none() {
                    sleep(Duration::from_millis(2)).await;
                }
                sleep(Duration::from_millis(pause)).await;
                self.start_again(which);
            }
            _ => {
                let millis = if long { dice.between(1_500, 3_000) } else { dice.between(10, 700) };
                signal(&self.servers[which], Signal::STOP);
                sleep(Duration::from_millis(millis)).await;
                signal(&self.servers[which], Signal::CONT);
                // The blow may be under way still.
                sleep(Duration::from_millis(50)).await;
                self.mend(Some(which))?;
            }
        }
        Ok(())
    }
}

async fn run(seed: u64, dir: PathBuf) -> Result<(Counts, usize), String> {
    let effects = dir.join("effects");
    std::fs::create_dir_all(&effects).unwrap();
    let mut plan = Plan::draw(seed, &effects);
    let script = Script::from_json(round::SCRIPT).unwrap();
    let model = FakeModel::start(Options { script, ..Options::default() }).await.unwrap();
    let deadline = tokio::time::Instant::now() + round::ROUND_MAX;
    let world = Arc::new(World { data: dir.join("data"), effects, deadline });
    let mut pair = Pair::start(&world.data, plan.runs_max);
    round::apply_agents(&world, &model, &dir).await;
    let mut sessions = JoinSet::new();
    for session in plan.sessions {
        sessions.spawn(drive(Arc::clone(&world), session, plan.dice.fork()));
    }
    let mut dice = plan.dice.fork();
    for _ in 0..dice.between(4, 9) {
        pair.strike(&mut dice).await?;
    }
    let mut reports = Vec::new();
    while let Some(report) = sessions.join_next().await {
        match report.map_err(|error| error.to_string())? {
            Ok(report) => reports.push(report),
            Err(error) => return Err(round::with_sessions(&world, error).await),
        }
    }
    let taken = pair.taken;
    pair.mend(None)?;
    pair.servers.into_iter().for_each(Server::kill);
    // What is looked at is what is durable, not what a server remembers.
    let mut server = Server::start(&world.data, &[]);
    server.ready().await;
    let counts = round::check(&world, &model, &reports).await?;
    server.stop();
    let left = server::find(&round::mark(&world));
    if !left.is_empty() {
        return Err(format!("processes {left:?} are left"));
    }
    Ok((counts, taken))
}

/// A server that is stopped is ended after its time, and the one that stands by takes its place; a
/// server that answers keeps the directory for as long as it does.
#[test]
fn a_silent_server_is_ended_and_one_that_answers_is_not() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data");
        let mut first = Server::start(&data, &[]);
        first.ready().await;
        let mut never = Server::start(&data, &["--takeover-after", "0"]);
        assert_eq!(ended(&mut never).await, Some(4), "it answers");
        signal(&first, Signal::STOP);
        let mut never = Server::start(&data, &["--takeover-after", "0"]);
        assert_eq!(ended(&mut never).await, Some(4), "it is told not to");
        assert!(first.has_ended().is_none());
        assert!(first.errors().contains("does not answer"), "{}", first.errors());
        signal(&first, Signal::CONT);
        first.ready().await;
        let mut second = Server::start(&data, &["--standby", "--takeover-after", "1"]);
        let stands_by = || first.errors().contains("standing by");
        timeout(Duration::from_secs(30), async {
            while !stands_by() {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap();
        assert!(first.has_ended().is_none(), "it answers");
        signal(&first, Signal::STOP);
        second.ready().await;
        let status = loop {
            match first.has_ended() {
                Some(status) => break status,
                None => sleep(Duration::from_millis(10)).await,
            }
        };
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
        let info = server::client(&data).get_info(Default::default()).await.unwrap();
        assert_eq!(info.pid, second.pid());
        second.stop();
    });
}

async fn ended(server: &mut Server) -> Option<i32> {
    loop {
        if let Some(status) = server.has_ended() {
            return status.code();
        }
        sleep(Duration::from_millis(10)).await;
    }
}
