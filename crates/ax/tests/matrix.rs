//! The programs of `examples/unmodified`, none of which has heard of Agent Executor: the harness,
//! the server, or both are killed at random moments while the model speaks and the tools work. The
//! harness finishes; no answer is paid twice but one that was under way when the server died; what
//! must not happen twice does not, and a person is asked where nobody can know.
//!
//! `AX_MATRIX_ROUNDS` and `AX_SEED` say how often and from where. The tests in `heavy` install
//! programs of hundreds of megabytes; `cargo xtask full matrix` runs them.

#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::print_stdout, reason = "its figures are its purpose")]

#[path = "crash/server.rs"]
#[expect(dead_code, reason = "another test uses more of it")]
mod server;

#[path = "crash/dice.rs"]
#[expect(dead_code, reason = "another test uses more of it")]
mod dice;

#[path = "langgraph/python.rs"]
mod python;

#[path = "matrix/judge.rs"]
mod judge;
#[path = "matrix/person.rs"]
mod person;
#[path = "matrix/round.rs"]
mod round;
#[path = "matrix/rows.rs"]
mod rows;

use rows::Row;

/// Programs that start within a second or two.
mod light {
    use super::{kill, rows};

    #[tokio::test(flavor = "multi_thread")]
    async fn built_in_pays_no_answer_twice() {
        kill(rows::BUILT_IN).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn langgraph_pays_no_answer_twice() {
        kill(rows::LANGGRAPH).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn adk_pays_no_answer_twice() {
        kill(rows::ADK).await;
    }
}

/// Whole products.
mod heavy {
    use super::{kill, rows};

    #[tokio::test(flavor = "multi_thread")]
    async fn antigravity_pays_no_answer_twice() {
        kill(rows::ANTIGRAVITY).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn claude_code_pays_no_answer_twice() {
        kill(rows::CLAUDE_CODE).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn codex_pays_no_answer_twice() {
        kill(rows::CODEX).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn gemini_cli_pays_no_answer_twice() {
        kill(rows::GEMINI_CLI).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn opencode_pays_no_answer_twice() {
        kill(rows::OPENCODE).await;
    }
}

/// Lets a harness work some rounds, kills on the way, and prints what was counted.
async fn kill(row: Row) {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().unwrap())
    };
    let (rounds, seed) = (number("AX_MATRIX_ROUNDS", 2), number("AX_SEED", 1));
    let installed = row.install();
    let mut counts = judge::Counts::default();
    for round in 0..rounds {
        round::play(row, &installed, seed.wrapping_add(round), &mut counts).await;
    }
    // A kill that hits nobody proves nothing.
    assert!(counts.lost > 0, "seed {seed}: nobody was hit in {} kills", counts.kills);
    println!("{}", counts.line(row.name));
}
