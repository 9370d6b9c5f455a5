//! `ax session …`.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct SessionArgs {
    #[command(subcommand)]
    pub(crate) command: SessionCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// List sessions
    List {
        /// Only in this state; may be given more than once
        #[arg(long, value_enum)]
        state: Vec<StateName>,
        /// Only of this agent
        #[arg(long)]
        agent: Option<String>,
        /// List so many at most
        #[arg(long, value_name = "COUNT")]
        limit: Option<usize>,
    },
    /// Show what a session does and what it waits for
    Show {
        /// Session: id or name
        session: String,
        /// Show each model and tool call, what it took, and what it cost
        #[arg(long)]
        cost: bool,
    },
    /// Delete sessions; what branches share with them stays
    Delete {
        /// Sessions: ids or names
        #[arg(required = true)]
        sessions: Vec<String>,
    },
    /// Give a session another title
    Rename {
        /// Session: id or name
        session: String,
        /// Title
        title: String,
    },
    /// Print a link, or a token, with which anybody may read a session
    Share {
        /// Session: id or name
        session: String,
        /// When it stops to hold, such as 12h or 7d
        #[arg(long, value_name = "TIME", default_value = "7d")]
        #[arg(value_parser = super::auth::time)]
        expires: u64,
    },
    /// Write a session to a file: for any ax to import, or for other programs
    Export {
        /// Session: id or name
        session: String,
        /// What is written
        #[arg(long, value_enum, default_value_t = ExportFormat::Archive)]
        format: ExportFormat,
        /// File; - for standard output
        #[arg(long, short, default_value = "-", value_name = "FILE")]
        output: PathBuf,
    },
    /// Make a session of an exported file
    Import {
        /// File; - for standard input
        file: PathBuf,
        /// Name of the new session
        #[arg(long)]
        name: Option<String>,
    },
}

/// What an export can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// All of it, blobs included: `ax session import` takes it
    Archive,
    /// Its events, a JSON object a line, as `ax events --json` shows them
    Jsonl,
    /// What executions, attempts, model and tool calls took: spans, as OTLP JSON
    Otel,
}

/// The states of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StateName {
    Ready,
    Running,
    Retrying,
    WaitingAsk,
    WaitingTimer,
    WaitingSignal,
    WaitingCapacity,
    Completed,
    Failed,
    Canceled,
    TimedOut,
}
