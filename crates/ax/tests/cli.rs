//! The command line as people and scripts see it: the real program, real processes, real files.

#![expect(clippy::unwrap_used, reason = "a test")]

mod cli {
    pub(crate) mod world;

    mod agents;
    mod exits;
    mod help;
    mod inputs;
    mod ops;
    mod people;
    mod servers;
    mod sessions;
    mod stores;
    mod wrong;
}
