//! Files of a session's workspace, and no others.

use super::who::{Act, Asked};
use ax_engine::{Code, Engine, Error};
use ax_proto::ax1;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Component, Path};
use tonic::{Request, Response};

/// The largest file that is read, in bytes: what clients of the wire take in one message, less
/// what is around it.
const FILE_BYTES_MAX: u64 = (4 << 20) - (64 << 10);
/// The longest path, in bytes.
const PATH_BYTES_MAX: usize = 4_096;

/// Reads a file.
pub(super) async fn read(
    engine: &Engine,
    request: Request<ax1::ReadFileRequest>,
) -> Result<Response<ax1::ReadFileResponse>, Error> {
    let asked = Asked::of(&request, Act::Read, &request.get_ref().conversation_id)?;
    let path = request.into_inner().path;
    check(&path)?;
    let dir = engine.workspace(&asked.namespace, &asked.session).await;
    let dir = dir.map_err(|error| asked.about(error))?;
    let read = tokio::task::spawn_blocking(move || read_beneath(&dir, &path)).await;
    let content = read.map_err(|error| {
        Error::new(Code::Internal, "reading a file broke down").caused_by(&error)
    })??;
    Ok(Response::new(ax1::ReadFileResponse { content }))
}

pub(super) fn check(path: &str) -> Result<(), Error> {
    let plain = Path::new(path)
        .components()
        .all(|component| matches!(component, Component::Normal(_) | Component::CurDir));
    if path.is_empty() || path.len() > PATH_BYTES_MAX || path.contains('\0') || !plain {
        return Err(outside(path));
    }
    Ok(())
}

fn outside(path: &str) -> Error {
    let shown: String = path.chars().take(100).collect();
    Error::invalid(format!("{shown:?} does not name a file in the workspace"))
        .with_hint("a path is relative to the workspace and does not lead out of it")
}

fn no_file(path: &str) -> Error {
    // The same answer as for anything else that is not there.
    Error::new(Code::NoFile, format!("there is no file {path:?} in the workspace"))
}

/// Opens and reads a file below a directory. The kernel sees to it that no link leads out.
fn read_beneath(dir: &Path, path: &str) -> Result<Vec<u8>, Error> {
    let failed = |error: Errno| {
        Error::new(Code::Read, format!("{path:?} cannot be read"))
            .caused_by(&io::Error::from(error))
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let dir = match openat(CWD, dir, flags | OFlags::DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => return Err(no_file(path)),
        opened => opened.map_err(failed)?,
    };
    let file = match open_beneath(&dir, path) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Err(no_file(path)),
        Err(Errno::XDEV | Errno::LOOP | Errno::NAMETOOLONG) => return Err(outside(path)),
        Err(error) => return Err(failed(error)),
    };
    let kind = rustix::fs::FileType::from_raw_mode(fstat(&file).map_err(failed)?.st_mode);
    if kind != rustix::fs::FileType::RegularFile {
        return Err(Error::invalid(format!("{path:?} is not a file")));
    }
    let mut content = Vec::new();
    let mut limited = File::from(file).take(FILE_BYTES_MAX + 1);
    limited.read_to_end(&mut content).map_err(|error| {
        Error::new(Code::Read, format!("{path:?} cannot be read")).caused_by(&error)
    })?;
    if content.len() as u64 > FILE_BYTES_MAX {
        let message = format!("{path:?} has more than {FILE_BYTES_MAX} bytes");
        return Err(Error::new(Code::TooLarge, message));
    }
    Ok(content)
}

/// Not blocking: somebody may have put a pipe there.
fn open_beneath(dir: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(dir, path, flags, Mode::empty(), resolve) {
            // Something was renamed meanwhile (openat2(2)).
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::NOSYS) => return open_step_by_step(dir, path, flags),
            opened => return opened,
        }
    }
}

/// For kernels before 5.6: follows no links at all.
fn open_step_by_step(dir: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let names: Vec<_> = Path::new(path)
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    let (last, parents) = names.split_last().ok_or(Errno::NOENT)?;
    let mut at = dir.try_clone().map_err(|_| Errno::MFILE)?;
    for name in parents {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        at = openat(&at, *name, flags, Mode::empty())?;
    }
    openat(&at, *last, flags | OFlags::NOFOLLOW, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn expect(dir: &Path, path: &str, expect: Result<&[u8], Code>) {
        let read = check(path).and_then(|()| read_beneath(dir, path));
        assert_eq!(read.as_deref().map_err(|error| error.code), expect, "{path}");
    }

    #[test]
    fn no_path_leads_out_of_the_workspace() {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("workspace");
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(outer.path().join("secret"), "no").unwrap();
        fs::write(dir.join("sub/file"), "yes").unwrap();
        symlink("sub/file", dir.join("inside")).unwrap();
        symlink("../secret", dir.join("up")).unwrap();
        symlink(outer.path().join("secret"), dir.join("absolute")).unwrap();
        symlink("..", dir.join("parent")).unwrap();
        symlink("round", dir.join("round")).unwrap();
        symlink("/proc/self/root", dir.join("magic")).unwrap();
        expect(&dir, "sub/file", Ok(b"yes"));
        expect(&dir, "./sub/./file", Ok(b"yes"));
        expect(&dir, "inside", Ok(b"yes"));
        for path in ["", "/etc/passwd", "../secret", "sub/../../secret", "a\0b", "sub/../sub/file"]
        {
            expect(&dir, path, Err(Code::Invalid));
        }
        for path in ["up", "absolute", "parent/secret", "round", "magic/etc/passwd", "sub", "."] {
            expect(&dir, path, Err(Code::Invalid));
        }
        for path in ["nothing", "sub/nothing", "sub/file/below"] {
            expect(&dir, path, Err(Code::NoFile));
        }
        expect(&outer.path().join("nowhere"), "file", Err(Code::NoFile));
    }

    #[test]
    fn kernels_without_the_newer_call_follow_no_links() {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("workspace");
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(dir.join("sub/file"), "yes").unwrap();
        symlink("sub", dir.join("link")).unwrap();
        symlink("sub/file", dir.join("inside")).unwrap();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let at = openat(CWD, &dir, flags | OFlags::DIRECTORY, Mode::empty()).unwrap();
        assert!(open_step_by_step(&at, "./sub/file", flags).is_ok());
        assert!(open_step_by_step(&at, "link/file", flags).is_err());
        assert!(open_step_by_step(&at, "inside", flags).is_err());
    }

    #[test]
    fn pipes_and_large_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        expect(dir.path(), "pipe", Err(Code::Invalid));
        let file = File::create(dir.path().join("large")).unwrap();
        file.set_len(FILE_BYTES_MAX).unwrap();
        let read = read_beneath(dir.path(), "large").unwrap();
        assert_eq!(read.len() as u64, FILE_BYTES_MAX);
        file.set_len(FILE_BYTES_MAX + 1).unwrap();
        expect(dir.path(), "large", Err(Code::TooLarge));
    }
}
