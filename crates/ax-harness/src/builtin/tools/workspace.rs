//! Files within the workspace, and only there.
//!
//! Paths are resolved by the kernel beneath the workspace's directory (openat2(2) with
//! `RESOLVE_BENEATH`), so that neither `..` nor a symbolic link, also one that appears in the
//! meantime, leads out of it.

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fchmod, fsync, mkdirat, openat,
    openat2, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// The workspace.
#[derive(Debug)]
pub(super) struct Workspace {
    root: OwnedFd,
    path: PathBuf,
}

/// An entry of a directory.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) is_dir: bool,
    pub(super) is_file: bool,
}

impl Workspace {
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty())
            .map_err(|error| format!("the workspace cannot be opened: {error}"))?;
        Ok(Self { root, path: path.to_owned() })
    }

    /// Returns a path as seen from the workspace.
    pub(super) fn relative(&self, path: &str) -> Result<PathBuf, String> {
        if path.is_empty() || path.contains('\0') {
            return Err("the path is empty or contains a NUL character".into());
        }
        let inside = Path::new(path).strip_prefix(&self.path).unwrap_or_else(|_| Path::new(path));
        if inside.is_absolute() {
            return Err(outside(path));
        }
        let plain: PathBuf =
            inside.components().filter(|part| *part != Component::CurDir).collect();
        Ok(if plain.as_os_str().is_empty() { PathBuf::from(".") } else { plain })
    }

    /// Opens a regular file to read.
    pub(super) fn file(&self, path: &Path) -> Result<File, String> {
        // A pipe without a writer must not make us wait.
        let file = File::from(self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK)?);
        let metadata = file.metadata().map_err(|error| said(path, error))?;
        if metadata.is_dir() {
            return Err(format!("{} is a directory", path.display()));
        }
        if !metadata.is_file() {
            return Err(format!("{} is not a regular file", path.display()));
        }
        Ok(file)
    }

    /// Replaces a file as a whole; when this returns it is durable.
    pub(super) fn replace(&self, path: &Path, content: &[u8]) -> Result<(), String> {
        let Some(name) = path.file_name() else {
            return Err(format!("{} is not a file's name", path.display()));
        };
        let dir = self.make_dirs(path.parent().unwrap_or_else(|| Path::new("")))?;
        let fail = |error: Errno| said(path, error.into());
        let mode = match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => Mode::from_raw_mode(stat.st_mode),
                FileType::Directory => return Err(format!("{} is a directory", path.display())),
                _ => return Err(format!("{} is not a regular file", path.display())),
            },
            Err(_) => Mode::from_raw_mode(0o644),
        };
        let mut draft = std::ffi::OsString::from(".ax-draft-");
        draft.push(name);
        // What somebody left there, such as a pipe, is neither followed nor waited for.
        match unlinkat(&dir, &draft, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(fail(error)),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&dir, &draft, flags, mode).map_err(fail)?);
        file.write_all(content).map_err(|error| said(path, error))?;
        fchmod(&file, mode).map_err(fail)?;
        fsync(&file).map_err(fail)?;
        renameat(&dir, &draft, &dir, name).map_err(fail)?;
        fsync(&dir).map_err(fail)
    }

    /// Opens a directory to list it.
    pub(super) fn dir(&self, path: &Path) -> Result<OwnedFd, String> {
        self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    fn make_dirs(&self, path: &Path) -> Result<OwnedFd, String> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut so_far = PathBuf::from(".");
        let mut dir = self.resolve(&so_far, flags)?;
        for part in path.components() {
            if let Component::Normal(name) = part {
                match mkdirat(&dir, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(said(path, error.into())),
                }
            }
            so_far.push(part);
            dir = self.resolve(&so_far, flags)?;
        }
        Ok(dir)
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, String> {
        let flags = flags | OFlags::CLOEXEC;
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.root, path, flags, Mode::empty(), within).map_err(|error| match error {
            Errno::XDEV | Errno::LOOP => outside(&path.to_string_lossy()),
            error => said(path, error.into()),
        })
    }
}

/// Lists a directory, in the order of its names.
pub(super) fn entries(dir: impl AsFd) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(dir).map_err(|error| error.to_string())? {
        let entry = entry.map_err(|error| error.to_string())?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            let is_dir = entry.file_type() == FileType::Directory;
            let is_file = entry.file_type() == FileType::RegularFile;
            entries.push(Entry { name, is_dir, is_file });
        }
    }
    entries.sort_unstable();
    Ok(entries)
}

/// Opens an entry of a directory; follows no link.
pub(super) fn open_entry(dir: impl AsFd, entry: &Entry) -> Option<OwnedFd> {
    let kind = if entry.is_dir { OFlags::DIRECTORY } else { OFlags::NONBLOCK };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | kind;
    openat(dir, entry.name.as_str(), flags, Mode::empty()).ok()
}

fn outside(path: &str) -> String {
    format!("{path} leads out of the workspace")
}

fn said(path: &Path, error: std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::mknodat;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_lies_in_the_way_of_a_draft_is_neither_followed_nor_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("workspace");
        fs::create_dir(&root).unwrap();
        let outside = dir.path().join("outside");
        fs::write(&outside, "whole").unwrap();
        let workspace = Workspace::open(&root).unwrap();
        mknodat(CWD, root.join(".ax-draft-a"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        workspace.replace(Path::new("a"), b"one").unwrap();
        symlink(&outside, root.join(".ax-draft-b")).unwrap();
        workspace.replace(Path::new("b"), b"two").unwrap();
        assert_eq!(fs::read(root.join("a")).unwrap(), b"one");
        assert_eq!(fs::read(root.join("b")).unwrap(), b"two");
        assert_eq!(fs::read(outside).unwrap(), b"whole");
        fs::create_dir(root.join(".ax-draft-c")).unwrap();
        assert!(workspace.replace(Path::new("c"), b"three").is_err());
    }
}
