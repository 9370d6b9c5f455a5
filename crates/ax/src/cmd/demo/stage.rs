//! What the demo plays on: a data directory, a model, a server that can be killed.

use crate::args::DemoArgs;
use crate::embed::programs;
use crate::failure::Failure;
use crate::link::Context;
use crate::paths::DataDir;
use crate::provider::Provider;
use ax_client::Client;
use ax_engine::Code;
use ax_fakemodel::{Entry, FakeModel, Options, Script};
use ax_proto::v1;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

const SCRIPT: &str = include_str!("../../../templates/demo-script.json");
const MANIFEST: &str = include_str!("../../../templates/demo.yaml");

/// Everything that the demo needs.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) data: DataDir,
    pub(super) client: Client,
    /// The scripted model; `None` if a provider's is used.
    model: Option<FakeModel>,
    provider: Provider,
    /// Why there is no sandbox, if there is none.
    pub(super) unsandboxed: Option<String>,
    server: Child,
    temp: Option<TempDir>,
    keep: bool,
}

impl Stage {
    /// Makes the directory, starts model and server, and applies the agent.
    pub(super) async fn set(cx: &Context, args: &DemoArgs) -> Result<Self, Failure> {
        let (data, temp) = directory(cx)?;
        let real = if args.real_model { Some(Provider::find().ok_or_else(no_key)?) } else { None };
        let model = match real {
            Some(_) => None,
            None => Some(scripted(&data).await?),
        };
        let server = start(&data).await?;
        let client = Client::unix(data.socket()?, "default");
        let provider = real.unwrap_or(Provider::ANTHROPIC);
        let probed = ax_sandbox::probe(&programs(&data, true).sandboxes()).await;
        let unsandboxed = probed.err().map(|refusal| refusal.cause);
        let keep = args.keep;
        let stage = Self { data, client, model, provider, unsandboxed, server, temp, keep };
        stage.apply().await?;
        Ok(stage)
    }

    /// What the agent's commands run in: a sandbox, unless this machine cannot build one.
    pub(super) const fn sandbox(&self) -> &'static str {
        if self.unsandboxed.is_some() { "process" } else { "namespace" }
    }

    async fn apply(&self) -> Result<(), Failure> {
        let name = if self.is_scripted() { "scripted" } else { self.provider.model };
        let url =
            self.model.as_ref().map(|model| format!("\n      base_url: {}", model.base_url()));
        let model = format!("{name}{}", url.unwrap_or_default());
        let manifest = MANIFEST.replace("PROVIDER", self.provider.name).replace("MODEL", &model);
        let manifest = manifest.replace("SANDBOX", self.sandbox());
        let request = v1::ApplyAgentRequest { manifest, ..Default::default() };
        self.client.apply_agent(request).await?;
        Ok(())
    }

    /// Whether the model is the bundled one.
    pub(super) const fn is_scripted(&self) -> bool {
        self.model.is_some()
    }

    pub(super) fn model_words(&self) -> String {
        match &self.model {
            Some(_) => "scripted, on this machine: no key, no network".into(),
            None => format!("{} of {}, with your key", self.provider.model, self.provider.name),
        }
    }

    /// What the scripted model was asked.
    pub(super) fn ledger(&self) -> Vec<Entry> {
        self.model.as_ref().map(FakeModel::ledger).unwrap_or_default()
    }

    /// The file that the agent's commands append to.
    pub(super) fn effects(&self, session: &str) -> PathBuf {
        self.data.root.join("workspaces/default").join(session).join("effects.log")
    }

    /// What is in that file.
    pub(super) fn effect_lines(&self, session: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.effects(session)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Kills the server as a power cut would, and starts another; returns the pid of the dead.
    pub(super) async fn kill(&mut self) -> Result<u32, Failure> {
        let pid = self.server.id().unwrap_or_default();
        let killed = self.server.kill().await;
        killed.map_err(|error| {
            Failure::new(Code::Internal, "the server cannot be killed").because(&error)
        })?;
        self.server = start(&self.data).await?;
        Ok(pid)
    }

    /// Stops everything, and removes it unless it is to be kept.
    pub(super) async fn clear(mut self) -> Result<(), Failure> {
        // A server that is gone already is stopped, too.
        drop(self.client.shutdown(v1::ShutdownRequest {}).await);
        drop(self.server.wait().await);
        if let Some(model) = self.model {
            model.shutdown().await;
        }
        if let Some(temp) = self.temp.filter(|_| self.keep) {
            let _kept = temp.keep();
        }
        Ok(())
    }
}

fn no_key() -> Failure {
    let names = Provider::ALL.map(|provider| provider.key).join(", ");
    Failure::usage("there is no key of a provider").hint(format!("set one of {names}"))
}

fn directory(cx: &Context) -> Result<(DataDir, Option<TempDir>), Failure> {
    if cx.global.data_named {
        let data = cx.data()?;
        data.make()?;
        if let Some(holder) = data.holder() {
            let message = format!("{} is in use by pid {}", data.root.display(), holder.pid);
            return Err(Failure::new(Code::Locked, message).hint(
                "the demo kills its server: leave out --data to give it a directory of its own",
            ));
        }
        return Ok((data, None));
    }
    let temp = tempfile::Builder::new().prefix("ax-demo-").tempdir().map_err(|error| {
        Failure::new(Code::Directory, "a temporary directory cannot be made").because(&error)
    })?;
    Ok((DataDir { root: temp.path().to_owned() }, Some(temp)))
}

async fn scripted(data: &DataDir) -> Result<FakeModel, Failure> {
    let script = Script::from_json(SCRIPT).map_err(|error| {
        Failure::new(Code::Internal, "the bundled script is wrong").because(&error)
    })?;
    let listen = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let ledger_file = Some(data.root.join("ledger.jsonl"));
    let model = FakeModel::start(Options { script, ledger_file, listen }).await;
    model.map_err(|error| {
        Failure::new(Code::Unavailable, "the scripted model cannot be started").because(&error)
    })
}

/// Starts a server and waits until it serves.
async fn start(data: &DataDir) -> Result<Child, Failure> {
    let failed = |error: &std::io::Error| {
        Failure::new(Code::Unavailable, "the server of the demo cannot be started").because(error)
    };
    let exe = std::env::current_exe().map_err(|error| failed(&error))?;
    let mut server = Command::new(exe)
        .args(["serve", "--json", "--idle-exit", "30", "--set", "log.level=error", "--data"])
        .arg(&data.root)
        .env_remove("AX_SERVER")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(&error))?;
    let Some(stdout) = server.stdout.take() else {
        return Err(Failure::new(Code::Internal, "the server has no output"));
    };
    let mut lines = BufReader::new(stdout).lines();
    match lines.next_line().await {
        Ok(Some(_)) => Ok(server),
        Ok(None) => Err(Failure::new(Code::Unavailable, "the server of the demo did not start")),
        Err(error) => Err(failed(&error)),
    }
}
