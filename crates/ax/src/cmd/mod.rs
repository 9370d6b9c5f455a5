//! The commands, a module each.

pub(crate) mod agent;
pub(crate) mod auth;
pub(crate) mod branch;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod fakemodel;
pub(crate) mod follow;
pub(crate) mod fsck;
pub(crate) mod image;
pub(crate) mod run;
pub(crate) mod say;
pub(crate) mod serve;
pub(crate) mod session;
mod trajectory;
