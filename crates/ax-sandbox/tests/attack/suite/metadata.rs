//! Looks for a way to the metadata service of a cloud and to private networks. Nothing is sent:
//! the kernel only says whether there is a way.

use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "metadata",
    root: &[Wall::NetNamespace],
    user: Ok(&[Wall::NetNamespace]),
    inside,
};

fn inside(_: &[String]) -> Verdict {
    let way =
        |to: &str| std::net::UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect(to));
    let found = ["169.254.169.254:80", "10.0.0.1:80", "192.168.0.1:80"]
        .into_iter()
        .find(|to| way(to).is_ok());
    found.map_or_else(|| Verdict::Refused("no way".into()), |to| Verdict::Reached(to.into()))
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    let way = std::net::UdpSocket::bind("0.0.0.0:0").unwrap().connect("10.0.0.1:80");
    let no_control = way.err().map(|_| "the host has no way there either");
    Scene { no_control, ..Scene::default() }
}
