//! Makes a set-user-id file in the workspace. Outside it would belong to the runtime's user, and
//! give that user's rights to everybody who can reach it.

use super::call::call;
use super::{Attack, Verdict};
#[cfg(test)]
use crate::bench::{Bench, Scene};
use ax_sandbox::Wall;

pub(crate) static ATTACK: Attack =
    Attack { name: "set_id_file", root: &[Wall::Seccomp], user: Ok(&[Wall::Seccomp]), inside };

fn inside(_: &[String]) -> Verdict {
    use std::os::unix::fs::PermissionsExt as _;
    let (name, at) = (c"set-id".as_ptr() as usize, libc::AT_FDCWD as isize as usize);
    let create = (libc::O_CREAT | libc::O_WRONLY) as usize;
    let made = std::fs::write("set-id", "").is_ok();
    let ways = [
        (libc::SYS_fchmodat, vec![at, name, 0o4755]),
        // fchmodat2
        (452, vec![at, name, 0o4755, 0]),
        (libc::SYS_openat, vec![at, c"other".as_ptr() as usize, create, 0o4755]),
        (libc::SYS_mknodat, vec![at, c"third".as_ptr() as usize, 0o104_755, 0]),
    ];
    let _answers: Vec<_> = ways.iter().map(|(number, args)| call(*number, args)).collect();
    let set = |file: &str| {
        std::fs::metadata(file).is_ok_and(|found| found.permissions().mode() & 0o4000 != 0)
    };
    let found = ["set-id", "other", "third"].into_iter().find(|file| set(file));
    for file in ["set-id", "other", "third"] {
        let _tidy = std::fs::remove_file(file);
    }
    match found {
        Some(file) => Verdict::Reached(file.into()),
        None if made => Verdict::Refused("no file has the bit".into()),
        None => Verdict::Untestable("the workspace cannot be written".into()),
    }
}

#[cfg(test)]
pub(crate) fn outside(_: &Bench) -> Scene {
    Scene::default()
}
