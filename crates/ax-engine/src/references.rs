//! Which blobs an event refers to: what keeps them, and what an archive must carry.

use ax_core::session::{BlobRef, Body, Event, Kind, Outcome, Part};

/// Returns the blobs that an event refers to.
pub(crate) fn blobs_of(event: &Event) -> Vec<BlobRef> {
    let mut blobs = Vec::new();
    let mut body = |body: &Body| {
        if let Body::Blob(blob) = body {
            blobs.push(*blob);
        }
    };
    let parts = |parts: &[Part], body: &mut dyn FnMut(&Body)| {
        for part in parts {
            body(&part.body);
        }
    };
    match &event.kind {
        Kind::InputReceived { parts: given, .. } | Kind::OutputMessage { parts: given, .. } => {
            parts(given, &mut body);
        }
        Kind::ExecutionEnded { outcome: Outcome::Completed { result: Some(result) }, .. }
        | Kind::StepCompleted { result, .. } => body(result),
        Kind::StepStarted { request: Some(request), .. } => body(request),
        Kind::AskRaised { details: Some(details), .. } => body(details),
        Kind::SignalReceived { payload, .. } => body(payload),
        Kind::Note { data, .. } => body(data),
        _ => {}
    }
    blobs
}
