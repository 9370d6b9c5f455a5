//! The attacks, one file each.

mod call;

use ax_sandbox::Wall;
use serde::{Deserialize, Serialize};

/// What came of an attack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Verdict {
    /// It reached its aim.
    Reached(String),
    /// It was refused.
    Refused(String),
    /// The kernel of this machine would refuse it anyway.
    Untestable(String),
}

impl Verdict {
    /// A call that must not be answered at all: reached if it is carried out, or refused with an
    /// error that only the code behind the wall gives.
    pub(crate) fn of(answer: Result<i64, i32>, behind: &[i32]) -> Self {
        match answer {
            Ok(value) => Self::Reached(format!("returned {value}")),
            Err(errno) if behind.contains(&errno) => Self::Reached(format!("errno {errno}")),
            Err(errno) => Self::Refused(format!("errno {errno}")),
        }
    }

    pub(crate) fn from_io<T>(answer: std::io::Result<T>) -> Self {
        match answer {
            Ok(_) => Self::Reached("done".into()),
            Err(error) => Self::Refused(error.to_string()),
        }
    }
}

/// An attack.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    /// The walls that stop it where root runs the sandbox: the control leaves out exactly these.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the tests"))]
    pub(crate) root: &'static [Wall],
    /// The same where an ordinary user runs it, or why there can be no control.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the tests"))]
    pub(crate) user: Result<&'static [Wall], &'static str>,
    /// What it does. Runs inside.
    pub(crate) inside: fn(&[String]) -> Verdict,
}

macro_rules! attacks {
    ($($name:ident)*) => {
        $(mod $name;)*
        pub(crate) static ALL: &[&Attack] = &[$(&$name::ATTACK),*];
        #[cfg(test)]
        mod runs {
            $(mod $name {
                use super::super::$name::{ATTACK, outside};
                use crate::bench::{Who, check};
                #[test]
                fn as_root() {
                    check(&ATTACK, Who::Root, outside);
                }
                #[test]
                fn as_a_user() {
                    check(&ATTACK, Who::User, outside);
                }
            })*
        }
    };
}

attacks! {
    abstract_socket
    bpf
    cgroup
    chroot
    clock
    core_file
    core_pattern
    debugging
    descriptors
    device_node
    devices
    door
    environment
    foreign_descriptor
    foreign_memory
    forks
    handles
    host_file
    host_name
    io_uring
    kernel_module
    keyrings
    landlock_alone
    large_file
    loopback
    loopback_v6
    memory
    metadata
    mounts
    name_server
    neighbour
    new_kernel
    open_files
    perf
    personality
    pid_one
    proc_files
    processes
    raw_socket
    read_only
    reboot
    roundabout
    scratch_files
    scratch_space
    set_id_file
    set_id_program
    shared_memory
    signals
    socket_families
    terminal
    user_namespace
    userfaultfd
}
