//! The file tree of a sandbox, made of detached copies of what it may see.
//!
//! Every source is taken hold of while the host's tree is still there, with its attributes set,
//! and attached to a small file system in memory. That then becomes the root, and the host's tree
//! is let go. Paths inside are walked one name at a time and links are not followed: what an
//! earlier session left in a workspace leads nowhere.

use super::image;
use super::init::user_inside;
use crate::order::{Bind, Gateway, ImageRoot, Order};
use crate::sys::{self, NO_DEV, NO_EXEC, NO_SUID, READ_ONLY};
use crate::wall::{Refusal, Standing, State, Wall};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, mkdirat, openat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{Pid, fchdir, pivot_root};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Component, Path, PathBuf};

/// Where the gateway's directory is inside.
const GATEWAY_DIR: &str = "/run/gateway";
/// The size of the root, which holds a few small files and mount points, in bytes.
const ROOT_BYTES: u64 = 4 << 20;
/// How many files it can have.
const ROOT_FILES: u64 = 4096;
/// Directories of programs. On most systems all but the first are links into it.
const PROGRAMS: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];
/// What of the host's `/etc` programs need: linker, names of commands, certificates, time zone.
const ETC: [&str; 12] = [
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/etc/ca-certificates/extracted",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/fonts",
];
/// The devices: no more.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Returns where the gateway's socket is inside.
pub(super) fn gateway_inside(gateway: &Gateway) -> PathBuf {
    Path::new(GATEWAY_DIR).join(gateway.socket.file_name().unwrap_or_default())
}

/// User namespaces, by which files of the runtime's user appear as the sandbox's own.
#[derive(Default)]
pub(super) struct Owners {
    /// For the workspace and other writable mounts, by the user and group that own them.
    user: BTreeMap<(u32, u32), OwnedFd>,
    /// For the gateway's directory.
    init: Option<OwnedFd>,
}

impl Owners {
    /// Makes them, where they are needed and can be had.
    pub(super) fn make(order: &Order) -> Result<Self, Refusal> {
        let Some(ids) = order.ids.filter(|_| order.has(Wall::MappedOwners)) else {
            return Ok(Self::default());
        };
        let map = |owner: (u32, u32), id| {
            mapping(owner, id).map_err(|error| Refusal::at(Wall::MappedOwners, "mapping", &error))
        };
        let mut owners = Self::default();
        for bind in order.binds.iter().filter(|bind| bind.mapped) {
            let owner = owner(&bind.source)?;
            if let Entry::Vacant(place) = owners.user.entry(owner) {
                place.insert(map(owner, ids.user)?);
            }
        }
        if let Some(gateway) = &order.gateway {
            let dir = gateway.socket.parent().unwrap_or(&gateway.socket);
            owners.init = Some(map(owner(dir)?, ids.init)?);
        }
        Ok(owners)
    }
}

/// Returns the user and the group that something belongs to.
fn owner(path: &Path) -> Result<(u32, u32), Refusal> {
    let found = fs::metadata(path).map_err(|error| refused(Wall::Root, path, &error))?;
    Ok((found.uid(), found.gid()))
}

/// Makes a user namespace that maps one user and one group.
fn mapping(from: (u32, u32), to: u32) -> io::Result<OwnedFd> {
    let pid = sys::namespace_of_the_dead()?;
    let made = map_and_open(pid, from, to);
    super::bury(pid);
    made
}

fn map_and_open(pid: Pid, (user, group): (u32, u32), to: u32) -> io::Result<OwnedFd> {
    let dir = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    fs::write(dir.join("uid_map"), format!("{user} {to} 1"))?;
    fs::write(dir.join("gid_map"), format!("{group} {to} 1"))?;
    Ok(File::open(dir.join("ns/user"))?.into())
}

/// Something to attach: a mount that is nowhere yet, and where it goes.
struct Piece {
    mount: OwnedFd,
    target: PathBuf,
}

