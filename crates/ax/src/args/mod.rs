//! The command line.

mod agent;
mod auth;
mod image;
mod session;

pub(crate) use agent::{AgentArgs, AgentCommand, Template};
pub(crate) use auth::{AuthArgs, AuthCommand, KeyCommand, ShareCommand};
pub(crate) use image::{ImageArgs, ImageCommand};
pub(crate) use session::{ExportFormat, SessionArgs, SessionCommand, StateName};

use crate::config::Given;
use crate::out::Color;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Runs agents durably: what an agent does is an event in a log, and nothing of it is lost.
#[derive(Debug, Parser)]
#[command(name = "ax", version, max_term_width = 100)]
#[command(after_help = "Start with `ax demo`: it needs no key and no network.\n\
    Exit codes: 0 done, 1 the agent failed, 2 usage, 3 configuration, 4 unavailable, \
    5 waits for a person, 6 canceled, 7 timed out, 130 interrupted.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What holds for every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Socket of a server, or its http(s) address [default: $AX_SERVER, else the data directory's]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// Data directory [default: $AX_DATA, else $XDG_DATA_HOME/agent-executor]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Whether the directory was named on the command line, and not by the environment.
    #[arg(skip)]
    pub(crate) data_named: bool,
    /// Configuration file [default: $AX_CONFIG, else config.yaml in the data directory]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Set a setting, as the file would; may be given more than once
    #[arg(long, global = true, value_name = "SETTING=VALUE")]
    pub(crate) set: Vec<String>,
    /// Namespace [default: $AX_NAMESPACE, else default]
    #[arg(long, global = true)]
    pub(crate) namespace: Option<String>,
    /// Print one JSON object a line, and nothing else, on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print results and errors only
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// When to use color: auto, always, never
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    #[arg(hide_possible_values = true)]
    pub(crate) color: Color,
}

impl Cli {
    /// What the command line and the environment say of settings.
    pub(crate) fn given(&self) -> Given {
        let mut flags = Vec::new();
        if let Some(data) = &self.global.data {
            flags.push(("data", data.to_string_lossy().into_owned()));
        }
        if let Command::Serve(serve) = &self.command {
            serve.settings(&mut flags);
        }
        Given {
            file: self.global.config.clone(),
            set: self.global.set.clone(),
            flags,
            environment: std::env::vars_os().collect(),
            // Without one, relative paths stay as they are.
            dir: std::env::current_dir().unwrap_or_default(),
        }
    }
}

impl ServeArgs {
    /// Its flags that stand for settings.
    fn settings(&self, flags: &mut Vec<(&'static str, String)>) {
        let mut put = |path, value: Option<String>| {
            flags.extend(value.map(|value| (path, value)));
        };
        let listed = |list: Vec<String>| (!list.is_empty()).then(|| list.join(","));
        let addresses = self.listen.iter().map(ToString::to_string).collect();
        put("listen.address", listed(addresses));
        put("listen.insecure_no_auth", self.insecure_no_auth.then(|| "true".into()));
        put("listen.allow_unsandboxed", self.allow_unsandboxed.then(|| "true".into()));
        put("listen.origins", listed(self.allow_origin.clone()));
        let path = |path: &Option<PathBuf>| path.as_ref().map(|p| p.to_string_lossy().into());
        let yes = |said: bool| said.then(|| "true".to_owned());
        put("server.standby", yes(self.standby));
        put("server.takeover_after", self.takeover_after.map(|secs| format!("{secs}s")));
        put("auth.file", path(&self.auth));
        put("tls.certificate", path(&self.tls_certificate));
        put("tls.key", path(&self.tls_key));
        put("tls.client_ca", path(&self.tls_client_ca));
        put("tls.client_required", yes(self.tls_client_required));
        put("engine.runs_max", self.runs_max.map(|count| count.to_string()));
        put("engine.idle_exit", self.idle_exit.map(|secs| format!("{secs}s")));
    }
}

impl Global {
    /// Fills in from the environment what the command line does not say.
    pub(crate) fn or_environment(mut self) -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let text = |name| variable(name).map(|value| value.to_string_lossy().into_owned());
        self.server = self.server.or_else(|| text("AX_SERVER"));
        self.data_named = self.data.is_some();
        self.namespace = self.namespace.or_else(|| text("AX_NAMESPACE"));
        self
    }

