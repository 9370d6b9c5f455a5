//! The environment of what we run.

use crate::launch::Launch;
use std::ffi::OsString;

/// What a harness gets of the runtime's own environment; nothing else of it.
pub(crate) const INHERITED: [&str; 16] = [
    "HOME",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "LOGNAME",
    "PATH",
    "PYTHONPATH",
    "SHELL",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
    "VIRTUAL_ENV",
];

/// What of it means the same in a sandbox.
const HARMLESS: [&str; 7] = ["LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "PATH", "TERM", "TZ"];

/// Returns what is inherited by a program in a sandbox.
pub(crate) fn harmless() -> Vec<(OsString, OsString)> {
    let set = HARMLESS.iter().filter_map(|name| Some((name.into(), std::env::var_os(name)?)));
    set.collect()
}

/// Returns what is inherited.
pub(crate) fn inherited() -> Vec<(OsString, OsString)> {
    let set = INHERITED.iter().filter_map(|name| Some((name.into(), std::env::var_os(name)?)));
    set.collect()
}

/// Returns what says which attempt this is, and what was added for it.
pub(crate) fn identity(launch: &Launch) -> Vec<(OsString, OsString)> {
    let mut all: Vec<(OsString, OsString)> = vec![
        ("AX_SESSION".into(), launch.key.session.to_string().into()),
        ("AX_NAMESPACE".into(), launch.key.namespace.as_str().into()),
        ("AX_EXECUTION".into(), launch.exec.to_string().into()),
        ("AX_ATTEMPT".into(), launch.attempt.0.to_string().into()),
        ("AX_WORKSPACE".into(), launch.workspace.clone().into()),
    ];
    all.extend(launch.env.iter().map(|(name, value)| (name.into(), value.into())));
    all
}
