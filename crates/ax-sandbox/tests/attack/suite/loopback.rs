//! Connects to a server on the loopback of the host. The sandbox has a loopback of its own.

use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "loopback",
    root: &[Wall::NetNamespace],
    user: Ok(&[Wall::NetNamespace]),
    inside,
};

fn inside(args: &[String]) -> Verdict {
    Verdict::from_io(std::net::TcpStream::connect(&args[0]))
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let args = vec![listener.local_addr().unwrap().to_string()];
    Scene { args, guards: vec![Box::new(listener)], ..Scene::default() }
}
