//! The wire types of Agent Executor: `agentexecutor.v1`, and what the engine stores.
//!
//! Generated from `proto/`, nothing else: conversion to and from the types of `ax-core` is the
//! business of `ax-engine` (what is stored) and of `ax-server` and `ax-client` (what is sent).
#![allow(clippy::all, reason = "generated; the documentation is in the proto files")]

/// The public interface.
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/agentexecutor.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/agentexecutor.v1.serde.rs"));
}

/// What the engine stores beside events.
pub mod store {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/agentexecutor.store.v1.rs"));
        include!(concat!(env!("OUT_DIR"), "/agentexecutor.store.v1.serde.rs"));
    }
}

/// The AX wire, generation 1: see `docs/formats/ax1.md`.
pub mod ax1 {
    include!(concat!(env!("OUT_DIR"), "/ax.rs"));

    /// Its descriptors, as an encoded `google.protobuf.FileDescriptorSet`.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ax1-descriptor.bin"));
}

/// The descriptors of our own wire types, as an encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

/// The descriptors of the public interfaces alone: what a server tells clients that ask.
pub const API_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/api.bin"));
