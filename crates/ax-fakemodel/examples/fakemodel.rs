//! Runs the scripted model server until it is killed.
//!
//! ```text
//! cargo run -p ax-fakemodel --example fakemodel -- [--script FILE] [--ledger FILE] [--listen ADDR]
//! ```
//!
//! Prints one line of JSON when it answers: `{"address": "127.0.0.1:40123", "url": "http://…"}`.

use ax_fakemodel::{Options, Script};
use std::io::Write as _;
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            drop(writeln!(std::io::stderr(), "error: {message}"));
            ExitCode::from(2)
        }
    }
}

async fn run() -> Result<(), String> {
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--script" => {
                let text = std::fs::read_to_string(&value);
                let text = text.map_err(|error| format!("{value}: {error}"))?;
                options.script = Script::from_json(&text).map_err(|error| error.to_string())?;
            }
            "--ledger" => options.ledger_file = Some(value.into()),
            "--listen" => {
                options.listen = value.parse().map_err(|_| format!("{value} is no address"))?;
            }
            _ => return Err(format!("{name} is not known")),
        }
    }
    let ready = |address| {
        let line = serde_json::json!({
            "address": address, "url": format!("http://{address}")
        });
        drop(writeln!(std::io::stdout(), "{line}"));
    };
    ax_fakemodel::serve(options, ready).await.map_err(|error| error.to_string())
}
