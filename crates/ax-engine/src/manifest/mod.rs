//! Agents as people write them: manifests in YAML, described in `docs/formats/manifest.md`.
//!
//! Everything that is wrong with a manifest is said at once, with the field, the line and what may
//! help. Nothing is guessed: an unknown field is a problem.

mod duration;
mod fields;
mod harness;
mod spec;
pub mod yaml;

use ax_core::session::{Digest, Limits};
use ax_harness::{Adapters, BackendKind};
use fields::Report;
use std::collections::BTreeMap;
use std::fmt;
use yaml::{Node, Value};

pub use duration::millis as duration_millis;
pub use fields::suggestion;

/// The `apiVersion` of every manifest.
pub const API_VERSION: &str = "agentexecutor.dev/v1";
/// The largest manifest, in bytes: it is kept in one entry of the log.
pub const MANIFEST_BYTES_MAX: usize = 128 * 1024;
/// The longest name of an agent, in bytes (as a DNS label, RFC 1123 §2.1).
pub const NAME_BYTES_MAX: usize = 63;

/// A valid manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The agent's name.
    pub name: String,
    /// What it is selected by.
    pub labels: BTreeMap<String, String>,
    /// What else is known of it.
    pub annotations: BTreeMap<String, String>,
    /// What harness and tools run in: a section, or the name of a backend; null if it is left out.
    pub sandbox: serde_json::Value,
    /// The harness, as its adapter reads it.
    pub harness: serde_json::Value,
    /// What the gateway lets the harness reach, as the gateway reads it; null if there is none.
    pub gateway: serde_json::Value,
    /// What becomes of the files of its sessions.
    pub workspace: Workspace,
    /// What holds for the executions of its sessions.
    pub limits: Limits,
    /// The BLAKE3 hash of what the manifest says, whatever its comments, order and spacing.
    pub digest: Digest,
}

/// What becomes of the files of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workspace {
    /// When they are kept.
    pub snapshots: Snapshots,
}

/// When the files of a session are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Snapshots {
    /// At each checkpoint, and at each end of an attempt or execution.
    #[default]
    Checkpoint,
    /// Also before a step of a tool or function is said to be done.
    Step,
    /// Never: a branch begins without files.
    Never,
}

impl Snapshots {
    /// What they are called in a manifest.
    const NAMES: [(&str, Self); 3] =
        [("checkpoint", Self::Checkpoint), ("step", Self::Step), ("never", Self::Never)];
}

impl Manifest {
    /// What its programs run in.
    pub fn isolation(&self) -> BackendKind {
        Adapters::validate_sandbox(&self.sandbox).unwrap_or_default()
    }
}

/// A place in a manifest, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

/// Something that is wrong with a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field, such as `spec.limits.queue`; empty if it is the manifest as a whole.
    pub path: String,
    /// Where it is, if that is known.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What may help; may be empty.
    pub hint: String,
}

impl Problem {
    /// Says what is wrong with a field.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        let (path, message) = (path.into(), message.into());
        Self { path, place: None, message, hint: String::new() }
    }

    /// Adds what may help.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Adds where it is.
    #[must_use]
    pub const fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Place { line, column }) = self.place {
            write!(f, "line {line}, column {column}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, "; {}", self.hint) }
    }
}

/// Reads the bytes of a manifest as text.
///
/// # Errors
///
/// Refuses what is too large or not UTF-8.
pub fn text(bytes: &[u8]) -> Result<&str, Problem> {
    check_size(bytes.len())?;
    std::str::from_utf8(bytes).map_err(|error| {
        let message =
            format!("the manifest is not text: byte {} is not UTF-8", error.valid_up_to());
        Problem::new("", message).with_hint("a manifest is a YAML file in UTF-8")
    })
}

fn check_size(bytes: usize) -> Result<(), Problem> {
    if bytes <= MANIFEST_BYTES_MAX {
        return Ok(());
    }
    let message = format!("the manifest has {bytes} bytes, the most is {MANIFEST_BYTES_MAX}");
    Err(Problem::new("", message).with_hint("keep large content in files beside the manifest"))
}

/// Reads a manifest that may have been stored long ago.
///
/// # Errors
///
/// Lists everything that is wrong with it.
pub fn parse(text: &str) -> Result<Manifest, Vec<Problem>> {
    parse_with(text, harness::check)
}

/// Reads a manifest that is to be stored: it promises nothing that is not kept.
///
/// # Errors
///
/// Lists everything that is wrong with it.
pub fn accept(text: &str) -> Result<Manifest, Vec<Problem>> {
    examine(text, harness::check, spec::unpriced)
}

