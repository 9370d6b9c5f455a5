//! The `sandbox` section of a manifest, read and checked.

mod amount;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};

/// The most mounts.
const MOUNTS_MAX: usize = 64;
/// The most environment variables.
const ENV_MAX: usize = 256;
/// The longest path, in bytes.
const PATH_BYTES_MAX: usize = 1024;
/// The longest host name, in bytes.
const HOSTNAME_BYTES_MAX: usize = 63;
/// The longest name of an image, in bytes.
const IMAGE_BYTES_MAX: usize = 256;
/// Where nothing may be mounted: made by ourselves, or a link to somewhere else.
const OWN_TARGETS: [&str; 12] = [
    "/", "/bin", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/run", "/sbin",
    "/sys",
];
/// What of the host is never mounted, nor anything above it: it would give the host away.
const HOST_SECRETS: [&str; 7] =
    ["/proc", "/sys", "/dev", "/etc/shadow", "/boot", "/run", "/var/run"];

/// What a sandbox is like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Plan {
    /// What it is made by.
    pub backend: BackendKind,
    /// Where its programs come from.
    pub root: Root,
    /// What else of the host it sees.
    pub mounts: Vec<Mount>,
    /// What it may consume.
    pub resources: Resources,
    /// Environment variables, added to those that the harness is given.
    pub env: BTreeMap<String, String>,
    /// Its host name.
    pub hostname: String,
    /// How long it may run; no limit if absent.
    #[serde(with = "amount::duration")]
    pub time_limit: Option<u64>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            backend: BackendKind::default(),
            root: Root::default(),
            mounts: Vec::new(),
            resources: Resources::default(),
            env: BTreeMap::new(),
            hostname: "sandbox".into(),
            time_limit: None,
        }
    }
}

/// What a sandbox is made by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// Namespaces of Linux: the default.
    #[default]
    Namespace,
    /// A plain process: no isolation at all.
    Process,
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Namespace => "namespace",
            Self::Process => "process",
        })
    }
}

/// Where the programs of a sandbox come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Root {
    /// The host's `/usr`, read-only, with a small `/etc` of our own.
    #[default]
    Host,
    /// The file tree of the image of this name, read-only, and nothing of the host's.
    Image(String),
}

/// A file or directory of the host that a sandbox sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Mount {
    /// Its path outside.
    pub source: PathBuf,
    /// Its path inside; the same one if absent, because programs often know their own place.
    #[serde(default)]
    pub target: Option<PathBuf>,
    /// Whether it can be written.
    #[serde(default)]
    pub writable: bool,
}

impl Mount {
    /// Returns its path inside.
    pub fn target(&self) -> &Path {
        self.target.as_deref().unwrap_or(&self.source)
    }
}

/// What a sandbox may consume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Resources {
    /// Memory of all processes together, scratch space included, in bytes.
    #[serde(with = "amount::bytes")]
    pub memory: u64,
    /// Processor time, in processors.
    pub cpus: f64,
    /// Processes and threads.
    pub pids: u32,
    /// Open files of each process.
    pub open_files: u64,
    /// The largest file, in bytes.
    #[serde(with = "amount::bytes")]
    pub file_size: u64,
    /// The size of `/tmp`, and of `/dev/shm`, in bytes each.
    #[serde(with = "amount::bytes")]
    pub scratch: u64,
    /// How many files `/tmp`, and `/dev/shm`, can have each.
    pub scratch_files: u64,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            memory: 2 << 30,
            cpus: 2.0,
            pids: 512,
            open_files: 4096,
            file_size: 4 << 30,
            scratch: 256 << 20,
            scratch_files: 20_000,
        }
    }
}

/// What is wrong with the section.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sandbox{}{path}: {cause}", if path.is_empty() { "" } else { "." })]
pub struct ConfigError {
    /// The field, below `sandbox`, such as `mounts[0].source`.
    pub path: String,
    /// What is wrong with it.
    pub cause: String,
    /// What may help; may be empty.
    pub hint: String,
}

impl ConfigError {
    fn new(path: impl Into<String>, cause: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { path: path.into(), cause: cause.into(), hint: hint.into() }
    }
}

impl Plan {
    /// Reads and checks the section; null means the defaults, a text the backend of that name.
    ///
    /// # Errors
    ///
    /// Says which field is wrong.
    pub fn parse(section: &Value) -> Result<Self, ConfigError> {
        if section.is_null() {
            return Ok(Self::default());
        }
        let named = section.is_string().then(|| json!({"backend": section}));
        let section = named.as_ref().unwrap_or(section);
        let plan: Self = serde_path_to_error::deserialize(section).map_err(|error| {
            let path = error.path().to_string();
            let path = if path == "." { String::new() } else { path };
            let cause = error.inner().to_string();
            let hint = hint(&path, &cause);
            ConfigError::new(path, cause, hint)
        })?;
        plan.check()?;
        Ok(plan)
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.check_root()?;
        self.check_mounts()?;
        self.check_env()?;
        self.resources.check()?;
        let is_label = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let name = &self.hostname;
        if name.is_empty() || name.len() > HOSTNAME_BYTES_MAX || !name.bytes().all(is_label) {
            let hint = "letters, digits and hyphens, at most 63";
            return Err(ConfigError::new("hostname", "is not a host name", hint));
        }
        if self.time_limit == Some(0) {
            return Err(ConfigError::new("timeLimit", "is nothing", "leave it out for no limit"));
        }
        Ok(())
    }

