//! Manifests on the way to an engine.

use crate::failure::Failure;
use ax_client::Client;
use ax_engine::Code;
use ax_engine::manifest::{Problem, validate};
use ax_proto::v1;
use std::io::Read as _;
use std::path::Path;

/// The largest manifest, in bytes.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// Reads a manifest; `-` is standard input.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::file("read", path, &error))?;
    if bytes.len() as u64 > MANIFEST_BYTES_MAX {
        let message = format!("{} is larger than 1 MiB", path.display());
        return Err(Failure::new(Code::TooLarge, message).hint("this is not a manifest"));
    }
    String::from_utf8(bytes).map_err(|error| {
        Failure::new(Code::Manifest, format!("{} is not UTF-8 text", path.display()))
            .hint("a manifest is YAML: `ax agent init` writes one")
            .because(&error)
    })
}

/// Stores the manifest at `path`; returns the agent, and whether it was stored already.
pub(crate) async fn apply(client: &Client, path: &Path) -> Result<(v1::Agent, bool), Failure> {
    let manifest = read(path)?;
    let dir = match path.parent().filter(|_| path != Path::new("-")) {
        Some(dir) => std::path::absolute(dir.join("./")),
        None => std::env::current_dir(),
    };
    let dir = dir.map_err(|error| Failure::file("found", path, &error))?;
    let dir = dir.to_string_lossy().into_owned();
    let request = v1::ApplyAgentRequest { manifest: manifest.clone(), dir, ..Default::default() };
    match client.apply_agent(request).await {
        Ok(applied) => Ok((applied.agent.unwrap_or_default(), applied.unchanged)),
        Err(error) if error.code == Code::Manifest.to_string() => {
            let problems = validate(&manifest);
            if problems.is_empty() { Err(error.into()) } else { Err(wrong(path, &problems)) }
        }
        Err(error) => Err(error.into()),
    }
}

/// The failure of a manifest with problems.
pub(crate) fn wrong(path: &Path, problems: &[Problem]) -> Failure {
    let count = problems.len();
    let words = if count == 1 { "a problem".into() } else { format!("{count} problems") };
    let message = format!("the manifest {} has {words}", path.display());
    let failure = Failure::new(Code::Manifest, message)
        .hint("`ax agent init` writes a manifest that works, docs/formats/manifest.md has it all");
    Failure { causes: problems.iter().map(ToString::to_string).collect(), ..failure }
}
