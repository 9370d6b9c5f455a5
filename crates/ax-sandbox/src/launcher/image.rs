//! The tree of an image as the root: its layers, read-only, laid over each other by the kernel.
//!
//! The uppermost layer is ours: a small file system in memory with the places where something is
//! mounted, and the few files of `/etc` that say who the sandbox's user is. A directory that both
//! have shows what is in both; nothing is ever written to a layer.

use crate::order::ImageRoot;
use crate::wall::{Refusal, Wall};
use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, openat, symlinkat};
use rustix::mount::{MountFlags, mount};
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What the sandbox makes itself, whatever an image has there.
const OWN: [&str; 5] = ["dev", "proc", "run", "sys", "tmp"];
const DIR: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// The longest name of a user, in bytes.
const USER_BYTES_MAX: usize = 32;

/// Returns whether the kernel lays layers over each other, or mounts what is in the only one.
pub(super) const fn is_overlay(image: &ImageRoot) -> bool {
    image.layers.len() > 1
}

/// What of an image has to be taken hold of while the host's tree is still there.
pub(super) struct Taken {
    layers: Vec<OwnedFd>,
    /// Links at the top of a single layer, and where they lead.
    links: Vec<(OsString, PathBuf)>,
}

/// Takes hold of an image's layers.
pub(super) fn take(image: &ImageRoot) -> Result<Taken, Refusal> {
    let open = |path: &PathBuf| {
        let opened = openat(CWD, path, DIR, Mode::empty());
        opened.map_err(|error| Refusal::at(Wall::Root, &path.display().to_string(), &error))
    };
    let layers = image.layers.iter().map(open).collect::<Result<_, _>>()?;
    let mut taken = Taken { layers, links: Vec::new() };
    if !is_overlay(image) {
        let failed = |error: io::Error| Refusal::at(Wall::Root, "the links of an image", &error);
        for path in entries(image).map_err(failed)?.iter().filter(|path| path.is_symlink()) {
            let name = path.file_name().unwrap_or_default().to_owned();
            taken.links.push((name, fs::read_link(path).map_err(failed)?));
        }
    }
    Ok(taken)
}

impl Taken {
    /// Mounts the layers below what is made already, and returns the result.
    pub(super) fn overlay(&self, own: &OwnedFd, place: &Path) -> Result<OwnedFd, Refusal> {
        let failed = |what: &str, error: &dyn fmt::Display| {
            let hint = "the layers can be put together in one directory: docs/images.md";
            Refusal { hint: hint.into(), ..Refusal::at(Wall::Root, what, error) }
        };
        // By descriptor: paths would be too long together, and could have characters that mean
        // more.
        let all = std::iter::once(own).chain(&self.layers);
        let lower: Vec<_> = all.map(|dir| format!("/proc/self/fd/{}", dir.as_raw_fd())).collect();
        // Marks of what is removed are attributes that ordinary users may set.
        let options = CString::new(format!("lowerdir={},userxattr", lower.join(":")));
        let options = options.map_err(|error| failed("options", &error))?;
        let attributes = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        mount("overlay", place, "overlay", attributes, Some(&*options))
            .map_err(|error| failed("laying layers over each other", &error))?;
        let root = openat(CWD, place, DIR, Mode::empty());
        let root = root.map_err(|error| failed("the laid layers", &error))?;
        rustix::process::fchdir(&root).map_err(|error| failed("the laid layers", &error))?;
        Ok(root)
    }

    /// Makes the links at the top of a single layer again.
    pub(super) fn links(&self, root: BorrowedFd<'_>) -> io::Result<()> {
        let mut links = self.links.iter();
        Ok(links.try_for_each(|(name, to)| symlinkat(to, root, name))?)
    }
}

/// Returns the files and directories at the top of a single layer.
pub(super) fn top(image: &ImageRoot) -> io::Result<Vec<PathBuf>> {
    Ok(entries(image)?.into_iter().filter(|path| path.exists() && !path.is_symlink()).collect())
}

fn entries(image: &ImageRoot) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in image.layers.iter().map(fs::read_dir).collect::<io::Result<Vec<_>>>()? {
        for entry in entry {
            let entry = entry?;
            if !OWN.iter().any(|own| entry.file_name() == *own) {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// Returns the environment that an image wants, as far as it is one.
pub(super) fn env(image: &ImageRoot) -> impl Iterator<Item = (&OsStr, &OsStr)> {
    let pairs = image.env.iter().filter_map(|one| one.split_once('='));
    let pairs = pairs.filter(|(name, value)| !name.is_empty() && !value.contains('\0'));
    pairs.filter(|(name, _)| !name.contains('\0')).map(|(n, v)| (OsStr::new(n), OsStr::new(v)))
}

/// Returns what the sandbox's user is called: as the image says, if that is a plain name.
pub(super) fn user(image: &ImageRoot) -> &str {
    let name = image.user.split(':').next().unwrap_or_default();
    let is_plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let is_taken = ["root", "nobody"].contains(&name);
    let is_name = begins && name.len() <= USER_BYTES_MAX && name.bytes().all(is_plain);
    if is_name && !is_taken { name } else { "agent" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_name_and_never_an_id() {
        for (said, expected) in [
            ("node", "node"),
            ("www-data:www-data", "www-data"),
            ("", "agent"),
            ("0", "agent"),
            ("1000:1000", "agent"),
            ("root", "agent"),
            ("a:b\nroot", "a"),
            ("a\nroot::0:0", "agent"),
            ("-x", "agent"),
        ] {
            let image = ImageRoot { user: said.into(), ..ImageRoot::default() };
            assert_eq!(user(&image), expected, "{said:?}");
        }
    }

    #[test]
    fn what_is_no_variable_is_left_out() {
        let words = ["A=b=c", "=x", "none", "B=", "C=\0", "D\0=x"].map(str::to_owned);
        let image = ImageRoot { env: words.into(), ..ImageRoot::default() };
        let found: Vec<_> = env(&image).collect();
        let os = OsStr::new;
        assert_eq!(found, [(os("A"), os("b=c")), (os("B"), os(""))]);
    }
}
