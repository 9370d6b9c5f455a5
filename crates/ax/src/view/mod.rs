//! How events and sessions look.

pub(crate) mod describe;
pub(crate) mod json;
pub(crate) mod session;
pub(crate) mod table;
pub(crate) mod transcript;
