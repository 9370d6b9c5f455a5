//! Asks a name server on the host, as a tunnel through names would.

use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "name_server",
    root: &[Wall::NetNamespace],
    user: Ok(&[Wall::NetNamespace]),
    inside,
};

fn inside(args: &[String]) -> Verdict {
    let asked = || -> std::io::Result<usize> {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(std::time::Duration::from_millis(500)))?;
        socket.send_to(b"secret.example", &args[0])?;
        socket.recv(&mut [0; 16])
    };
    Verdict::from_io(asked())
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let args = vec![server.local_addr().unwrap().to_string()];
    drop(std::thread::spawn(move || {
        server.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        let mut question = [0; 64];
        while let Ok((_, from)) = server.recv_from(&mut question) {
            let _gone_already = server.send_to(b"answer", from);
        }
    }));
    Scene { args, ..Scene::default() }
}
