//! What people and harnesses write: manifests, settings, frames, names, requests in JSON.

use super::{answer, file};
use crate::driver::{Answer, Target};
use ax_core::id::Namespace;
use ax_engine::SessionRef;
use ax_engine::manifest::{self, yaml};
use ax_proto::v1;

const YAML: &[&str] = &[
    "&a ",
    "*a",
    "<<: *a",
    "- ",
    "{",
    "}",
    "[",
    "]",
    ": ",
    "\n  ",
    "|\n",
    ">-\n",
    "!!binary ",
    "---\n",
    "null",
    "true",
    ".nan",
    "1e999",
    "'",
    "\"",
    "\\u0000",
    "#",
    "%YAML 1.1\n",
];
const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\u0000",
    "\\ud800",
    "null",
    "true",
    "-1",
    "1e999",
    "18446744073709551616",
    "0.1",
    "\"type\":",
    "\"key\":",
    "[[[[[[[[[[[[[[[[",
    "{\"a\":{\"a\":",
];

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "manifest",
            examples: manifests(),
            words: YAML,
            memory_factor: 2_000,
            decode: Box::new(manifest),
        },
        Target {
            name: "settings",
            examples: vec![
                b"log:\n  level: info,ax_engine=debug\n  format: json\nengine: {runs_max: 3}\n"
                    .to_vec(),
                b"tracing:\n  endpoint: http://localhost:4318\n  headers: [a=b, 'c=d']\n".to_vec(),
            ],
            words: YAML,
            memory_factor: 2_000,
            decode: Box::new(settings),
        },
        Target {
            name: "frame",
            examples: frames(),
            words: JSON,
            memory_factor: 400,
            decode: Box::new(|bytes| answer(ax_harness::fuzzing::frame(bytes))),
        },
        Target {
            name: "interactions",
            examples: interactions(),
            words: JSON,
            memory_factor: 400,
            decode: Box::new(|bytes| answer(ax_harness::fuzzing::interactions(bytes).map(drop))),
        },
        Target {
            name: "interactions",
            examples: interactions(),
            words: JSON,
            memory_factor: 400,
            decode: Box::new(|bytes| answer(ax_harness::fuzzing::interactions(bytes).map(drop))),
        },
        Target {
            name: "name",
            examples: vec![b"friday".to_vec(), b"ses_00000000000000000000000000000001".to_vec()],
            words: &["ses_", "exec_", "\u{0}", "\u{202e}", "/", "..", "%2e"],
            memory_factor: 100,
            decode: Box::new(name),
        },
        Target {
            name: "request",
            examples: requests(),
            words: JSON,
            memory_factor: 2_000,
            decode: Box::new(request),
        },
    ]
}

fn manifests() -> Vec<Vec<u8>> {
    let templates = ["process", "builtin", "python", "demo"];
    let mut all: Vec<_> =
        templates.iter().map(|name| file(&format!("crates/ax/templates/{name}.yaml"))).collect();
    all.push(file("examples/langgraph/agent.yaml"));
    all
}

/// What is accepted is accepted again, under the same hash.
fn manifest(bytes: &[u8]) -> Answer {
    let text = match manifest::text(bytes) {
        Ok(text) => text,
        Err(problem) => return Answer::Refused(problem.to_string()),
    };
    match manifest::parse(text) {
        Err(problems) if problems.is_empty() => Answer::Wrong("refused without a problem".into()),
        Err(problems) => Answer::Refused(problems[0].to_string()),
        Ok(read) => match manifest::parse(&format!("# the same\n{text}")) {
            Ok(again) if again == read => Answer::Accepted,
            // A directive or a byte order mark must come first.
            Err(_) => Answer::Accepted,
            Ok(_) => Answer::Wrong("a comment makes another manifest of it".into()),
        },
    }
}

fn settings(bytes: &[u8]) -> Answer {
    let Ok(text) = std::str::from_utf8(bytes) else { return Answer::Refused("no text".into()) };
    answer(yaml::read(text, "configuration").map(|node| node.to_json()))
}

