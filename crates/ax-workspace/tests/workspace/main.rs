//! Snapshots of workspaces, by what they promise.
#![expect(clippy::unwrap_used, reason = "a test")]

mod hostile;
mod kills;
mod live;
mod properties;
mod snapshots;
mod world;
