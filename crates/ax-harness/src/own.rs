//! Files of the runtime in a directory that harnesses write to.
//!
//! What a harness left there may be anything, such as a link to a file of the host, and the runtime
//! may be root. So no link is followed: directories are made or checked name by name while nothing
//! of the session runs ([`own_dir`]), and what is read and written while it does goes through a
//! descriptor that was opened then ([`Held`]).

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, renameat, unlinkat,
};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// Returns a directory below another one, made where it is missing. What is in its way, such as a
/// link, is removed. Nothing else may write there meanwhile.
///
/// # Errors
///
/// Fails if it cannot be made, or if `below` is not made of plain names.
pub fn own_dir(dir: &Path, below: &Path) -> io::Result<PathBuf> {
    let mut path = dir.to_owned();
    for part in below.components() {
        let Component::Normal(name) = part else { return Err(io::ErrorKind::InvalidInput.into()) };
        path.push(name);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => continue,
            Ok(_) => fs::remove_file(&path)?,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) => {}
        }
        fs::create_dir(&path)?;
    }
    Ok(path)
}

/// The largest content that is read into memory, in bytes.
const INPUT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Opens a content that the engine has put into a workspace, as `.ax/blobs/HASH`. A harness may
/// have put something else there since.
pub(crate) fn open_input(path: &Path) -> io::Result<File> {
    // The workspace itself is nobody's to replace.
    let workspace = path.ancestors().nth(3).unwrap_or_else(|| Path::new("/"));
    let below = path.strip_prefix(workspace).map_err(|_| io::ErrorKind::InvalidInput)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let workspace = openat(CWD, workspace, flags, Mode::empty())?;
    // A pipe without a writer must not make us wait.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = openat2(&workspace, below, flags, Mode::empty(), within)?;
    if !FileType::from_raw_mode(fstat(&file)?.st_mode).is_file() {
        return Err(io::Error::other("it is not a regular file any more"));
    }
    Ok(file.into())
}

/// Reads a content that the engine has put into a workspace.
pub(crate) fn read_input(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_input(path)?.take(INPUT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A directory that stays the same one, whatever a harness puts in its place.
#[derive(Debug)]
pub(crate) struct Held(OwnedFd);

impl Held {
    /// Opens a directory of [`own_dir`].
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(openat(CWD, dir, OFlags::RDONLY | flags, Mode::empty())?))
    }

    /// Reads a file, of `bytes_max` at most.
    pub(crate) fn read(&self, name: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
        // A pipe without a writer must not make us wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(&self.0, name, flags, Mode::empty())?);
        let mut bytes = Vec::new();
        file.take(bytes_max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes a file that is there whole or not at all, and durable when this returns.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let beside = format!("{name}.new");
        self.remove(&beside)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.0, &*beside, flags, Mode::from_raw_mode(0o600))?);
        file.write_all(bytes)?;
        file.sync_all()?;
        renameat(&self.0, &*beside, &self.0, name)?;
        Ok(rustix::fs::fsync(&self.0)?)
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.0, name, AtFlags::empty()) {
            Err(error) if error != Errno::NOENT => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Connects to a socket in it.
    pub(crate) async fn connect(&self, name: &str) -> io::Result<tokio::net::UnixStream> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let socket = openat(&self.0, name, flags, Mode::empty())?;
        if !FileType::from_raw_mode(fstat(&socket)?.st_mode).is_socket() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        // By its descriptor: nothing can be put in its place any more (proc(5)).
        tokio::net::UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_leads_nowhere() {
        let (dir, host) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(host.path().join("file"), "of the host").unwrap();
        symlink(host.path(), dir.path().join(".ax")).unwrap();
        let made = own_dir(dir.path(), Path::new(".ax/state")).unwrap();
        assert!(made.is_dir() && !host.path().join("state").exists());
        let held = Held::open(&made).unwrap();
        for name in ["marker", "marker.new"] {
            symlink(host.path().join("file"), made.join(name)).unwrap();
        }
        assert!(held.read("marker", 100).is_err());
        held.write("marker", b"ours").unwrap();
        assert_eq!(held.read("marker", 3).unwrap(), b"our");
        // Somebody puts a link in the place of the directory.
        fs::rename(&made, dir.path().join("elsewhere")).unwrap();
        symlink(host.path(), &made).unwrap();
        held.write("file", b"ours").unwrap();
        assert!(Held::open(&made).is_err());
        assert_eq!(fs::read_to_string(host.path().join("file")).unwrap(), "of the host");
        assert_eq!(fs::read_dir(host.path()).unwrap().count(), 1);
        assert!(own_dir(dir.path(), Path::new("../x")).is_err());
    }

    #[test]
    fn a_content_is_the_one_that_was_put_there_or_none() {
        let (dir, host) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let blobs = own_dir(dir.path(), Path::new(".ax/blobs")).unwrap();
        fs::write(host.path().join("secret"), "planted").unwrap();
        fs::write(blobs.join("good"), "content").unwrap();
        symlink(host.path().join("secret"), blobs.join("link")).unwrap();
        symlink("/dev/zero", blobs.join("zero")).unwrap();
        assert_eq!(read_input(&blobs.join("good")).unwrap(), b"content");
        for name in ["link", "zero", "none"] {
            assert!(read_input(&blobs.join(name)).is_err(), "{name}");
        }
        fs::remove_dir_all(&blobs).unwrap();
        symlink(host.path(), &blobs).unwrap();
        assert!(read_input(&blobs.join("secret")).is_err());
    }

    #[tokio::test]
    async fn only_a_socket_is_connected_to() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("real");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        symlink(&socket, dir.path().join("link")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let held = Held::open(dir.path()).unwrap();
        held.connect("real").await.unwrap();
        for name in ["link", "file", "nothing"] {
            assert!(held.connect(name).await.is_err(), "{name}");
        }
        drop(listener);
    }
}
