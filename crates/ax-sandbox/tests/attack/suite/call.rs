//! System calls as they are, for attacks.

/// Makes a call. Addresses are given as numbers.
pub(crate) fn call(number: i64, args: &[usize]) -> Result<i64, i32> {
    let arg = |index: usize| args.get(index).copied().unwrap_or(0);
    // SAFETY: an attack gives addresses of its own values that outlive the call, or none. What it
    // does to this process ends with it.
    let done = unsafe { libc::syscall(number, arg(0), arg(1), arg(2), arg(3), arg(4), arg(5)) };
    if done < 0 {
        Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    } else {
        Ok(done)
    }
}

/// A child that waits to be killed. This process has one thread.
pub(crate) struct Child(pub(crate) usize);

impl Child {
    pub(crate) fn new() -> Option<Self> {
        match call(libc::SYS_clone, &[libc::SIGCHLD as usize]) {
            Ok(0) => loop {
                let _until_killed = call(libc::SYS_ppoll, &[]);
            },
            Ok(pid) => usize::try_from(pid).ok().map(Self),
            Err(_) => None,
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _gone_already = call(libc::SYS_kill, &[self.0, libc::SIGKILL as usize]);
        let _status = call(libc::SYS_wait4, &[self.0]);
    }
}
