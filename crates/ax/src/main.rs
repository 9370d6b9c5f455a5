//! `ax`: the command line of Agent Executor.
//!
//! It says what a person or a script sees: arguments, output, exit codes. What it does it does
//! through the client, whether a server runs or the engine is in this process.

mod args;
mod ask;
mod cmd;
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
mod takeover;
mod time;
mod view;
mod watch;

use args::{Cli, Command};
use ax_engine::Code;
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use exit::Exit;
use failure::Failure;
use link::Context;
use out::{Color, Out};
use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if args.get(1).is_some_and(|arg| arg == "__supervise") {
        return ax_harness::supervise::main(args.into_iter().skip(2));
    }
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return refused(&error, &args),
    };
    let out = Out::new(cli.global.json, cli.global.quiet, cli.global.color);
    trace(&out);
    let context = Context { global: cli.global.or_environment(), out };
    match run(&context, cli.command) {
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

/// What the engine has to say goes to standard error: warnings, or as `AX_LOG` says.
fn trace(out: &Out) {
    let filter = EnvFilter::try_from_env("AX_LOG").unwrap_or_else(|_| EnvFilter::new("error"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(out.watched);
    subscriber.with_writer(std::io::stderr).init();
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
        Command::Auth(args) => cmd::auth::auth(cx, args).await,
        Command::Fsck(args) => cmd::fsck::fsck(cx, &args).await,
        Command::Doctor => cmd::doctor::doctor(cx).await,
        Command::Demo(args) => cmd::demo::demo(cx, &args).await,
        Command::Fakemodel(args) => cmd::fakemodel::fakemodel(cx, args).await,
        Command::Completions(_) => Ok(Exit::Done),
    }
}
