//! What systemd is told (sd_notify(3)): that the server is ready, reloads, stops, and is alive.
//!
//! One datagram a message to the socket that `NOTIFY_SOCKET` names; without it nothing happens.

use rustix::time::{ClockId, clock_gettime};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Tells systemd.
#[derive(Debug)]
pub(crate) struct Service {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often it wants to hear that we live; half of what it waits for.
    pub(crate) watchdog: Option<Duration>,
}

impl Service {
    /// Reads the environment.
    pub(crate) fn new() -> Self {
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| ours && *micros > 1);
        Self { socket: socket(), watchdog: watchdog.map(|us| Duration::from_micros(us / 2)) }
    }

    fn tell(&self, message: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(message.as_bytes(), address)
        {
            tracing::debug!(%error, "systemd was not told");
        }
    }

    pub(crate) fn ready(&self) {
        self.tell("READY=1\nSTATUS=serving");
    }

    /// Says that the configuration is read again; [`Service::ready`] ends that.
    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=draining");
    }

    pub(crate) fn alive(&self) {
        self.tell("WATCHDOG=1");
    }
}

fn socket() -> Option<(UnixDatagram, SocketAddr)> {
    let name = std::env::var_os("NOTIFY_SOCKET")?;
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
        [b'/', ..] => SocketAddr::from_pathname(&name),
        _ => return None,
    };
    let socket = UnixDatagram::unbound().ok()?;
    // A supervisor that does not read must not stop us.
    socket.set_nonblocking(true).ok()?;
    Some((socket, address.ok()?))
}