/// Lists everything that is wrong with a manifest that is to be stored.
pub fn validate(text: &str) -> Vec<Problem> {
    accept(text).err().unwrap_or_default()
}

/// Reads a manifest, with another check of the `harness` section. The paths of the problems that it
/// finds begin at the manifest's root, such as `spec.harness.command`.
///
/// # Errors
///
/// Lists everything that is wrong with it.
pub fn parse_with(
    text: &str,
    check_harness: impl Fn(&serde_json::Value) -> Vec<Problem>,
) -> Result<Manifest, Vec<Problem>> {
    examine(text, check_harness, |_| None)
}

fn examine(
    text: &str,
    check_harness: impl Fn(&serde_json::Value) -> Vec<Problem>,
    check_manifest: impl Fn(&Manifest) -> Option<Problem>,
) -> Result<Manifest, Vec<Problem>> {
    check_size(text.len()).map_err(|problem| vec![problem])?;
    let root = yaml::read(text, "manifest").map_err(|problem| vec![problem])?;
    let mut report = Report::default();
    let manifest = read(&mut report, &root);
    if let Some(harness) = root.get("spec").and_then(|spec| spec.get("harness"))
        && matches!(harness.value, Value::Map(_))
        && report.is_clean("spec.harness")
    {
        for problem in check_harness(&harness.to_json()) {
            let place = problem.place.or_else(|| root.nearest(&problem.path));
            report.problems.push(Problem { place, ..problem });
        }
    }
    if let Some(gateway) = root.get("spec").and_then(|spec| spec.get("gateway"))
        && let Some(manifest) = &manifest
        && let Some(problem) = harness::check_gateway(&gateway.to_json(), &manifest.harness)
    {
        let place = root.nearest(&problem.path);
        report.problems.push(Problem { place, ..problem });
    }
    if let Some(manifest) = &manifest
        && let Some(problem) = harness::check_sandbox(&manifest.sandbox)
    {
        let place = root.nearest(&problem.path);
        report.problems.push(Problem { place, ..problem });
    }
    if let Some(problem) = manifest.as_ref().and_then(check_manifest) {
        let place = root.nearest(&problem.path);
        report.problems.push(Problem { place, ..problem });
    }
    match manifest {
        Some(manifest) if report.problems.is_empty() => Ok(manifest),
        _ => Err(report.into_problems()),
    }
}

const SPEC: [&str; 5] = ["sandbox", "harness", "gateway", "workspace", "limits"];

/// Reads the whole of it, and goes on after every problem.
fn read(report: &mut Report, root: &Node) -> Option<Manifest> {
    let fields = report.fields("", root, &["apiVersion", "kind", "metadata", "spec"])?;
    let written = report.text(&fields, "apiVersion", "write `apiVersion: agentexecutor.dev/v1`");
    let version = written.is_none_or(|version| version == API_VERSION);
    if !version {
        let message = format!("{:?} is not known", written.unwrap_or_default());
        report.problem(&fields, "apiVersion", message, format!("use `{API_VERSION}`"));
    }
    let written = report.text(&fields, "kind", "write `kind: Agent`");
    let kind = written.is_none_or(|kind| kind == "Agent");
    if !kind {
        let message = format!("{:?} is not known", written.unwrap_or_default());
        report.problem(&fields, "kind", message, "there is `Agent` only");
    }
    if !version || !kind {
        // Something else altogether: its other fields would be noise.
        let header = ["apiVersion", "kind"];
        report.problems.retain(|problem| header.contains(&problem.path.as_str()));
        return None;
    }
    let metadata = report.section(&fields, "metadata", &["name", "labels", "annotations"]);
    let name = metadata.as_ref().and_then(|metadata| spec::name(report, metadata));
    let labels = metadata.as_ref().map(|metadata| spec::labels(report, metadata));
    let annotations = metadata.as_ref().map(|metadata| spec::annotations(report, metadata));
    let spec = report.section(&fields, "spec", &SPEC)?;
    let sandbox = spec::sandbox(report, &spec);
    let harness = spec::harness(report, &spec);
    let gateway = spec::gateway(report, &spec);
    let workspace = spec::workspace(report, &spec);
    let limits = spec::limits(report, &spec);
    Some(Manifest {
        name: name?,
        labels: labels?,
        annotations: annotations?,
        sandbox: sandbox?,
        harness: harness?,
        gateway: gateway?,
        workspace,
        limits,
        digest: root.digest(),
    })
}
