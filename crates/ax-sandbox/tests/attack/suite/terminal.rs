//! Types into a terminal, so that whoever reads it finds commands there.

use super::call::call;
use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack =
    Attack { name: "terminal", root: &[Wall::Seccomp], user: Ok(&[Wall::Seccomp]), inside };

fn inside(_: &[String]) -> Verdict {
    use std::os::fd::AsRawFd as _;
    let Ok(terminal) = std::fs::File::options().read(true).write(true).open("/dev/ptmx") else {
        return Verdict::Untestable("no terminal can be made".into());
    };
    let (letter, mut number, unlock) = (b'x', 0_u32, 0_u32);
    let master = usize::try_from(terminal.as_raw_fd()).unwrap_or(0);
    // TIOCSPTLCK, TIOCGPTN
    let _unlocked = call(libc::SYS_ioctl, &[master, 0x4004_5431, (&raw const unlock) as usize]);
    let _number = call(libc::SYS_ioctl, &[master, 0x8004_5430, (&raw mut number) as usize]);
    // Opening it makes it the terminal of this session.
    let Ok(own) =
        std::fs::File::options().read(true).write(true).open(format!("/dev/pts/{number}"))
    else {
        return Verdict::Untestable("no terminal can be opened".into());
    };
    let own = usize::try_from(own.as_raw_fd()).unwrap_or(0);
    // TIOCSTI. Where the kernel has switched it off, the answer is EIO, from behind the filter.
    let typed = call(libc::SYS_ioctl, &[own, 0x5412, (&raw const letter) as usize]);
    // Closing it would end this session before it could say what came of it.
    std::mem::forget(terminal);
    Verdict::of(typed, &[libc::EIO])
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
