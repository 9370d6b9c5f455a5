//! The walls around a sandboxed program, by name.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wall {
    /// A user namespace with one id, where the runtime is not root.
    UserNamespace,
    /// A mount namespace and a root of its own, with nothing of the host that was not named.
    Root,
    /// What is mounted read-only can not be written.
    ReadOnly,
    /// Set-id bits and device nodes count for nothing on any mount.
    NoSuid,
    /// A process namespace of its own.
    PidNamespace,
    /// `/proc` shows the own processes and nothing else.
    Proc,
    /// `/dev` has the harmless devices only.
    Dev,
    /// A network namespace with loopback only.
    NetNamespace,
    /// An ipc namespace of its own.
    IpcNamespace,
    /// A host name of its own.
    UtsNamespace,
    /// A control group namespace of its own.
    CgroupNamespace,
    /// A user id that nobody else has; never that of root outside.
    OwnId,
    /// No capabilities, in no set.
    Capabilities,
    /// Executing a program gives no new privileges.
    NoNewPrivileges,
    /// The allow-list of system calls.
    Seccomp,
    /// Landlock: a second wall around files and signals.
    Landlock,
    /// No open descriptor is inherited.
    Descriptors,
    /// No environment variable is inherited.
    Environment,
    /// Limits of each process: open files, file size, core files.
    ProcessLimits,
    /// Limits of all processes together: memory, processor time, number.
    Cgroup,
    /// Files of the workspace appear as the sandbox's own, and stay the runtime's outside.
    MappedOwners,
    /// The sizes of `/tmp` and `/dev/shm`.
    ScratchSize,
}

impl Wall {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 22] = [
        Self::UserNamespace,
        Self::Root,
        Self::ReadOnly,
        Self::NoSuid,
        Self::PidNamespace,
        Self::Proc,
        Self::Dev,
        Self::NetNamespace,
        Self::IpcNamespace,
        Self::UtsNamespace,
        Self::CgroupNamespace,
        Self::OwnId,
        Self::Capabilities,
        Self::NoNewPrivileges,
        Self::Seccomp,
        Self::Landlock,
        Self::Descriptors,
        Self::Environment,
        Self::ProcessLimits,
        Self::Cgroup,
        Self::MappedOwners,
        Self::ScratchSize,
    ];

    /// Returns whether nothing starts where this wall cannot be built.
    pub const fn is_mandatory(self) -> bool {
        !matches!(
            self,
            Self::Landlock | Self::Cgroup | Self::CgroupNamespace | Self::MappedOwners | Self::Proc
        )
    }

    /// Returns what stands in for it where it cannot be built.
    pub const fn substitute(self) -> &'static str {
        match self {
            Self::Landlock => "the mount namespace, the user id and the seccomp filter stand alone",
            Self::Cgroup => "limits of each process (RLIMIT_DATA, RLIMIT_NPROC)",
            Self::CgroupNamespace => "no control group file system is mounted",
            Self::MappedOwners => "the workspace's files are given to the sandbox's user id",
            Self::Proc => "/proc with hidepid only",
            _ => "",
        }
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UserNamespace => "user namespace",
            Self::Root => "own file tree",
            Self::ReadOnly => "read-only mounts",
            Self::NoSuid => "mounts without set-id and devices",
            Self::PidNamespace => "process namespace",
            Self::Proc => "reduced /proc",
            Self::Dev => "minimal /dev",
            Self::NetNamespace => "network namespace",
            Self::IpcNamespace => "ipc namespace",
            Self::UtsNamespace => "host name namespace",
            Self::CgroupNamespace => "control group namespace",
            Self::OwnId => "own user id",
            Self::Capabilities => "no capabilities",
            Self::NoNewPrivileges => "no new privileges",
            Self::Seccomp => "system call filter",
            Self::Landlock => "Landlock",
            Self::Descriptors => "no inherited descriptors",
            Self::Environment => "clean environment",
            Self::ProcessLimits => "limits of each process",
            Self::Cgroup => "limits of the whole",
            Self::MappedOwners => "mapped file owners",
            Self::ScratchSize => "bounded scratch space",
        })
    }
}

/// How a wall fares in one sandbox, or on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It stands.
    Stands,
    /// It is not there.
    Missing {
        /// Why.
        why: String,
    },
    /// It has no meaning here, as a user namespace for root.
    NotNeeded,
}

/// One line of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The wall.
    pub wall: Wall,
    /// How it fares.
    pub state: State,
}

/// Why a sandbox was not started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{cause}")]
pub struct Refusal {
    /// The wall that cannot be built, if it is one.
    pub wall: Option<Wall>,
    /// What went wrong.
    pub cause: String,
    /// What may help; may be empty.
    pub hint: String,
}

impl Refusal {
    /// Says what went wrong, with no wall in particular.
    pub(crate) fn new(cause: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { wall: None, cause: cause.into(), hint: hint.into() }
    }

    /// Says that a wall could not be built.
    pub(crate) fn at(wall: Wall, what: &str, error: &dyn fmt::Display) -> Self {
        let hint = match wall {
            Wall::UserNamespace => {
                "allow user namespaces (sysctl kernel.unprivileged_userns_clone, \
                 user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns), or run \
                 the runtime as root"
            }
            Wall::OwnId => "see `ids` of the sandbox options: the range must be free and mapped",
            Wall::Seccomp => "the kernel needs CONFIG_SECCOMP_FILTER",
            Wall::ReadOnly | Wall::NoSuid => "Linux 5.12 or later is needed",
            _ => "`ax doctor` says which walls stand on this machine",
        };
        Self { wall: Some(wall), cause: format!("{wall}: {what}: {error}"), hint: hint.into() }
    }
}
