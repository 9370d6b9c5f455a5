//! Takes pid 1's end of the way in, through which the runtime comes: whoever has it is connected in
//! the place of the programs that the runtime means. No descriptor of it is inherited, and pid 1
//! is another user, whom nobody may look into.

use super::call::call;
use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;
use rustix::fd::{AsFd, FromRawFd, OwnedFd};
use rustix::net::sockopt::socket_domain;

pub(crate) static ATTACK: Attack = Attack {
    name: "door",
    root: &[Wall::Seccomp, Wall::OwnId, Wall::Capabilities, Wall::Landlock],
    user: Err("whom pid 1's memory belongs to is decided outside of its user namespace"),
    inside,
};

/// Looks for a unix socket among its own descriptors, and then among those of pid 1.
fn inside(_: &[String]) -> Verdict {
    for number in 3..64 {
        if let Ok(file) = std::fs::File::open(format!("/proc/1/fd/{number}")) {
            return Verdict::Reached(format!("opened {file:?}"));
        }
        if is_socket(i64::from(number)) {
            return Verdict::Reached(format!("inherited {number}"));
        }
    }
    let Ok(init) = call(libc::SYS_pidfd_open, &[1, 0]) else {
        return Verdict::Refused("pid 1 is not there".into());
    };
    let init = usize::try_from(init).unwrap_or(0);
    let mut last = 0;
    for number in 0..64 {
        match call(libc::SYS_pidfd_getfd, &[init, number, 0]) {
            Ok(taken) if is_socket(taken) => return Verdict::Reached(format!("took {number}")),
            Ok(_) => {}
            Err(errno) => last = errno,
        }
    }
    Verdict::Refused(format!("errno {last}"))
}

/// Whether a descriptor is a unix socket.
fn is_socket(number: i64) -> bool {
    let Ok(number) = i32::try_from(number) else { return false };
    if call(libc::SYS_fcntl, &[number.cast_unsigned() as usize, 1, 0]).is_err() {
        return false;
    }
    // SAFETY: it is open, and forgotten again, so that it stays so.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    let domain = socket_domain(descriptor.as_fd());
    std::mem::forget(descriptor);
    domain.is_ok_and(|domain| domain == rustix::net::AddressFamily::UNIX)
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
