//! Attacks that must fail. Each file of `suite` is one attack: what it tries, and which walls stop
//! it. Each runs twice, as root and as an ordinary user: with all walls, where it must be refused,
//! and as a control with exactly its walls left out and all others standing, where it must reach
//! its aim. So an attack that is broken cannot pass. What the kernel of this machine does not let
//! us try is said on standard error: `NOT TESTED`.
//!
//! Attacks that could do harm prove their reach by the kernel's answer to a call that cannot work.
//! Nothing of the machine is changed, and nothing is left behind.
//!
//! | attack | root: left out in the control | ordinary user |
//! |---|---|---|
//! | abstract_socket | NetNamespace | the same |
//! | bpf | Seccomp | the same |
//! | cgroup | Root, OwnId, Landlock | no control |
//! | chroot | Capabilities, Seccomp | the same |
//! | clock | Seccomp | the same |
//! | core_file | ProcessLimits | the same |
//! | core_pattern | Proc, OwnId | no control |
//! | debugging | Seccomp | the same |
//! | descriptors | Descriptors | the same |
//! | device_node | Capabilities, Seccomp, Landlock | no control |
//! | devices | Dev | the same |
//! | door | Seccomp, OwnId, Capabilities, Landlock | no control |
//! | environment | Environment | the same |
//! | foreign_descriptor | Seccomp | the same |
//! | foreign_memory | Seccomp | the same |
//! | forks | Cgroup, ProcessLimits | ProcessLimits |
//! | handles | Seccomp | the same |
//! | host_file | Root, Landlock | the same |
//! | host_name | UtsNamespace | the same |
//! | io_uring | Seccomp | the same |
//! | kernel_module | Capabilities, Seccomp | no control |
//! | keyrings | Seccomp | the same |
//! | landlock_alone | Landlock | the same |
//! | large_file | ProcessLimits | the same |
//! | loopback | NetNamespace | the same |
//! | loopback_v6 | NetNamespace | the same |
//! | memory | Cgroup, ProcessLimits | ProcessLimits |
//! | metadata | NetNamespace | the same |
//! | mounts | Capabilities, Seccomp, Landlock | the same |
//! | name_server | NetNamespace | the same |
//! | neighbour | Root, Landlock | the same |
//! | new_kernel | Capabilities, Seccomp | no control |
//! | open_files | ProcessLimits | the same |
//! | perf | Seccomp | the same |
//! | personality | Seccomp | the same |
//! | pid_one | PidNamespace, OwnId, Landlock | PidNamespace, Landlock |
//! | proc_files | Proc | the same |
//! | processes | PidNamespace | the same |
//! | raw_socket | Capabilities | the same |
//! | read_only | ReadOnly, Landlock | the same |
//! | reboot | Capabilities, Seccomp | the same |
//! | roundabout | Root, Landlock | the same |
//! | scratch_files | ScratchSize | the same |
//! | scratch_space | ScratchSize | the same |
//! | set_id_file | Seccomp | the same |
//! | set_id_program | NoNewPrivileges, NoSuid, Seccomp, Landlock | no control |
//! | shared_memory | IpcNamespace | the same |
//! | signals | PidNamespace, OwnId, Landlock | PidNamespace, Landlock |
//! | socket_families | Seccomp | the same |
//! | terminal | Seccomp | the same |
//! | user_namespace | Seccomp | the same |
//! | userfaultfd | Seccomp | the same |
#![expect(unsafe_code, reason = "attacks speak to the kernel directly")]
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::print_stderr, reason = "says what was not tested")]

mod bench;
#[expect(dead_code, reason = "the other half runs in the attacker")]
mod host;
mod images;
mod lifecycle;
mod suite;

#[test]
fn every_attack_is_in_the_table() {
    let table = include_str!("main.rs");
    for attack in suite::ALL {
        // What it does is in its file, for the attacker.
        let _what = attack.inside;
        assert!(table.contains(&format!("//! | {} |", attack.name)), "{}", attack.name);
    }
}
