//! Who starts a server and hears from it what it does.

use super::world::World;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// A stand-in for systemd.
pub(crate) struct Manager {
    socket: UnixDatagram,
    pub(crate) path: String,
}

impl Manager {
    pub(crate) fn new(world: &World) -> Self {
        let path = world.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { socket, path: path.display().to_string() }
    }

    /// Waits for a message that begins like this, and returns it.
    pub(crate) fn told(&self, beginning: &str) -> String {
        loop {
            let mut bytes = [0; 512];
            let count = self.socket.recv(&mut bytes).unwrap();
            let message = String::from_utf8_lossy(&bytes[..count]).into_owned();
            if message.starts_with(beginning) {
                return message;
            }
        }
    }
}
