//! Sandboxes: programs that reach only what a policy grants.
//!
//! ```text
//! runtime ──control socket──▶ launcher (our own binary, one thread)
//!                                └─ pid 1 (namespaces; ours: reaps, forwards to the gateway,
//!                                   │     and lets the runtime in)
//!                                     └─ command (own user id, no capability, seccomp, Landlock)
//! ```
//!
//! The launcher is a fork of one that stays ready, so that a start does not execute it anew.
//!
//! A [`Plan`] is the checked `sandbox` section of a manifest. A [`Backend`] starts a [`Spec`]
//! under it: [`Namespace`] with all walls or not at all, [`Process`] with none. [`probe`] tries
//! which walls stand on this machine.
//!
//! It is not a container engine: images are made and kept elsewhere, and there are no networks but
//! the gateway's. It does not
//! decide policy, and it does not protect against a weakness of the kernel that the allowed system
//! calls reach.
//!
//! Start reading at [`backend`], then [`launcher`]; the table of system calls is [`seccomp`].
//!
//! # Example
//!
//! ```
//! use ax_sandbox::Plan;
//!
//! let section = serde_json::json!({"resources": {"memory": "512MiB"}, "timeLimit": "30m"});
//! let plan = Plan::parse(&section)?;
//! assert_eq!(plan.time_limit, Some(1800));
//! # Ok::<(), ax_sandbox::ConfigError>(())
//! ```

pub mod backend;
mod cgroup;
pub mod conformance;
mod door;
mod forker;
mod guests;
pub mod launcher;
mod order;
mod plan;
mod prepare;
mod probe;
mod registry;
pub mod seccomp;
mod sys;
mod wall;

pub use backend::{Backend, Ended, Namespace, Options, Process, Running, Spec, Status, ids_of};
pub use cgroup::Stats;
pub use door::Door;
pub use guests::Guests;
pub use order::{Gateway, ImageRoot};
pub use plan::{BackendKind, ConfigError, Mount, Plan, Resources, Root};
pub use probe::probe;
pub use registry::prefix_of;
pub use wall::{Refusal, Standing, State, Wall};
