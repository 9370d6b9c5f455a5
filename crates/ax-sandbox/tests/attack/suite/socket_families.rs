//! Makes sockets of families that reach the host of a virtual machine (AF_VSOCK) or rarely used
//! code of the kernel (AF_ALG, AF_KEY, AF_XDP, AF_NFC, AF_PACKET).

use super::call::call;
use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack =
    Attack { name: "socket_families", root: &[Wall::Seccomp], user: Ok(&[Wall::Seccomp]), inside };

fn inside(_: &[String]) -> Verdict {
    let families = [40, 38, 15, 44, 39, 17];
    let stream = libc::SOCK_STREAM as usize;
    let kinds = [stream, libc::SOCK_SEQPACKET as usize, libc::SOCK_RAW as usize];
    let made =
        |family: usize| kinds.iter().find_map(|kind| call(libc::SYS_socket, &[family, *kind]).ok());
    families.iter().find_map(|family| made(*family).map(|_| family)).map_or_else(
        || Verdict::Refused("none of them".into()),
        |family| Verdict::Reached(format!("family {family}")),
    )
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
