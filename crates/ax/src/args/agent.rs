//! `ax agent …`.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    #[command(subcommand)]
    pub(crate) command: AgentCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Write a manifest to begin with, and what belongs to it
    Init {
        /// Kind of agent
        #[arg(value_enum)]
        template: Template,
        /// Directory to write to; made if it does not exist
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// Name of the agent
        #[arg(long)]
        name: Option<String>,
    },
    /// Store a manifest as the newest version of its agent
    Apply {
        /// Manifest; - for standard input
        #[arg(long, short = 'f', value_name = "FILE")]
        file: PathBuf,
    },
    /// List agents
    List,
    /// Show an agent's manifest
    Show {
        /// NAME or NAME@VERSION
        agent: String,
    },
    /// Delete an agent; its sessions stay
    Delete {
        /// Name
        agent: String,
    },
    /// Say everything that is wrong with a manifest
    Validate {
        /// Manifest; - for standard input
        #[arg(long, short = 'f', value_name = "FILE")]
        file: PathBuf,
    },
}

/// What `ax agent init` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Template {
    /// Any program: its input is standard input, its lines are output
    Process,
    /// A model with tools, and no code of your own
    Builtin,
    /// A Python program with durable steps
    Python,
    /// A LangGraph graph with durable steps
    Langgraph,
    /// An app of Google's ADK whose effects are not repeated
    Adk,
    /// A program that knows nothing of ax; its model calls are journaled
    Gateway,
    /// Any agent that speaks the Agent Client Protocol
    Acp,
    /// Codex
    Codex,
    /// Claude Code
    ClaudeCode,
    /// OpenCode
    Opencode,
    /// Gemini CLI
    GeminiCli,
    /// Google Antigravity
    Antigravity,
    /// An agent at its provider, behind the Gemini Interactions API
    DeepResearch,
}
