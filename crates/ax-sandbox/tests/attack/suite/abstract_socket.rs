//! Connects to an abstract unix socket of the host, which has no file that could be hidden.

use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "abstract_socket",
    root: &[Wall::NetNamespace],
    user: Ok(&[Wall::NetNamespace]),
    inside,
};

fn inside(args: &[String]) -> Verdict {
    use std::os::linux::net::SocketAddrExt as _;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&args[0]);
    Verdict::from_io(
        address.and_then(|address| std::os::unix::net::UnixStream::connect_addr(&address)),
    )
}

#[cfg(test)]
pub(crate) fn outside(bench: &Bench) -> Scene {
    use std::os::linux::net::SocketAddrExt as _;
    let name = format!("ax-attack-{}", bench.path("").display());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    Scene { args: vec![name], guards: vec![Box::new(listener)], ..Scene::default() }
}
