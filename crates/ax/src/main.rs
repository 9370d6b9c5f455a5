//! `ax`: the command line of Agent Executor.
//!
//! It says what a person or a script sees: arguments, output, exit codes. What it does it does
//! through the client, whether a server runs or the engine is in this process.

mod args;
mod ask;
mod cmd;
mod config;
mod embed;
mod exit;
mod failure;
mod guard;
mod input;
mod interrupt;
mod link;
mod manifest;
mod out;
mod paths;
mod provider;
mod secrecy;
mod service;
mod takeover;
mod telemetry;
mod time;
mod view;
mod watch;

use args::{Cli, Command};
use ax_engine::Code;
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use config::Config;
use exit::Exit;
use failure::Failure;
use link::Context;
use out::{Color, Out};
use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

/// A request is some hundred small allocations that other threads let go of: with this it costs a
/// quarter less than with the allocator of glibc (`cargo xtask bench serve submits`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if args.get(1).is_some_and(|arg| arg == "__supervise") {
        return ax_harness::supervise::main(args.into_iter().skip(2));
    }
    if args.get(1).is_some_and(|arg| arg == "__sandbox") {
        return ax_sandbox::launcher::main();
    }
    let secrecy = secrecy::keep();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return refused(&error, &args),
    };
    let out = Out::new(cli.global.json, cli.global.quiet, cli.global.color);
    let given = cli.given();
    let config = config::load(&given);
    let logs = telemetry::Logs::start(&config, level(&cli.command), out.watched);
    if let Err(error) = secrecy {
        tracing::warn!(%error, "core dumps of this process cannot be prevented");
    }
    let mut global = cli.global.or_environment();
    global.data = config.path("data");
    let context = Context { global, out, config: Arc::new(config), given, logs };
    let checked = if cli.command.is_strict() { check(&context.config) } else { Ok(()) };
    match checked.and_then(|()| run(&context, cli.command)) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            out.failure(&failure);
            failure.exit.into()
        }
    }
}

/// Shows help or version, or what is wrong with the arguments.
fn refused(error: &clap::Error, args: &[OsString]) -> ExitCode {
    if [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion].contains(&error.kind()) {
        // Help that nobody reads is no failure.
        drop(error.print());
        return Exit::Done.into();
    }
    if args.len() <= 1 {
        // Standard output is for results, and there are none.
        show_help();
        return Exit::Usage.into();
    }
    let json = args.iter().any(|arg| arg == "--json");
    let failure = Failure::from(error);
    Out::new(json, false, Color::Auto).failure(&failure);
    failure.exit.into()
}

fn show_help() {
    let help = Cli::command().render_help();
    let mut stderr = std::io::stderr().lock();
    // Help that nobody reads is no failure.
    drop(stderr.write_all(help.to_string().as_bytes()));
}

/// What is logged unless a setting says: a server says what it does, a command what goes wrong.
const fn level(command: &Command) -> &'static str {
    if matches!(command, Command::Serve(_)) { "info" } else { "error" }
}

/// Refuses a configuration in which something is wrong.
fn check(config: &Config) -> Result<(), Failure> {
    if config.problems.is_empty() {
        return Ok(());
    }
    let count = config.problems.len();
    let words = if count == 1 { "a problem".into() } else { format!("{count} problems") };
    let file = config.file.as_ref().map(|file| format!(" ({})", file.display()));
    let message = format!("the configuration has {words}{}", file.unwrap_or_default());
    let causes = config.problems.iter().map(ToString::to_string).collect();
    Err(Failure { causes, ..Failure::new(Code::Config, message) })
}

fn run(context: &Context, command: Command) -> Result<Exit, Failure> {
    if let Command::Completions(args) = &command {
        let mut script = Vec::new();
        clap_complete::generate(args.shell, &mut Cli::command(), "ax", &mut script);
        context.out.text(&String::from_utf8_lossy(&script))?;
        return Ok(Exit::Done);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Failure::new(Code::Internal, "no threads can be started").because(&error)
    })?;
    let done = runtime.block_on(dispatch(context, command));
    // A thread may wait for standard input for ever.
    runtime.shutdown_background();
    done
}

async fn dispatch(cx: &Context, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Run(args) => cmd::run::run(cx, args).await,
        Command::Serve(args) => cmd::serve::serve(cx, args).await,
        Command::Follow(args) => cmd::follow::follow(cx, args).await,
        Command::Events(args) => cmd::follow::events(cx, args).await,
        Command::Answer(args) => cmd::say::answer(cx, args).await,
        Command::Signal(args) => cmd::say::signal(cx, args).await,
        Command::Cancel(args) => cmd::say::cancel(cx, args).await,
        Command::Session(args) => cmd::session::session(cx, args).await,
        Command::Checkpoint(args) => cmd::say::checkpoint(cx, args).await,
        Command::Branch(args) => cmd::branch::branch(cx, args).await,
        Command::Tree(args) => cmd::branch::tree(cx, args).await,
        Command::Agent(args) => cmd::agent::agent(cx, args).await,
        Command::Image(args) => cmd::image::image(cx, args).await,
        Command::Auth(args) => cmd::auth::auth(cx, args).await,
        Command::Fsck(args) => cmd::fsck::fsck(cx, &args).await,
        Command::Doctor => cmd::doctor::doctor(cx).await,
        Command::Demo(args) => cmd::demo::demo(cx, &args).await,
        Command::Fakemodel(args) => cmd::fakemodel::fakemodel(cx, args).await,
        Command::Completions(_) => Ok(Exit::Done),
    }
}
