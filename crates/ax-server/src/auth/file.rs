//! Small files that two processes may change and a third reads all the time.

use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Makes a directory for its owner only.
pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Waits for the right to change what is in a directory, which lasts until the file is dropped or
/// the process ends.
pub(crate) fn lock(dir: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let path = dir.join("lock");
    let file = options.create(true).truncate(false).write(true).mode(0o600).open(path)?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

/// Puts a content in the place of another: whoever reads sees all of the one or of the other, and
/// once this returns it is the new one after a loss of power, too.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    sync_dir(path.parent().expect("a file is in a directory"))
}

/// Makes the names in a directory durable, and its own.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()?;
    let above = dir.parent().filter(|above| !above.as_os_str().is_empty());
    File::open(above.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

/// Which content a path has, without reading it: changed whenever [`replace`] was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    changed: (i64, i64),
    bytes: u64,
}

impl Stamp {
    /// Looks; a file that is not there has a stamp, too.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        match fs::metadata(path) {
            Ok(about) => Ok(Self {
                inode: about.ino(),
                changed: (about.ctime(), about.ctime_nsec()),
                bytes: about.len(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }
}

/// Reads a file that may be missing, and its stamp.
pub(crate) fn read(path: &Path) -> io::Result<(Stamp, Option<Vec<u8>>)> {
    loop {
        let before = Stamp::of(path)?;
        let content = match fs::read(path) {
            Ok(content) => Some(content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        // Somebody may have replaced it in between.
        if before == Stamp::of(path)? {
            return Ok((before, content));
        }
    }
}

/// What keeps keys and tokens, within a data directory.
pub(crate) fn dir_in(data_dir: &Path) -> PathBuf {
    data_dir.join("auth")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_is_replaced_has_another_stamp_and_is_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        assert_eq!(read(&path).unwrap(), (Stamp::default(), None));
        replace(&path, b"one").unwrap();
        let (one, content) = read(&path).unwrap();
        assert_eq!(content.unwrap(), b"one");
        replace(&path, b"two").unwrap();
        let (two, content) = read(&path).unwrap();
        assert_eq!(content.unwrap(), b"two");
        assert_ne!(one, two);
        assert_eq!(two, Stamp::of(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