    /// The namespace.
    pub(crate) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or(ax_core::id::Namespace::DEFAULT)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Give an agent an input and follow what it does
    Run(RunArgs),
    /// Run the server of the data directory
    Serve(ServeArgs),
    /// Follow a session: what happened, then what happens
    Follow(FollowArgs),
    /// Read the log of a session
    Events(EventsArgs),
    /// Answer a question that a session waits with
    Answer(AnswerArgs),
    /// Send a session a signal
    Signal(SignalArgs),
    /// Stop what a session does
    Cancel(CancelArgs),
    /// List, show, delete, rename, export and import sessions
    Session(SessionArgs),
    /// Remember a position of a session
    Checkpoint(CheckpointArgs),
    /// Make sessions that share the history of another one
    Branch(BranchArgs),
    /// Draw a session and its branches
    Tree(TreeArgs),
    /// Make, store, list, show, validate and delete agents
    Agent(AgentArgs),
    /// Take in, fetch, list, show and delete images for sandboxes
    Image(ImageArgs),
    /// Make and revoke keys, show the audit log
    Auth(AuthArgs),
    /// Check what is stored, and repair it
    Fsck(FsckArgs),
    /// Check that everything is there that ax needs
    Doctor,
    /// Show on a real agent that nothing is lost and nothing is done twice
    Demo(DemoArgs),
    /// Print the completions of a shell
    Completions(CompletionsArgs),
    /// Run the scripted model server
    #[command(hide = true)]
    Fakemodel(FakemodelArgs),
}

impl Command {
    /// Whether it goes by the settings, so that they must be right.
    pub(crate) const fn is_strict(&self) -> bool {
        !matches!(self, Self::Doctor | Self::Demo(_) | Self::Completions(_) | Self::Fakemodel(_))
    }
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The input; standard input if it is left out and not a terminal
    pub(crate) input: Vec<String>,
    /// Agent of a new session: NAME or NAME@VERSION
    #[arg(long, short)]
    pub(crate) agent: Option<String>,
    /// Manifest to apply first, and whose agent to use
    #[arg(long, short = 'f', value_name = "FILE", conflicts_with = "agent")]
    pub(crate) manifest: Option<PathBuf>,
    /// Session: an id, or a name of your own; a new one if it is left out
    #[arg(long, short)]
    pub(crate) session: Option<String>,
    /// Title of a new session
    #[arg(long)]
    pub(crate) title: Option<String>,
    /// File to send along with the input; may be given more than once
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Vec<PathBuf>,
    /// Idempotency key: the same input under the same key is recorded once
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// What becomes of the input while the session is busy; the agent says if left out
    #[arg(long, value_enum)]
    pub(crate) policy: Option<Policy>,
    /// Leave the work to a server in the background, and print the session's id
    #[arg(long, conflicts_with_all = ["wait", "no_wait"])]
    pub(crate) detach: bool,
    /// Wait for a person who answers elsewhere, instead of ending with code 5
    #[arg(long)]
    pub(crate) wait: bool,
    /// End with code 5 when the session waits for a person, instead of asking here
    #[arg(long, conflicts_with = "wait")]
    pub(crate) no_wait: bool,
}

