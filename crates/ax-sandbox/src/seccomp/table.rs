//! Which system calls a sandboxed program may make, and why. Also a table in `docs/sandbox.md`.

/// System calls that are allowed for the same reason.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// A short name.
    pub name: &'static str,
    /// Why they are allowed, or why they are refused.
    pub reason: &'static str,
    /// Their names and numbers.
    pub calls: &'static [(&'static str, i64)],
}

macro_rules! family {
    ($name:literal, $reason:literal, [$($call:ident)*]) => {
        Family { name: $name, reason: $reason, calls: &[$((
            // The part after `SYS_`.
            stringify!($call).split_at(4).1,
            libc::$call,
        )),*] }
    };
}

/// What is allowed, whatever the arguments, unless [`ARGUMENTS`] says otherwise.
pub const ALLOWED: &[Family] = &[
    family!(
        "files",
        "reading and writing files; which ones, is for the mounts, the user id and Landlock",
        [SYS_read SYS_write SYS_pread64 SYS_pwrite64 SYS_readv SYS_writev SYS_preadv SYS_pwritev
         SYS_preadv2 SYS_pwritev2 SYS_openat SYS_close SYS_close_range SYS_lseek SYS_fstat
         SYS_newfstatat SYS_statx SYS_statfs SYS_fstatfs SYS_getdents64 SYS_readlinkat
         SYS_faccessat SYS_faccessat2 SYS_fcntl SYS_flock SYS_fsync SYS_fdatasync SYS_sync
         SYS_syncfs SYS_sync_file_range SYS_ftruncate SYS_truncate SYS_fallocate SYS_fadvise64
         SYS_readahead SYS_sendfile SYS_copy_file_range SYS_splice SYS_tee SYS_vmsplice
         SYS_mkdirat SYS_mknodat SYS_unlinkat SYS_symlinkat SYS_linkat SYS_renameat SYS_renameat2
         SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat SYS_utimensat SYS_umask SYS_chdir
         SYS_fchdir SYS_getcwd SYS_dup SYS_dup3 SYS_pipe2 SYS_ioctl SYS_getxattr SYS_lgetxattr
         SYS_fgetxattr SYS_listxattr SYS_llistxattr SYS_flistxattr SYS_setxattr SYS_lsetxattr
         SYS_fsetxattr SYS_removexattr SYS_lremovexattr SYS_fremovexattr SYS_inotify_init1
         SYS_inotify_add_watch SYS_inotify_rm_watch SYS_memfd_create]
    ),
    family!(
        "memory",
        "every program's own memory",
        [SYS_brk SYS_mmap SYS_munmap SYS_mremap SYS_mprotect SYS_madvise SYS_mincore SYS_msync
         SYS_mlock SYS_mlock2 SYS_munlock SYS_mlockall SYS_munlockall SYS_membarrier
         SYS_pkey_alloc SYS_pkey_free SYS_pkey_mprotect SYS_get_mempolicy SYS_mbind
         SYS_set_mempolicy]
    ),
    family!(
        "processes",
        "shells, tools and threads; new namespaces are refused by the arguments of `clone`",
        [SYS_clone SYS_execve SYS_execveat SYS_exit SYS_exit_group SYS_wait4 SYS_waitid
         SYS_getpid SYS_getppid SYS_gettid SYS_getpgid SYS_setpgid SYS_getsid SYS_setsid
         SYS_set_tid_address SYS_set_robust_list SYS_get_robust_list SYS_rseq SYS_futex
         SYS_prctl SYS_pidfd_open SYS_pidfd_send_signal SYS_getpriority SYS_setpriority
         SYS_sched_yield SYS_sched_getaffinity SYS_sched_setaffinity SYS_sched_getparam
         SYS_sched_setparam SYS_sched_getscheduler SYS_sched_setscheduler SYS_sched_getattr
         SYS_sched_setattr SYS_sched_get_priority_max SYS_sched_get_priority_min
         SYS_sched_rr_get_interval SYS_getcpu SYS_ioprio_get SYS_ioprio_set]
    ),
    family!(
        "signals",
        "between the programs of one sandbox; there are no others in their process namespace",
        [SYS_kill SYS_tkill SYS_tgkill SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn
         SYS_rt_sigpending SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo SYS_rt_sigsuspend
         SYS_rt_sigtimedwait SYS_sigaltstack SYS_signalfd4 SYS_restart_syscall]
    ),
    family!(
        "identity",
        "asking who one is; changing it finds no capability to do so",
        [SYS_getuid SYS_geteuid SYS_getgid SYS_getegid SYS_getresuid SYS_getresgid SYS_getgroups
         SYS_setuid SYS_setgid SYS_setreuid SYS_setregid SYS_setresuid SYS_setresgid SYS_setgroups
         SYS_setfsuid SYS_setfsgid SYS_capget SYS_capset]
    ),
    family!(
        "network",
        "sockets of the families that `socket` is allowed, in a network of loopback only",
        [SYS_socket SYS_socketpair SYS_bind SYS_listen SYS_accept SYS_accept4 SYS_connect
         SYS_getsockname SYS_getpeername SYS_getsockopt SYS_setsockopt SYS_sendto SYS_recvfrom
         SYS_sendmsg SYS_recvmsg SYS_sendmmsg SYS_recvmmsg SYS_shutdown]
    ),
    family!(
        "events",
        "waiting for several things at a time",
        [SYS_ppoll SYS_pselect6 SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2
         SYS_eventfd2 SYS_timerfd_create SYS_timerfd_settime SYS_timerfd_gettime]
    ),
    family!(
        "time",
        "reading clocks and waiting; no clock can be set",
        [SYS_clock_gettime SYS_clock_getres SYS_clock_nanosleep SYS_gettimeofday SYS_nanosleep
         SYS_getitimer SYS_setitimer SYS_timer_create SYS_timer_settime SYS_timer_gettime
         SYS_timer_getoverrun SYS_timer_delete SYS_times]
    ),
    family!(
        "ipc",
        "shared memory, semaphores and queues, in an ipc namespace of its own",
        [SYS_shmget SYS_shmat SYS_shmdt SYS_shmctl SYS_semget SYS_semop SYS_semtimedop SYS_semctl
         SYS_msgget SYS_msgsnd SYS_msgrcv SYS_msgctl SYS_mq_open SYS_mq_unlink SYS_mq_timedsend
         SYS_mq_timedreceive SYS_mq_notify SYS_mq_getsetattr]
    ),
    family!(
        "facts",
        "what language runtimes ask of the machine when they start, and randomness",
        [SYS_uname SYS_sysinfo SYS_getrandom SYS_getrlimit SYS_setrlimit SYS_prlimit64
         SYS_getrusage]
    ),
    family!(
        "own walls",
        "a program may confine itself further, as browsers and language runtimes do",
        [SYS_seccomp SYS_landlock_create_ruleset SYS_landlock_add_rule SYS_landlock_restrict_self]
    ),
    #[cfg(target_arch = "x86_64")]
    family!(
        "old forms",
        "older numbers of the calls above; other processors never had them",
        [SYS_open SYS_creat SYS_stat SYS_lstat SYS_access SYS_getdents SYS_readlink SYS_mkdir
         SYS_rmdir SYS_mknod SYS_unlink SYS_symlink SYS_link SYS_rename SYS_chmod SYS_chown
         SYS_lchown SYS_utime SYS_utimes SYS_futimesat SYS_dup2 SYS_pipe SYS_poll SYS_select
         SYS_epoll_create SYS_epoll_wait SYS_eventfd SYS_signalfd SYS_inotify_init SYS_fork
         SYS_vfork SYS_getpgrp SYS_pause SYS_alarm SYS_time SYS_arch_prctl]
    ),
];

