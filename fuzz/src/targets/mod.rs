//! The decoders, and what each of them must keep to.

mod ax1;
mod gateway;
mod image;
mod log;
mod server;
mod stored;
mod text;

use crate::driver::{Answer, Target};

/// Every target.
pub(crate) fn all() -> Vec<Target> {
    let mut all = text::targets();
    all.extend(stored::targets());
    all.extend(server::targets());
    all.extend(ax1::targets());
    all.extend(gateway::targets());
    all.extend(image::targets());
    all.push(log::target());
    all
}

/// An answer from a result.
fn answer<T, E: std::fmt::Display>(result: Result<T, E>) -> Answer {
    match result {
        Ok(_) => Answer::Accepted,
        Err(error) => Answer::Refused(error.to_string()),
    }
}

/// A file of this repository.
fn file(path: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
