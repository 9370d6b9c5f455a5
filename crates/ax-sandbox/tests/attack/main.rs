//! Attacks that must fail. Each file of `suite` is one attack: what it tries, and which walls stop
//! it. Each runs twice, as root and as an ordinary user: with all walls, where it must be refused,
//! and as a control with exactly its walls left out and all others standing, where it must reach
//! its aim. So an attack that is broken cannot pass. What the kernel of this machine does not let
//! us try is said on standard error: `NOT TESTED`.
//!
//! Attacks that could do harm prove their reach by the kernel's answer to a call that cannot work.
//! Nothing of the machine is changed, and nothing is left behind.
#![expect(unsafe_code, reason = "attacks speak to the kernel directly")]
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::print_stderr, reason = "says what was not tested")]

mod bench;
#[expect(dead_code, reason = "the other half runs in the attacker")]
mod host;
mod lifecycle;
mod suite;