/// Builds the tree and makes it the root. Returns how the walls fare that depend on the kernel.
pub(super) fn build(order: &Order, owners: &Owners) -> Result<Vec<Standing>, Refusal> {
    let failed = |error: Errno| Refusal::at(Wall::Root, "the host's mounts", &error);
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(failed)?;
    if !order.has(Wall::Root) {
        return Ok(Vec::new());
    }
    let mut builder = Builder { order, owners, standing: Vec::new(), to_chown: Vec::new() };
    let mut pieces = builder.programs()?;
    pieces.extend(builder.devices()?);
    pieces.push(builder.proc()?);
    pieces.push(builder.scratch("/tmp")?);
    pieces.extend(builder.binds()?);
    builder.enter(pieces)?;
    Ok(builder.standing)
}

struct Builder<'a> {
    order: &'a Order,
    owners: &'a Owners,
    standing: Vec<Standing>,
    /// Where files could not be mapped and have to be given away.
    to_chown: Vec<PathBuf>,
}

impl Builder<'_> {
    /// Takes hold of a file or directory of the host, with everything that is mounted below.
    fn take(&self, source: &Path, attributes: u64) -> io::Result<OwnedFd> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE;
        let mount = open_tree(CWD, source, flags)?;
        sys::mount_attributes(mount.as_fd(), true, self.allowed(attributes), None)?;
        Ok(mount)
    }

    /// Leaves out what a control of the attack suite wants to be without.
    fn allowed(&self, attributes: u64) -> u64 {
        let mut left = attributes;
        if !self.order.has(Wall::ReadOnly) {
            left &= !READ_ONLY;
        }
        if !self.order.has(Wall::NoSuid) {
            left &= !(NO_SUID | NO_DEV);
        }
        left
    }

    fn programs(&self) -> Result<Vec<Piece>, Refusal> {
        let mut pieces = Vec::new();
        if let Some(image) = &self.order.image {
            return self.top(image);
        }
        for path in PROGRAMS.iter().chain(&ETC).map(Path::new) {
            let is_link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
            // A link among directories of programs is made again; see `own_files`.
            if !path.exists() || (is_link && path.parent() == Some(Path::new("/"))) {
                continue;
            }
            let mount = self.take(path, READ_ONLY | NO_SUID | NO_DEV);
            let mount = mount.map_err(|error| refused(Wall::ReadOnly, path, &error))?;
            pieces.push(Piece { mount, target: path.into() });
        }
        Ok(pieces)
    }

    /// What is at the top of an image that is one directory. Of what lies over each other, nothing
    /// is mounted apart.
    fn top(&self, image: &ImageRoot) -> Result<Vec<Piece>, Refusal> {
        if image::is_overlay(image) {
            return Ok(Vec::new());
        }
        let mut pieces = Vec::new();
        for path in image::top(image).map_err(|error| refused(Wall::Root, "/".as_ref(), &error))? {
            let mount = self.take(&path, READ_ONLY | NO_SUID | NO_DEV);
            let mount = mount.map_err(|error| refused(Wall::ReadOnly, &path, &error))?;
            let target = Path::new("/").join(path.file_name().unwrap_or_default());
            pieces.push(Piece { mount, target });
        }
        Ok(pieces)
    }

    fn devices(&self) -> Result<Vec<Piece>, Refusal> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |error: io::Error| refused(Wall::Dev, &path, &error)
        };
        let dev = Path::new("/dev");
        if !self.order.has(Wall::Dev) {
            let mount = self.take(dev, NO_SUID).map_err(failed(dev))?;
            return Ok(vec![Piece { mount, target: dev.into() }]);
        }
        let mut pieces = vec![self.scratch("/dev/shm")?];
        let terminals = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620")];
        let mount = made("devpts", &terminals, NO_SUID | NO_EXEC).map_err(failed(dev))?;
        pieces.push(Piece { mount, target: dev.join("pts") });
        for name in DEVICES {
            let target = dev.join(name);
            let mount = self.take(&target, NO_SUID | NO_EXEC).map_err(failed(&target))?;
            pieces.push(Piece { mount, target });
        }
        Ok(pieces)
    }

    fn proc(&mut self) -> Result<Piece, Refusal> {
        let target = PathBuf::from("/proc");
        let attributes = NO_SUID | NO_DEV | NO_EXEC;
        let failed = |error: io::Error| refused(Wall::PidNamespace, Path::new("/proc"), &error);
        if !self.order.has(Wall::PidNamespace) {
            // A new one would show a process namespace that is not ours to show.
            return Ok(Piece { mount: self.take(&target, attributes).map_err(failed)?, target });
        }
        if !self.order.has(Wall::Proc) {
            return Ok(Piece { mount: made("proc", &[], attributes).map_err(failed)?, target });
        }
        let all = [("hidepid", "invisible"), ("subset", "pid")];
        let mount = made("proc", &all, attributes).or_else(|error| {
            let why = format!("subset=pid: {error}");
            self.standing.push(Standing { wall: Wall::Proc, state: State::Missing { why } });
            made("proc", &[("hidepid", "2")], attributes)
        });
        Ok(Piece { mount: mount.map_err(failed)?, target })
    }

    /// Makes a place for files that end with the sandbox.
    fn scratch(&self, target: &str) -> Result<Piece, Refusal> {
        let resources = &self.order.plan.resources;
        let (size, files) = (resources.scratch.to_string(), resources.scratch_files.to_string());
        let mut options = vec![("mode", "1777")];
        if self.order.has(Wall::ScratchSize) {
            options.extend([("size", &*size), ("nr_inodes", &*files)]);
        }
        let mount = made("tmpfs", &options, NO_SUID | NO_DEV);
        let mount = mount.map_err(|error| refused(Wall::ScratchSize, target.as_ref(), &error))?;
        Ok(Piece { mount, target: target.into() })
    }

    fn binds(&mut self) -> Result<Vec<Piece>, Refusal> {
        let order = self.order;
        let mut pieces = Vec::new();
        for bind in &order.binds {
            pieces.push(self.bind(bind)?);
        }
        for target in &order.covers {
            let options = [("mode", "0755"), ("size", "64k"), ("nr_inodes", "64")];
            let mount = made("tmpfs", &options, NO_SUID | NO_DEV | NO_EXEC);
            let mount = mount.map_err(|error| refused(Wall::Root, target, &error))?;
            pieces.push(Piece { mount, target: target.clone() });
        }
        // What covers something lies above it, and below what is shown in it again.
        pieces.sort_by_key(|piece| piece.target.components().count());
        if let Some(gateway) = &order.gateway {
            let dir = gateway.socket.parent().unwrap_or(&gateway.socket);
            let failed = |error: io::Error| refused(Wall::Root, dir, &error);
            // One can connect to a socket on a mount that is read-only, but not remove it.
            let mount = self.take(dir, READ_ONLY | NO_SUID | NO_DEV | NO_EXEC).map_err(failed)?;
            if let Some(owners) = &self.owners.init {
                sys::mount_attributes(mount.as_fd(), false, 0, Some(owners.as_fd()))
                    .map_err(|error| refused(Wall::MappedOwners, dir, &error))?;
            }
            pieces.push(Piece { mount, target: GATEWAY_DIR.into() });
        }
        Ok(pieces)
    }

    fn bind(&mut self, bind: &Bind) -> Result<Piece, Refusal> {
        let attributes = NO_SUID | NO_DEV | if bind.writable { 0 } else { READ_ONLY };
        let mount = self.take(&bind.source, attributes);
        let mount = mount.map_err(|error| refused(Wall::Root, &bind.source, &error))?;
        let owners = if bind.mapped { self.owners.user.get(&owner(&bind.source)?) } else { None };
        if let Some(owners) = owners {
            let done = sys::mount_attributes(mount.as_fd(), false, 0, Some(owners.as_fd()));
            if let Err(error) = done {
                let why = format!("{}: {error}", bind.source.display());
                let state = State::Missing { why };
                self.standing.push(Standing { wall: Wall::MappedOwners, state });
                self.to_chown.push(bind.target.clone());
            }
        } else if bind.mapped && self.order.ids.is_some() {
            self.to_chown.push(bind.target.clone());
        }
        Ok(Piece { mount, target: bind.target.clone() })
    }

    /// Puts the pieces together and makes the result the root.
    fn enter(&self, pieces: Vec<Piece>) -> Result<(), Refusal> {
        let failed = |error: io::Error| Refusal::at(Wall::Root, "building", &error);
        let taken = self.order.image.as_ref().map(image::take).transpose()?;
        let (size, files) = (ROOT_BYTES.to_string(), ROOT_FILES.to_string());
        let options = [("mode", "0755"), ("size", &*size), ("nr_inodes", &*files)];
        let root = made("tmpfs", &options, NO_SUID | NO_DEV).map_err(failed)?;
        let place = ["/tmp", "/mnt", "/usr"].iter().find(|place| Path::new(place).is_dir());
        let place = place.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        attach(&root, CWD, Path::new(place)).map_err(failed)?;
        fchdir(&root).map_err(|error| failed(error.into()))?;
        self.own_files(root.as_fd()).map_err(failed)?;
        let root = match &taken {
            Some(taken) if self.order.image.as_ref().is_some_and(image::is_overlay) => {
                // Nothing can be made in an overlay that is read-only: its places come from below.
                for Piece { mount, target } in &pieces {
                    point(root.as_fd(), target, is_dir(mount))
                        .map_err(|error| refused(Wall::Root, target, &error))?;
                }
                taken.overlay(&root, Path::new(place))?
            }
            Some(taken) => {
                taken.links(root.as_fd()).map_err(failed)?;
                root
            }
            None => root,
        };
        for Piece { mount, target } in pieces {
            let point = point(root.as_fd(), &target, is_dir(&mount))
                .map_err(|error| refused(Wall::Root, &target, &error))?;
            let flags =
                MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            move_mount(&mount, "", &point, "", flags)
                .map_err(|error| refused(Wall::Root, &target, &error.into()))?;
        }
        self.links(root.as_fd()).map_err(failed)?;
        // The old root is put on top of the new one and let go.
        let swapped = pivot_root(".", ".").and_then(|()| unmount(".", UnmountFlags::DETACH));
        swapped.map_err(|error| Refusal::at(Wall::Root, "pivot_root", &error))?;
        std::env::set_current_dir("/").map_err(failed)?;
        let sealed = self.allowed(READ_ONLY | NO_SUID | NO_DEV);
        sys::mount_attributes(root.as_fd(), false, sealed, None)
            .map_err(|error| Refusal::at(Wall::ReadOnly, "the root", &error))?;
        self.to_chown
            .iter()
            .try_for_each(|path| give(path, user_inside(self.order)))
            .map_err(failed)
    }

    /// Makes the links again that lead to programs.
    fn links(&self, root: BorrowedFd<'_>) -> io::Result<()> {
        for (link, to) in &self.order.links {
            let Some(name) = link.file_name() else { continue };
            let dir = point(root, link.parent().unwrap_or(link), true)?;
            match symlinkat(to, &dir, name) {
                // The way to another program has it already.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Makes the files that are ours: links to programs, devices' other names, a small `/etc`.
    fn own_files(&self, root: BorrowedFd<'_>) -> io::Result<()> {
        let from_host: &[&str] = if self.order.image.is_some() { &[] } else { &PROGRAMS };
        for path in from_host {
            if let Ok(to) = fs::read_link(path) {
                symlinkat(to, root, path.trim_start_matches('/'))?;
            }
        }
        drop(point(root, Path::new("/run"), true)?);
        if self.order.has(Wall::Dev) {
            drop(point(root, Path::new("/dev"), true)?);
            let links = [
                ("/proc/self/fd", "dev/fd"),
                ("/proc/self/fd/0", "dev/stdin"),
                ("/proc/self/fd/1", "dev/stdout"),
                ("/proc/self/fd/2", "dev/stderr"),
                ("pts/ptmx", "dev/ptmx"),
            ];
            links.iter().try_for_each(|(to, from)| symlinkat(*to, root, *from))?;
        }
        if self.order.image.as_ref().is_some_and(|image| !image::is_overlay(image)) {
            // Its own `/etc` is mounted as it is.
            return Ok(());
        }
        drop(point(root, Path::new("/etc"), true)?);
        let user = user_inside(self.order);
        let name = self.order.image.as_ref().map_or("agent", image::user);
        let host = &self.order.plan.hostname;
        let files = [
            (
                "etc/passwd",
                format!(
                    "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\n\
                     {name}:x:{user}:{user}:{name}:/tmp:/bin/sh\n\
                     nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
                ),
            ),
            ("etc/group", format!("root:x:0:\n{name}:x:{user}:\nnogroup:x:65534:\n")),
            ("etc/hosts", format!("127.0.0.1 localhost {host}\n::1 localhost\n")),
            ("etc/hostname", format!("{host}\n")),
            ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n".into()),
            // Nobody answers there: names are for the gateway to resolve.
            ("etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n".into()),
        ];
        for (path, text) in files {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let file = openat(root, path, flags, Mode::from_raw_mode(0o644))?;
            File::from(file).write_all(text.as_bytes())?;
        }
        Ok(())
    }
}

fn is_dir(mount: &OwnedFd) -> bool {
    fstat(mount).is_ok_and(|found| FileType::from_raw_mode(found.st_mode).is_dir())
}

fn refused(wall: Wall, path: &Path, error: &io::Error) -> Refusal {
    Refusal::at(wall, &path.display().to_string(), error)
}

/// Makes a file system that is mounted nowhere yet.
fn made(kind: &str, options: &[(&str, &str)], attributes: u64) -> io::Result<OwnedFd> {
    let system = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (name, value) in options {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(system.as_fd(), *name)?;
        } else {
            fsconfig_set_string(system.as_fd(), *name, *value)?;
        }
    }
    fsconfig_create(system.as_fd())?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let mount = fsmount(system.as_fd(), flags, MountAttrFlags::empty())?;
    sys::mount_attributes(mount.as_fd(), false, attributes, None)?;
    Ok(mount)
}

fn attach(mount: &OwnedFd, dir: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    Ok(move_mount(mount, "", dir, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Opens what something is to be mounted on, and makes it where it does not exist.
fn point(root: BorrowedFd<'_>, target: &Path, is_dir: bool) -> io::Result<OwnedFd> {
    let names: Vec<_> = target
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    let open = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = openat(root, ".", open | OFlags::DIRECTORY, Mode::empty())?;
    for (index, name) in names.iter().enumerate() {
        let dir = is_dir || index + 1 < names.len();
        let made = if dir {
            mkdirat(&at, *name, Mode::from_raw_mode(0o755))
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            openat(&at, *name, flags, Mode::from_raw_mode(0o644)).map(drop)
        };
        match made {
            // What cannot be made may be there.
            Ok(()) | Err(Errno::EXIST | Errno::ROFS) => {}
            Err(error) => return Err(error.into()),
        }
        let kind = if dir { OFlags::DIRECTORY } else { OFlags::empty() };
        at = openat(&at, *name, open | kind, Mode::empty())?;
    }
    Ok(at)
}

/// Gives a directory and everything below it to a user, without following links.
fn give(path: &Path, user: u32) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if found.uid() != user {
        lchown(path, Some(user), Some(user))?;
    }
    if found.is_dir() {
        fs::read_dir(path)?.try_for_each(|entry| give(&entry?.path(), user))?;
    }
    Ok(())
}