/// What is refused with `EPERM`, so that a program learns that it may not. Every call that stands
/// in neither table is answered with `ENOSYS`, as by a kernel that does not have it.
pub const REFUSED: &[Family] = &[
    family!(
        "others' memory",
        "debugging, and reading or taking what belongs to another process",
        [SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_process_madvise SYS_kcmp
         SYS_pidfd_getfd SYS_userfaultfd]
    ),
    family!(
        "kernel programs",
        "the largest part of the kernel that ordinary programs never need, with a long record of \
         weaknesses",
        [SYS_bpf SYS_perf_event_open SYS_fanotify_init SYS_fanotify_mark SYS_io_uring_setup
         SYS_io_uring_enter SYS_io_uring_register]
    ),
    family!(
        "mounts",
        "the file tree of a sandbox is built before it starts and stays as it is",
        [SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_move_mount SYS_open_tree SYS_fsopen
         SYS_fsconfig SYS_fsmount SYS_fspick SYS_mount_setattr]
    ),
    family!(
        "namespaces",
        "a nested user namespace would give all capabilities inside it",
        [SYS_unshare SYS_setns]
    ),
    family!(
        "keys",
        "kernel keyrings are not separated by any namespace",
        [SYS_keyctl SYS_add_key SYS_request_key]
    ),
    family!(
        "handles",
        "opening files by number goes around every directory's permissions",
        [SYS_open_by_handle_at SYS_name_to_handle_at]
    ),
    family!(
        "machine",
        "modules, reboot, swap, quota, accounting, the kernel's log, terminals of others",
        [SYS_kexec_load SYS_init_module SYS_finit_module SYS_delete_module SYS_reboot SYS_swapon
         SYS_swapoff SYS_quotactl SYS_acct SYS_syslog SYS_vhangup SYS_sethostname
         SYS_setdomainname]
    ),
    family!(
        "clocks",
        "the machine has one clock for all",
        [SYS_settimeofday SYS_clock_settime SYS_adjtimex SYS_clock_adjtime]
    ),
    family!(
        "odd worlds",
        "other execution domains switch protections of the address space off",
        [SYS_personality SYS_lookup_dcookie SYS_nfsservctl]
    ),
    #[cfg(target_arch = "x86_64")]
    family!("ports", "direct access to devices", [SYS_iopl SYS_ioperm SYS_kexec_file_load]),
];

/// What is refused with `EPERM` by its arguments: the call, what, and why.
pub const ARGUMENTS: &[(&str, &str, &str)] = &[
    ("clone", "any `CLONE_NEW…` flag", "as for `unshare`"),
    (
        "socket",
        "families other than AF_UNIX, AF_INET, AF_INET6, AF_NETLINK",
        "of netlink only routes; AF_VSOCK reaches the host of a virtual machine, AF_ALG and \
         AF_PACKET the kernel; none of them is needed",
    ),
    ("ioctl", "TIOCSTI, TIOCLINUX", "they type into a terminal that others read"),
    (
        "chmod, fchmod, fchmodat, open, openat, creat, mkdir, mkdirat",
        "the set-user-id and set-group-id bits",
        "files of the workspace belong to the runtime's user outside",
    ),
    ("mknod, mknodat", "devices", "a device node opens what it names"),
    ("the numbers of x32", "all", "a second, rarely tested door to the same kernel"),
];
