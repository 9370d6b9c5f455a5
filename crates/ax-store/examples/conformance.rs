//! Runs the conformance suite against a store, for backends that no test can start.
//!
//! ```text
//! cargo run -p ax-store --features s3 --example conformance -- URL [OPTION=VALUE…]
//! ```
//!
//! The store must be empty. It prints the promises that hold, and panics at one that does not.
//! Damage is not tried: only tests of the local and the memory backend can do it.

use ax_store::{Blobs, conformance};
use std::io::Write as _;
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "memory:".to_owned());
    let options: Vec<(String, String)> = arguments
        .filter_map(|option| Some(option.split_once('=')?).map(|(k, v)| (k.into(), v.into())))
        .collect();
    let blobs = match Blobs::from_url(&url, options) {
        Ok(blobs) => blobs,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "error: {error}"));
            return ExitCode::from(2);
        }
    };
    let say = |promise: &str| drop(writeln!(std::io::stdout(), "{promise}: kept"));
    conformance::same(&blobs).await;
    say("1 same");
    conformance::once(&blobs).await;
    say("2 once");
    conformance::tenants(&blobs).await;
    say("3 tenants");
    conformance::whole(&blobs).await;
    say("4 whole");
    conformance::large(&blobs).await;
    say("5 large");
    conformance::collected(&blobs).await;
    say("6 collected");
    conformance::race(&blobs).await;
    say("7 race");
    ExitCode::SUCCESS
}
