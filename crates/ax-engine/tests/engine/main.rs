//! Sessions through the whole engine, with harnesses that are Rust functions.
#![expect(clippy::unwrap_used, reason = "a test")]

mod blobs;
mod faults;
mod files;
mod gate;
mod leases;
mod limits;
mod records;
mod sessions;
mod support;
