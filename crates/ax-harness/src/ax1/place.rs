//! Where the server of an attempt is, and what its command is told of that.

use super::config::{Address, Config};
use super::failure;
use crate::environment;
use crate::launch::Launch;
use crate::own::{Held, own_dir};
use crate::programs::{PROGRAM_PORT, Programs};
use crate::reach::Reach;
use ax_core::session::Failure;
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the socket is called.
pub(super) const SOCKET: &str = "harness.sock";
/// The longest path of a socket, in bytes (unix(7)).
const SOCKET_BYTES_MAX: usize = 100;

/// Where a server is.
#[derive(Debug)]
pub(super) struct Place {
    /// Its address.
    pub(super) address: Address,
    /// The port that the command was told to use, if that is how it is reached.
    pub(super) port: Option<u16>,
    /// How that port is reached.
    pub(super) reach: Reach,
    /// The state of the harness, kept with the session.
    state: PathBuf,
    /// A directory of the attempt, removed with it.
    own: Option<PathBuf>,
    /// The directory of the socket.
    pub(super) held: Option<Arc<Held>>,
}

impl Place {
    /// Finds a place for the server of an attempt.
    pub(super) fn of(
        programs: &Programs,
        config: &Config,
        launch: &Launch,
    ) -> Result<Self, Failure> {
        let there = config.address().map_err(|error| failure("config", error))?;
        let state = launch.workspace.join(".ax").join("ax1");
        if let Some(address) = there {
            let reach = Reach::Machine;
            return Ok(Self { address, port: None, reach, state, own: None, held: None });
        }
        let made = std::path::absolute(&launch.workspace)
            .and_then(|workspace| own_dir(&workspace, ".ax/ax1".as_ref()));
        let state = made.map_err(|error| {
            failure("spawn", format!("{} cannot be made: {error}", state.display()))
        })?;
        let no_place = |error| failure("spawn", format!("there is no place to listen at: {error}"));
        let words = config.command.iter().chain(config.env.values());
        if words.into_iter().any(|word| word.contains("{port}")) {
            // In a sandbox all are free.
            let port = if programs.are_sandboxed() { Ok(PROGRAM_PORT) } else { free_port() };
            let port = port.map_err(no_place)?;
            let address = Address::Http(format!("http://127.0.0.1:{port}"));
            let (port, reach) = (Some(port), Reach::Machine);
            return Ok(Self { address, port, reach, state, own: None, held: None });
        }
        let (dir, own) = if state.as_os_str().len() + 16 <= SOCKET_BYTES_MAX {
            (state.clone(), None)
        } else {
            let dir = private_dir().map_err(no_place)?;
            (dir.clone(), Some(dir))
        };
        let held = Held::open(&dir).map_err(no_place)?;
        // Of an attempt before, whose server is dead.
        held.remove(SOCKET).map_err(no_place)?;
        let (address, held) = (Address::Unix(dir.join(SOCKET)), Some(Arc::new(held)));
        Ok(Self { address, port: None, reach: Reach::Machine, state, own, held })
    }

    /// Lets the command make its socket, wherever that is.
    pub(super) fn shared(&self, programs: &Programs) -> Programs {
        let programs = programs.clone();
        match &self.own {
            Some(own) => programs.share(own),
            None => programs,
        }
    }

    /// Returns the command with everything filled in.
    pub(super) fn command(&self, config: &Config) -> Vec<OsString> {
        config.command.iter().map(|word| self.fill(word).into()).collect()
    }

    /// Returns the environment of the command.
    pub(super) fn env(
        &self,
        programs: &Programs,
        config: &Config,
        launch: &Launch,
    ) -> Vec<(OsString, OsString)> {
        let added = config.env.iter().map(|(name, value)| (name.into(), self.fill(value).into()));
        let own = [
            ("AX_HARNESS_ADDRESS".into(), self.listen().into()),
            ("AX_HARNESS_STATE".into(), self.state.clone().into()),
        ];
        let env = programs.inherited().into_iter().chain(added);
        env.chain(environment::identity(launch)).chain(own).collect()
    }

    fn fill(&self, word: &str) -> String {
        let port = self.port.map(|port| port.to_string()).unwrap_or_default();
        let socket = match &self.address {
            Address::Unix(path) => path.display().to_string(),
            Address::Http(_) => String::new(),
        };
        word.replace("{port}", &port)
            .replace("{socket}", &socket)
            .replace("{state}", &self.state.display().to_string())
    }

    /// Returns what a gRPC server is told to listen at.
    fn listen(&self) -> String {
        match &self.address {
            Address::Unix(path) => format!("unix:{}", path.display()),
            Address::Http(url) => url.trim_start_matches("http://").to_owned(),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(held) = &self.held {
            let _gone_already = held.remove(SOCKET);
        }
        if let Some(own) = &self.own {
            let _gone_already = fs::remove_dir_all(own);
        }
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Makes a directory that nobody else can look into.
fn private_dir() -> io::Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("ax1-{}-{count}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| dir),
        }
    }
}

/// Whether whoever listens on a port of this machine is a process of the own user: the port was
/// free when it was chosen, and somebody else may have taken it since.
pub(super) fn is_own_port(port: u16) -> bool {
    let uid = rustix::process::geteuid().as_raw();
    ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().any(|table| {
        let text = fs::read_to_string(Path::new(table)).unwrap_or_default();
        listeners(&text).any(|(at, owner)| at == port && owner == uid)
    })
}

/// Reads the ports that are listened at and their owners from `/proc/net/tcp` (proc_net(5)).
fn listeners(table: &str) -> impl Iterator<Item = (u16, u32)> {
    const LISTEN: &str = "0A";
    table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, port) = fields.get(1)?.rsplit_once(':')?;
        let is_listening = *fields.get(3)? == LISTEN;
        let owner = fields.get(7)?.parse().ok()?;
        is_listening.then_some((u16::from_str_radix(port, 16).ok()?, owner))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_port_is_known() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(is_own_port(port));
        drop(listener);
        assert!(!is_own_port(port));
        let table = "  sl  local_address rem_address   st tx:rx tr:when retrnsmt   uid\n\
             0: 0100007F:1F90 00000000:0000 0A 0:0 00:0 0 1000 0 1\n\
             1: 0100007F:1F91 00000000:0000 01 0:0 00:0 0 1000 0 2\nnonsense";
        assert_eq!(listeners(table).collect::<Vec<_>>(), [(8080, 1000)]);
    }
}
