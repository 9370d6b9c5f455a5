//! Connects to a server on the loopback of the host by IPv6, which filters often forget.

use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "loopback_v6",
    root: &[Wall::NetNamespace],
    user: Ok(&[Wall::NetNamespace]),
    inside,
};

fn inside(args: &[String]) -> Verdict {
    Verdict::from_io(std::net::TcpStream::connect(&args[0]))
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    let listener = std::net::TcpListener::bind("[::1]:0").ok();
    let address = listener.as_ref().map(|listener| listener.local_addr().unwrap().to_string());
    let no_control = address.is_none().then_some("the host has no IPv6");
    let args = vec![address.unwrap_or_default()];
    Scene { args, no_control, guards: vec![Box::new(listener)], ..Scene::default() }
}