fn frames() -> Vec<Vec<u8>> {
    let lines = [
        r#"{"type":"hello","protocol":1,"name":"x","version":"1"}"#,
        r#"{"type":"heartbeat"}"#,
        r#"{"type":"delta","block":"b","part":"text","text":"hello"}"#,
        r#"{"type":"output","text":"hello","key":"k"}"#,
        r#"{"type":"step_begin","key":"k","kind":"tool","name":"n","effect":"once","request":{}}"#,
        r#"{"type":"step_end","key":"k","result":{"b":[1,2]},"usage":{"input_tokens":1}}"#,
        r#"{"type":"ask","key":"k","kind":"choice","prompt":"?","choices":["a","b"]}"#,
        r#"{"type":"sleep","key":"k","due_ms":1000}"#,
        r#"{"type":"signal","key":"k","name":"n"}"#,
        r#"{"type":"emit","name":"n","data":{}}"#,
        r#"{"type":"checkpoint","key":"k","name":"n"}"#,
        r#"{"type":"diverged","key":"k","expected":"a","found":"b"}"#,
        r#"{"type":"end","result":{"a":null}}"#,
        r#"{"type":"fail","code":"c","message":"m"}"#,
    ];
    lines.iter().map(|line| line.as_bytes().to_vec()).collect()
}

/// Streams of the Interactions API.
fn interactions() -> Vec<Vec<u8>> {
    let streams = [
        r#"{"event_type":"interaction.created","interaction":{"id":"i","status":"in_progress"}}"#,
        r#"{"event_type":"step.start","index":0,"step":{"type":"model_output"},"event_id":"e-1"}
{"event_type":"step.delta","index":0,"delta":{"type":"text","text":"hello"},"event_id":"e-2"}
{"event_type":"step.stop","index":0,"event_id":"e-3"}"#,
        r#"{"event_type":"step.start","index":1,"step":{"type":"function_call","id":"c","name":"n"}}
{"event_type":"step.delta","index":1,"delta":{"type":"arguments_delta","arguments":"{}"}}
{"event_type":"step.delta","index":2,"delta":{"type":"image","data":"aGk=","mime_type":"x"}}
{"event_type":"step.stop","index":1}"#,
        r#"{"event_type":"interaction.completed","interaction":{"usage":{"total_input_tokens":1}}}
{"event_type":"error","error":{"code":"c","message":"m"}}
[DONE]"#,
    ];
    let stream = |events: &str| {
        let events = events.lines().map(|event| format!("data: {event}\n\n"));
        events.collect::<String>().into_bytes()
    };
    streams.into_iter().map(stream).collect()
}

/// A name that is accepted names the same session again.
fn name(bytes: &[u8]) -> Answer {
    let Ok(text) = std::str::from_utf8(bytes) else { return Answer::Refused("no text".into()) };
    let namespace = Namespace::default();
    let read = SessionRef::parse(&namespace, text);
    if let Ok(session) = &read {
        let again = SessionRef::parse(&namespace, &session.id.to_string());
        if again.map(|again| again.id).ok() != Some(session.id) {
            return Answer::Wrong("its id names another session".into());
        }
    }
    answer(read)
}

fn requests() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"session":"friday","agent":"a","key":"k","parts":[{"text":{"text":"hello"}}]}"#,
        r#"{"session":"s","ask":"ask_1","answer":{"approve":true},"via":"web"}"#,
        r#"{"session":"s","after":"18446744073709551615","limit":7}"#,
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// The bodies of requests: what is accepted is the same after a round trip.
fn request(bytes: &[u8]) -> Answer {
    fn read<T>(bytes: &[u8]) -> Result<(), String>
    where
        T: serde::de::DeserializeOwned + serde::Serialize + PartialEq,
    {
        let message: T = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let text = serde_json::to_vec(&message).map_err(|error| error.to_string())?;
        let again: T = serde_json::from_slice(&text).expect("what was written can be read");
        assert!(again == message, "a round trip changes it");
        Ok(())
    }
    let submit = read::<v1::SubmitRequest>(bytes);
    let answered = read::<v1::AnswerRequest>(bytes);
    let listed = read::<v1::ListEventsRequest>(bytes);
    answer(submit.or(answered).or(listed))
}
