//! Reads a shared memory segment of the host by its key.

use super::call::call;
use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack = Attack {
    name: "shared_memory",
    root: &[Wall::IpcNamespace],
    user: Ok(&[Wall::IpcNamespace]),
    inside,
};

fn inside(args: &[String]) -> Verdict {
    let key = args[0].parse().unwrap_or(0);
    Verdict::of(call(libc::SYS_shmget, &[key, 8, 0]), &[])
}

#[cfg(test)]
pub(crate) fn outside(bench: &Bench) -> Scene {
    let key = 0x6178_0000 + std::process::id() as usize % 0x7fff * 2 + bench.who as usize;
    let mode = (libc::IPC_CREAT | 0o666) as usize;
    let id = call(libc::SYS_shmget, &[key, 8, mode]).unwrap();
    Scene { args: vec![key.to_string()], guards: vec![Box::new(Segment(id))], ..Scene::default() }
}

#[cfg(test)]
struct Segment(i64);

#[cfg(test)]
impl Drop for Segment {
    fn drop(&mut self) {
        let id = usize::try_from(self.0).unwrap();
        call(libc::SYS_shmctl, &[id, libc::IPC_RMID as usize]).unwrap();
    }
}
