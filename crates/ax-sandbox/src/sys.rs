//! The few calls of the kernel that no safe library has. All `unsafe` of the crate is here.
//!
//! The launcher has one thread, always. So a child of [`clone`] or [`fork`] may do everything that
//! its parent could: no lock of another thread can be left held in it.
#![expect(unsafe_code, reason = "calls of the kernel; each says why it is sound")]

use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::process::Pid;
use std::io;
use std::mem::size_of;

/// A mount attribute: nothing on the mount can be written.
pub(crate) const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
/// A mount attribute: set-id bits and file capabilities count for nothing.
pub(crate) const NO_SUID: u64 = libc::MOUNT_ATTR_NOSUID;
/// A mount attribute: device nodes do not open.
pub(crate) const NO_DEV: u64 = libc::MOUNT_ATTR_NODEV;
/// A mount attribute: nothing on the mount can be executed.
pub(crate) const NO_EXEC: u64 = libc::MOUNT_ATTR_NOEXEC;

/// Makes a child in new namespaces. Returns its id and a descriptor of it; `None` in the child.
pub(crate) fn clone(namespaces: u64) -> io::Result<Option<(Pid, OwnedFd)>> {
    let mut descriptor: libc::c_int = -1;
    // SAFETY: all zero is a valid value of this struct of integers.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces | libc::CLONE_PIDFD.cast_unsigned() as u64;
    args.pidfd = (&raw mut descriptor) as u64;
    args.exit_signal = libc::SIGCHLD.cast_unsigned().into();
    // SAFETY: without CLONE_VM the child has its own copy of memory, as after fork(2), and this
    // process has one thread. `args` and `descriptor` outlive the call.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    // SAFETY: the kernel has just opened this descriptor for us and nothing else owns it.
    Ok(Some((pid, unsafe { OwnedFd::from_raw_fd(descriptor) })))
}

/// Makes a child. Returns its id; `None` in the child.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: this process has one thread, so the child may do everything.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// Changes attributes of a mount, and of those below it if `recursive`. With `owners`, a user
/// namespace, files on the mount appear with their owners as that namespace maps them.
pub(crate) fn mount_attributes(
    mount: BorrowedFd<'_>,
    recursive: bool,
    set: u64,
    owners: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: set | if owners.is_some() { libc::MOUNT_ATTR_IDMAP } else { 0 },
        attr_clr: 0,
        propagation: 0,
        userns_fd: owners.map_or(0, |owners| owners.as_raw_fd().cast_unsigned().into()),
    };
    let recursive = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string, `attributes` outlives the call and its size is given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Marks every descriptor from 3 on to be closed when another program is executed.
pub(crate) fn close_rest_at_exec() -> io::Result<()> {
    // SAFETY: only marks descriptors; none is closed under its owner.
    let done =
        unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Closes every descriptor from 3 on but these. Nobody else may own one.
pub(crate) fn close_others<const N: usize>(kept: [BorrowedFd<'_>; N]) -> io::Result<()> {
    let mut kept = kept.map(|descriptor| descriptor.as_raw_fd().cast_unsigned());
    kept.sort_unstable();
    let mut from = 3;
    for next in kept.into_iter().chain([u32::MAX]) {
        if from < next {
            // SAFETY: nobody owns what is closed, as the caller says.
            let done = unsafe { libc::syscall(libc::SYS_close_range, from, next - 1, 0) };
            if done < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        from = from.max(next.saturating_add(1));
    }
    Ok(())
}

/// Brings up the interface `lo` of this network namespace.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: all zero is a valid value of this struct of integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    #[expect(clippy::cast_possible_truncation, reason = "the flag is 1")]
    let up = libc::IFF_UP as libc::c_short;
    request.ifr_ifru.ifru_flags = up;
    // SAFETY: `request` is what this request of ioctl takes, and outlives the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