/// What becomes of an input while an execution is under way.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Policy {
    Enqueue,
    Reject,
    Interrupt,
    Branch,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address to listen on, such as 127.0.0.1:7700, beside the socket; port 0 takes a free one;
    /// may be given more than once
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Vec<std::net::SocketAddr>,
    /// Let anybody who reaches an address do anything, without authentication
    #[arg(long, requires = "listen")]
    pub(crate) insecure_no_auth: bool,
    /// Run programs without a sandbox where a manifest says `sandbox: process`, which a server that
    /// listens refuses otherwise
    #[arg(long, requires = "listen")]
    pub(crate) allow_unsandboxed: bool,
    /// Origin of web pages that may use the server in a browser, such as https://example.com; *
    /// for all; may be given more than once
    #[arg(long, value_name = "ORIGIN", requires = "listen")]
    pub(crate) allow_origin: Vec<String>,
    /// File that says who is let in at addresses beside those with a key
    #[arg(long, value_name = "FILE", requires = "listen")]
    pub(crate) auth: Option<PathBuf>,
    /// Certificate for TLS at the addresses, in PEM; read again when it changes
    #[arg(long, value_name = "FILE", requires = "listen", requires = "tls_key")]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// Key of the certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Authorities whose certificates clients may show, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub(crate) tls_client_ca: Option<PathBuf>,
    /// Turn clients without a certificate away
    #[arg(long, requires = "tls_client_ca")]
    pub(crate) tls_client_required: bool,
    /// Stop after so many seconds without a client and without work
    #[arg(long, value_name = "SECS")]
    pub(crate) idle_exit: Option<u64>,
    /// How many attempts may run at once [default: 64]
    #[arg(long, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) runs_max: Option<u32>,
    /// Wait while another server has the data directory, and take its place when it ends
    #[arg(long)]
    pub(crate) standby: bool,
    /// End a server that has the data directory and does not answer for so many seconds, and take
    /// its place; 0 for never [default: 15]
    #[arg(long, value_name = "SECS")]
    pub(crate) takeover_after: Option<u64>,
    /// Leave the terminal
    #[arg(long, hide = true)]
    pub(crate) detached: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FollowArgs {
    /// Session: id or name
    pub(crate) session: String,
    /// Begin after this position
    #[arg(long, default_value_t = 0, value_name = "SEQ")]
    pub(crate) after: u64,
    /// End when nothing runs and nothing is due
    #[arg(long)]
    pub(crate) until_idle: bool,
    /// Leave out the pieces of streamed output
    #[arg(long)]
    pub(crate) no_deltas: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Session: id or name
    pub(crate) session: String,
    /// Begin after this position
    #[arg(long, default_value_t = 0, value_name = "SEQ")]
    pub(crate) after: u64,
    /// Show so many at most
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit: Option<u64>,
    /// Only these kinds, such as step.completed, or groups of them, such as step
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub(crate) kind: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AnswerArgs {
    /// Session: id or name
    pub(crate) session: String,
    /// Question, such as ask_1; may be left out if only one is open
    pub(crate) ask: Option<String>,
    #[command(flatten)]
    pub(crate) answer: AnswerKind,
    /// Why, with --deny; a remark, with --choose
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["approve", "text"])]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct AnswerKind {
    /// Yes
    #[arg(long)]
    pub(crate) approve: bool,
    /// No
    #[arg(long)]
    pub(crate) deny: bool,
    /// One of the choices
    #[arg(long, value_name = "CHOICE")]
    pub(crate) choose: Option<String>,
    /// Free text
    #[arg(long)]
    pub(crate) text: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SignalArgs {
    /// Session: id or name
    pub(crate) session: String,
    /// Name of the signal
    pub(crate) name: String,
    /// What comes with it, as JSON
    #[arg(default_value = "null")]
    pub(crate) payload: String,
    /// Idempotency key: the same signal under the same key is recorded once
    #[arg(long)]
    pub(crate) key: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// Session: id or name
    pub(crate) session: String,
    /// Only this execution, such as exec_2
    #[arg(long, value_name = "EXEC")]
    pub(crate) execution: Option<String>,
    /// Take back the inputs that wait, too
    #[arg(long)]
    pub(crate) queued: bool,
    /// Why
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct CheckpointArgs {
    /// Session: id or name
    pub(crate) session: String,
    /// Name of the checkpoint
    #[arg(long, default_value = "")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct BranchArgs {
    /// Session: id or name
    pub(crate) session: String,
    /// Last position to share; the last of all if left out
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) at: Option<u64>,
    /// Checkpoint to branch at
    #[arg(long, conflicts_with = "at", value_name = "NAME")]
    pub(crate) checkpoint: Option<String>,
    /// How many branches
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) count: u32,
    /// Carry on the execution that was under way there
    #[arg(long)]
    pub(crate) carry_on: bool,
    /// Name of a branch; may be given more than once
    #[arg(long)]
    pub(crate) name: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TreeArgs {
    /// Session: id or name
    pub(crate) session: String,
}

#[derive(Debug, Args)]
pub(crate) struct FsckArgs {
    /// Cut what is damaged and save the rest
    #[arg(long)]
    pub(crate) repair: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Keep the data directory of the demo
    #[arg(long)]
    pub(crate) keep: bool,
    /// Let the model of a provider decide, with your key: nothing isolates what it does
    #[arg(long)]
    pub(crate) real_model: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct FakemodelArgs {
    /// Script, in JSON; without one the prompt decides
    #[arg(long, value_name = "FILE")]
    pub(crate) script: Option<PathBuf>,
    /// Ledger of requests, appended to
    #[arg(long, value_name = "FILE")]
    pub(crate) ledger: Option<PathBuf>,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR")]
    pub(crate) listen: std::net::SocketAddr,
}