    fn check_root(&self) -> Result<(), ConfigError> {
        let Root::Image(name) = &self.root else { return Ok(()) };
        if self.backend == BackendKind::Process {
            let cause = "an image needs walls, and the backend `process` has none";
            return Err(ConfigError::new("root", cause, "use the backend `namespace`"));
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@+".contains(&byte);
        if name.is_empty() || name.len() > IMAGE_BYTES_MAX || !name.bytes().all(is_plain) {
            let hint = "`ax image list` shows the images there are";
            return Err(ConfigError::new("root.image", "is not the name of an image", hint));
        }
        Ok(())
    }

    fn check_mounts(&self) -> Result<(), ConfigError> {
        if self.mounts.len() > MOUNTS_MAX {
            let cause = format!("has more than {MOUNTS_MAX}");
            return Err(ConfigError::new("mounts", cause, "mount a directory above them"));
        }
        for (index, mount) in self.mounts.iter().enumerate() {
            let path = |field| format!("mounts[{index}].{field}");
            check_path(&mount.source)
                .map_err(|(cause, hint)| ConfigError::new(path("source"), cause, hint))?;
            check_shown(&mount.source)
                .map_err(|(cause, hint)| ConfigError::new(path("source"), cause, hint))?;
            check_path(mount.target())
                .map_err(|(cause, hint)| ConfigError::new(path("target"), cause, hint))?;
            let own = OWN_TARGETS.iter().find(|own| {
                mount.target() == Path::new(own)
                    || (**own != "/" && mount.target().starts_with(own))
            });
            if let Some(own) = own {
                let cause = format!("{own} is made by the sandbox itself");
                return Err(ConfigError::new(path("target"), cause, "choose another place"));
            }
            let earlier = &self.mounts[..index];
            if earlier.iter().any(|earlier| earlier.target() == mount.target()) {
                let cause = format!("{} is mounted to twice", mount.target().display());
                return Err(ConfigError::new(path("target"), cause, "remove one of them"));
            }
        }
        Ok(())
    }

    fn check_env(&self) -> Result<(), ConfigError> {
        if self.env.len() > ENV_MAX {
            return Err(ConfigError::new("env", format!("has more than {ENV_MAX}"), ""));
        }
        for (name, value) in &self.env {
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            let starts = name.bytes().next().is_some_and(|first| !first.is_ascii_digit());
            if !starts || !name.bytes().all(is_name) {
                let hint = "letters, digits and underscores; no digit first";
                return Err(ConfigError::new(format!("env.{name}"), "is not a name", hint));
            }
            if value.contains('\0') {
                return Err(ConfigError::new(format!("env.{name}"), "contains a zero byte", ""));
            }
        }
        Ok(())
    }
}

impl Resources {
    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |field: &str, cause: &str, hint: &str| {
            Err(ConfigError::new(format!("resources.{field}"), cause, hint))
        };
        if self.memory < 16 << 20 {
            return wrong("memory", "is less than 16 MiB", "no program starts with so little");
        }
        if !(0.01..=1024.0).contains(&self.cpus) {
            return wrong("cpus", "is not between 0.01 and 1024", "write processors, such as 0.5");
        }
        if !(4..=4_000_000).contains(&self.pids) {
            return wrong("pids", "is not between 4 and 4000000", "");
        }
        if !(16..=1_000_000).contains(&self.open_files) {
            return wrong("openFiles", "is not between 16 and 1000000", "");
        }
        if self.file_size < 1 << 20 {
            return wrong("fileSize", "is less than 1 MiB", "");
        }
        if self.scratch < 1 << 20 {
            return wrong("scratch", "is less than 1 MiB", "");
        }
        if !(16..=100_000_000).contains(&self.scratch_files) {
            return wrong("scratchFiles", "is not between 16 and 100000000", "");
        }
        Ok(())
    }
}

/// Says why a path of the host is never shown, and what may help.
pub(crate) fn check_shown(path: &Path) -> Result<(), (String, &'static str)> {
    let shows = |secret: &&&str| Path::new(secret).starts_with(path) || path.starts_with(secret);
    match HOST_SECRETS.iter().find(shows) {
        Some(secret) => {
            Err((format!("would show {secret} of the host"), "name what is needed of it"))
        }
        None => Ok(()),
    }
}

/// Says what is wrong with a path, and what may help.
fn check_path(path: &Path) -> Result<(), (String, &'static str)> {
    let text = path.as_os_str().as_encoded_bytes();
    if !path.is_absolute() {
        return Err((format!("{} is not absolute", path.display()), "begin it with /"));
    }
    if text.len() > PATH_BYTES_MAX || text.contains(&0) {
        return Err(("is too long, or contains a zero byte".into(), ""));
    }
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let rebuilt: PathBuf = path.components().collect();
    // Components leave out `//` and `/./`, which must not hide anything either.
    if !path.components().all(plain) || rebuilt.as_os_str().as_encoded_bytes() != text {
        let hint = "write it without . or .. and without a slash at its end";
        return Err((format!("{} goes round about", path.display()), hint));
    }
    Ok(())
}

/// Guesses what is meant instead of an unknown field or value.
fn hint(path: &str, cause: &str) -> String {
    let mut quoted = cause.split('`').skip(1).step_by(2);
    let Some(wrong) = quoted.next() else { return String::new() };
    if path.starts_with("backend") && ["oci", "gvisor", "microvm"].contains(&wrong) {
        return "this version knows `namespace` and `process`".into();
    }
    let closest = quoted.map(|right| (strsim::damerau_levenshtein(wrong, right), right)).min();
    closest
        .filter(|(distance, _)| *distance <= 3)
        .map_or_else(String::new, |(_, right)| format!("did you mean {right}?"))
}
