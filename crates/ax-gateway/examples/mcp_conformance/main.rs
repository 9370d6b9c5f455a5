//! What the conformance suite of the Model Context Protocol is run against: a tool server with the
//! fixed set that the suite wants, a gateway in front of it, and a harness that does what the suite
//! wants of a client, through a gateway.
//!
//! `mcp_conformance server COMMAND…` and `mcp_conformance gateway COMMAND…` serve while a command
//! runs, in which `URL` stands for their address, and end as it does. `mcp_conformance client URL`
//! uses the tools of a server.

mod client;
mod fixture;
mod gateway;
mod tools;

use std::error::Error;
use std::process::ExitCode;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (role, words) = words.split_first().ok_or("usage: mcp_conformance ROLE …")?;
    match (role.as_str(), words) {
        ("server", words) => {
            let url = fixture::serve().await?;
            while_it_runs(words, &url).await
        }
        ("gateway", words) => {
            let gateway = gateway::open(&fixture::serve().await?).await?;
            let url = gateway::serve(&gateway).await?;
            while_it_runs(words, &url).await
        }
        ("client", [url]) => {
            client::run(url).await?;
            Ok(ExitCode::SUCCESS)
        }
        _ => Err("usage: mcp_conformance server COMMAND… | gateway COMMAND… | client URL".into()),
    }
}

async fn while_it_runs(words: &[String], url: &str) -> Outcome<ExitCode> {
    let mut words = words.iter().map(|word| if word == "URL" { url } else { word });
    let program = words.next().ok_or("there is no command")?;
    let status = tokio::process::Command::new(program).args(words).status().await?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
