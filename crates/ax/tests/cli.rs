//! The command line as people and scripts see it: the real program, real processes, real files.

#![expect(clippy::unwrap_used, reason = "a test")]

mod cli {
    pub(crate) mod certificates;
    pub(crate) mod manager;
    pub(crate) mod world;

    mod agents;
    mod egress;
    mod exits;
    mod help;
    mod images;
    mod inputs;
    mod kills;
    mod models;
    mod ops;
    mod people;
    mod records;
    mod reload;
    mod servers;
    mod sessions;
    mod stores;
    mod tls;
    mod tools;
    mod wrong;
}
