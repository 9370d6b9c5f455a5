//! The data directory and what is where in it.

use crate::failure::Failure;
use ax_engine::Code;
use ax_log::embedded::{OsDisk, make_dir};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// The longest path of a socket, in bytes: `sun_path` has 108, the last is zero, and the socket is
/// made under a name that is a little longer.
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// The data directory.
#[derive(Clone, Debug)]
pub(crate) struct DataDir {
    pub(crate) root: PathBuf,
}

/// Which process serves a data directory, as it said itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Its socket.
    pub(crate) socket: PathBuf,
    /// Whether it is a command that serves only while it is busy itself.
    pub(crate) passing: bool,
    pub(crate) pid: u32,
    /// Where else it listens, such as `http://127.0.0.1:7700`.
    pub(crate) addresses: Vec<String>,
}

impl DataDir {
    /// Finds the data directory: as given, else by the rules of XDG.
    pub(crate) fn find(given: Option<&Path>) -> Result<Self, Failure> {
        let variable = |name| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
        let root = match given {
            Some(given) => given.to_owned(),
            None => match (variable("XDG_DATA_HOME"), variable("HOME")) {
                (Some(data), _) => Path::new(&data).join("agent-executor"),
                (None, Some(home)) => Path::new(&home).join(".local/share/agent-executor"),
                (None, None) => {
                    return Err(Failure::new(Code::Directory, "no data directory is known")
                        .hint("name one with --data or AX_DATA, or set HOME"));
                }
            },
        };
        match std::path::absolute(&root) {
            Ok(root) => Ok(Self { root }),
            Err(error) => Err(unusable(&root, &error)),
        }
    }

    /// Makes the directory, for its owner only. A loss of power does not take it away.
    pub(crate) fn make(&self) -> Result<(), Failure> {
        let made = make_dir(&OsDisk, &self.root);
        made.map_err(|error| unusable(&self.root, &error))
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// Where images for sandboxes are.
    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Where running supervisors are registered.
    pub(crate) fn supervisors(&self) -> PathBuf {
        self.root.join("run")
    }

    /// What namespaces have used of models in this period.
    pub(crate) fn model_use(&self) -> PathBuf {
        self.root.join("models.json")
    }

    pub(crate) fn server_log(&self) -> PathBuf {
        self.root.join("server.log")
    }

    fn holder_file(&self) -> PathBuf {
        self.root.join("server.json")
    }

    /// Where the socket is; if the path would be too long, a short one elsewhere.
    pub(crate) fn socket(&self) -> Result<PathBuf, Failure> {
        let plain = self.root.join("ax.sock");
        if plain.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            return Ok(plain);
        }
        let uid = rustix::process::geteuid().as_raw();
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| dir.len() < 60);
        let dir = match runtime {
            Some(runtime) => Path::new(&runtime).join("agent-executor"),
            None => PathBuf::from(format!("/tmp/agent-executor-{uid}")),
        };
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(|error| unusable(&dir, &error))?;
        let owner = fs::symlink_metadata(&dir).map_err(|error| unusable(&dir, &error))?;
        if owner.uid() != uid || !owner.is_dir() {
            let message = format!("{} does not belong to you", dir.display());
            return Err(Failure::new(Code::Directory, message)
                .hint("choose a data directory with a shorter path"));
        }
        let hash = blake3::hash(self.root.as_os_str().as_bytes());
        Ok(dir.join(format!("{}.sock", &hash.to_hex()[..16])))
    }

    /// Says who serves the directory; it may be gone since.
    pub(crate) fn holder(&self) -> Option<Holder> {
        let text = fs::read(self.holder_file()).ok()?;
        let value: Value = serde_json::from_slice(&text).ok()?;
        let addresses = value.get("addresses").and_then(Value::as_array);
        let addresses = addresses.into_iter().flatten().filter_map(Value::as_str);
        Some(Holder {
            addresses: addresses.map(Into::into).collect(),
            socket: PathBuf::from(value.get("socket")?.as_str()?),
            passing: value.get("passing")?.as_bool()?,
            pid: u32::try_from(value.get("pid")?.as_u64()?).ok()?,
        })
    }

    /// Writes down that this process serves the directory.
    pub(crate) fn hold(&self, holder: &Holder) -> Result<(), Failure> {
        let text = json!({
            "socket": holder.socket.to_string_lossy(),
            "passing": holder.passing,
            "pid": holder.pid,
            "addresses": holder.addresses,
        });
        let (file, fresh) = (self.holder_file(), self.root.join("server.json.new"));
        let written = fs::write(&fresh, text.to_string()).and_then(|()| fs::rename(&fresh, &file));
        written.map_err(|error| unusable(&file, &error))
    }

    /// Takes that back.
    pub(crate) fn let_go(&self) {
        // If it stays, nobody answers at the socket it names.
        drop(fs::remove_file(self.holder_file()));
    }
}

pub(crate) fn unusable(path: &Path, error: &io::Error) -> Failure {
    let message = format!("{} cannot be used", path.display());
    let code = match error.kind() {
        io::ErrorKind::StorageFull => Code::Full,
        _ => Code::Directory,
    };
    Failure::new(code, message).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_gets_a_short_socket() {
        let dir = tempfile::tempdir().unwrap();
        let short = DataDir { root: "/d".into() };
        assert_eq!(short.socket().unwrap(), Path::new("/d/ax.sock"));
        let long = DataDir { root: dir.path().join("x".repeat(120)) };
        let socket = long.socket().unwrap();
        assert!(socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX, "{}", socket.display());
        let other = DataDir { root: dir.path().join("y".repeat(120)) };
        assert_ne!(socket, other.socket().unwrap());
    }

    #[test]
    fn a_holder_reads_back_and_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir { root: dir.path().into() };
        assert_eq!(data.holder(), None);
        let holder = Holder {
            socket: "/s".into(),
            passing: true,
            pid: 7,
            addresses: vec!["http://[::1]:9".into()],
        };
        data.hold(&holder).unwrap();
        assert_eq!(data.holder(), Some(holder));
        data.let_go();
        assert_eq!(data.holder(), None);
    }
}
