//! What operators look at: health, metrics, and what traces are made of.
//!
//! Nothing here says what a session contains. No label is named after a session, an agent or a
//! tenant: what is counted stays small, however much there is.

mod health;
mod metrics;
mod observer;
mod process;
mod requests;
mod trace;

pub use health::{Health, Probes, READY_BYTES_MIN};
pub use metrics::{CONTENT_TYPE, Metrics};
pub use observer::Watch;
pub use requests::{Measured, measure};
pub use trace::{SPANS_AHEAD, export_request, spans_of};

pub use opentelemetry_proto::tonic::trace::v1::Span;
