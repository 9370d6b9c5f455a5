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

/// `CLONE_INTO_CGROUP`, which libc has in a type that is too small.
const INTO_CGROUP: u64 = 1 << 33;

/// Makes a child in new namespaces and, if given, in this control group of version 2. Returns its
/// id and a descriptor of it; `None` in the child.
pub(crate) fn clone(
    namespaces: u64,
    group: Option<BorrowedFd<'_>>,
) -> io::Result<Option<(Pid, OwnedFd)>> {
    let mut descriptor: libc::c_int = -1;
    // SAFETY: all zero is a valid value of this struct of integers.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces | libc::CLONE_PIDFD.cast_unsigned() as u64;
    args.pidfd = (&raw mut descriptor) as u64;
    args.exit_signal = libc::SIGCHLD.cast_unsigned().into();
    if let Some(group) = group {
        args.flags |= INTO_CGROUP;
        args.cgroup = group.as_raw_fd().cast_unsigned().into();
    }
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

/// Makes a child in a new user namespace that has ended already. Until its remains are taken, they
/// lead to the namespace. The memory is not copied for it.
pub(crate) fn namespace_of_the_dead() -> io::Result<Pid> {
    extern "C" fn nothing(_: *mut libc::c_void) -> libc::c_int {
        0
    }
    let mut stack = [0_u128; 1024];
    let flags = libc::CLONE_NEWUSER | libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: the child has a stack of its own, which outlives it: this process stands still until
    // it has ended. It touches nothing else.
    let pid = unsafe { libc::clone(nothing, top.cast(), flags, std::ptr::null_mut()) };
    Pid::from_raw(pid.max(0)).ok_or_else(io::Error::last_os_error)
}

/// Makes a child. Returns its id; `None` in the child.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: this process has one thread, so the child may do everything.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// Says whether the kernel takes the remains of children that end, or this process has to.
pub(crate) fn forget_children(forget: bool) {
    let answer = if forget { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: no handler is installed, so no code of ours can be interrupted by one.
    unsafe { libc::signal(libc::SIGCHLD, answer) };
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

/// Puts this process into a network namespace of its own.
pub(crate) fn new_network() -> io::Result<()> {
    // SAFETY: this process has one thread, and no socket of its own but unix ones.
    let done = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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
