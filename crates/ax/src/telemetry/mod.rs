//! What the program says of itself while it runs: logs, metrics and traces.

mod logs;
pub(crate) mod otlp;

pub(crate) use logs::Logs;
