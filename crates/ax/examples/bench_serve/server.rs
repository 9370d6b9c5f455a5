//! A server as a process of its own.

use ax_client::{Client, Credentials};
use ax_proto::v1;
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// An agent that works for ever on its first input, so that the others wait in the log.
const MANIFEST: &str = "
apiVersion: agentexecutor.dev/v1
kind: Agent
metadata: {name: busy}
spec:
  sandbox: process
  harness: {type: process, protocol: text, command: [sleep, \"1000000\"]}
  limits: {queue: 10000}
";
/// The unit of times in /proc, in seconds.
const TICK_SECONDS: f64 = 0.01;

/// The server, and where it is.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// Host and port.
    pub(crate) address: String,
}

impl Server {
    /// Starts `ax serve` on a fresh directory.
    pub(crate) fn start(ax: &Path, data: &Path) -> Self {
        let mut child = Command::new(ax)
            .args([
                "serve",
                "--json",
                "--listen",
                "127.0.0.1:0",
                "--insecure-no-auth",
                "--allow-unsandboxed",
            ])
            .args(["--runs-max", "1024", "--data"])
            .arg(data)
            // The gateway wants one; nobody here looks at it.
            .env("ANTHROPIC_API_KEY", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        let address = said["addresses"][0].as_str().unwrap();
        let address = address.trim_start_matches("http://").to_owned();
        Self { child, address }
    }

    /// A client over a connection of its own.
    pub(crate) fn client(&self) -> Client {
        let address = format!("http://{}", self.address).parse().unwrap();
        Client::at(&address, &Credentials::default(), "default").unwrap()
    }

    /// Makes sessions whose agent is busy, so that what is submitted only waits.
    pub(crate) async fn busy(&self, prefix: &str, count: usize) -> Vec<String> {
        let client = self.client();
        let manifest = MANIFEST.to_owned();
        let request = v1::ApplyAgentRequest { manifest, ..Default::default() };
        client.apply_agent(request).await.unwrap();
        let mut names = Vec::new();
        for number in 0..count {
            let name = format!("{prefix}-{number}");
            client.submit(input(&name, 1)).await.unwrap();
            names.push(name);
        }
        names
    }

    /// How long it has computed, in seconds, without the processes that it started.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.child.id())
    }

    /// The same to the nanosecond, without threads that have ended.
    pub(crate) fn cpu_seconds_of_threads(&self) -> f64 {
        cpu_seconds_of_threads(self.child.id())
    }

    /// Its resident memory, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        memory(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// How long a process has computed, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit(')').next().unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2).map(|word| word.parse::<f64>().unwrap());
    ticks.sum::<f64>() * TICK_SECONDS
}

/// How long the threads that a process has now have computed, in seconds: finer than
/// [`cpu_seconds`], but without threads that have ended.
pub(crate) fn cpu_seconds_of_threads(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    // One may end while it is looked at.
    let stats = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    stats.sum::<f64>() / 1e9
}

/// The resident memory of a process, in bytes.
pub(crate) fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

/// An input of so many bytes.
pub(crate) fn input(session: &str, bytes: usize) -> v1::SubmitRequest {
    let body = v1::Body { body: Some(v1::body::Body::Text("x".repeat(bytes))) };
    let part = v1::Part {
        kind: v1::PartKind::Text.into(),
        media_type: "text/plain".into(),
        name: String::new(),
        body: Some(body),
    };
    v1::SubmitRequest {
        session: session.to_owned(),
        agent: "busy".into(),
        parts: vec![part],
        ..Default::default()
    }
}
