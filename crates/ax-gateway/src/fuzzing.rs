//! For `ax-fuzz`: decoders that are nobody else's business.

use crate::models::{Answer, Canon, Events, Reading, Wire, data};
use serde_json::{Map, Value};

const WIRES: [Wire; 5] =
    [Wire::Anthropic, Wire::Chat, Wire::Responses, Wire::Gemini, Wire::Interactions];

/// Reads a recorded answer; what is accepted comes back the same.
///
/// # Errors
///
/// Says why it is none.
pub fn recorded(text: &str) -> Result<(), String> {
    let answer = Answer::read(text).map_err(|error| error.to_string())?;
    let again = Answer::read(&answer.store(None)).map_err(|error| error.to_string());
    let same = again.is_ok_and(|again| {
        (again.chunks.concat(), again.head) == (answer.chunks.concat(), answer.head)
    });
    assert!(same, "what was read is not what is written");
    Ok(())
}

/// Cuts a stream of events, in pieces of `size`, and reads it in every format; no byte is lost.
pub fn stream(bytes: &[u8], size: usize) {
    let mut events = Events::default();
    let mut readings = WIRES.map(Reading::new);
    let mut seen = 0;
    for piece in bytes.chunks(size.max(1)) {
        if events.feed(piece).is_err() {
            return;
        }
        while let Some(event) = events.next() {
            seen += event.len();
            for reading in &mut readings {
                let _closes = reading.event(&data(&event));
            }
        }
    }
    assert_eq!(seen + events.rest().len(), bytes.len(), "all of it is passed on");
    for reading in &readings {
        assert!(reading.said(&plain(Wire::Chat)).len() <= bytes.len());
    }
}

/// Takes a request apart in every format; the same request has the same parts.
///
/// # Errors
///
/// Says why it is none.
pub fn request(bytes: &[u8]) -> Result<(), String> {
    let body: Map<String, Value> =
        serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    for wire in WIRES {
        let hashes = |body: &Map<String, Value>| {
            let path = "/v1beta/models/m:generateContent";
            let asked = wire.asked(path, body.clone(), &plain(wire));
            asked.parts.into_iter().map(|(digest, _)| digest).collect::<Vec<_>>()
        };
        let (once, again) = (hashes(&body), hashes(&body));
        assert!(once == again && !once.is_empty(), "the same request has the same parts");
    }
    Ok(())
}

fn plain(wire: Wire) -> Canon {
    Canon::new(wire, std::sync::Arc::default())
}
