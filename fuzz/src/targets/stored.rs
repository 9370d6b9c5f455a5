//! What is stored or carried: events, states, rows, archives, requests in protobuf.

use super::{answer, file};
use crate::driver::{Answer, Target};
use ax_core::id::{Namespace, Seq, SessionId};
use ax_core::session::Caller;
use ax_engine::{Engine, Options, SystemClock, SystemEntropy, codec};
use ax_harness::{Exit, Io, Launch, Launcher};
use ax_log::{Head, MemoryLog, Row};
use ax_proto::v1;
use ax_store::Blobs;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use prost::Message;
use std::path::PathBuf;
use std::sync::Arc;

/// Beginnings of fields, and lengths that lie.
const WIRE: &[&str] = &["\u{8}", "\u{a}", "\u{12}", "\u{1a}", "\u{7f}", "\u{0}", "\n\u{0}", "ses_"];
/// How an archive begins, and the kinds of its frames (`docs/formats/archive.md`).
const HEADER: &[u8; 8] = b"AXSESS\x00\x01";
const EVENT: u8 = 1;
const END: u8 = 255;

pub(super) fn targets() -> Vec<Target> {
    let target = |name, examples, decode: fn(&[u8]) -> Answer| Target {
        name,
        examples,
        words: WIRE,
        memory_factor: 2_000,
        decode: Box::new(decode),
    };
    vec![
        target("event", golden(|name| name.contains('.') || name == "note"), event),
        target("state", golden(|name| name == "snapshot"), state),
        target("row", rows(), row),
        target("call", calls(), call),
        Target {
            name: "archive",
            examples: archives(),
            words: WIRE,
            memory_factor: 20_000,
            decode: archive(),
        },
    ]
}

/// The golden messages whose names are wanted.
fn golden(wanted: impl Fn(&str) -> bool) -> Vec<Vec<u8>> {
    let text = file("crates/ax-engine/tests/fixtures/stored-v1.txt");
    let text = String::from_utf8(text).expect("it is text");
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let lines = lines.filter(|(name, _)| wanted(name));
    let found: Vec<_> = lines.map(|(_, hex)| bytes(hex.trim())).collect();
    assert!(!found.is_empty(), "the fixture has what is looked for");
    found
}

fn bytes(hex: &str) -> Vec<u8> {
    let read = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("it is hexadecimal");
    (0..hex.len()).step_by(2).map(read).collect()
}

/// What is accepted is encoded to what decodes to the same, in one form only.
fn event(input: &[u8]) -> Answer {
    let read = codec::decode_event(input);
    if let Ok(event) = &read {
        let encoded = codec::encode_event(event);
        let again = codec::decode_event(&encoded);
        if again.as_ref().ok() != Some(event) {
            return Answer::Wrong(format!("it comes back as {again:?}"));
        }
        if codec::encode_event(&again.expect("it was equal")) != encoded {
            return Answer::Wrong("it has two forms".into());
        }
    }
    answer(read)
}

fn state(input: &[u8]) -> Answer {
    let read = codec::decode_state(input);
    if let Ok(state) = &read {
        let again = codec::decode_state(&codec::encode_state(state));
        if again.as_ref().ok() != Some(state) {
            return Answer::Wrong(format!("it comes back as {again:?}"));
        }
    }
    answer(read)
}

fn rows() -> Vec<Vec<u8>> {
    let blank = |data| Row { state: 1, due_millis: None, updated_millis: 1, data };
    let head = Head { last: Seq(9), first: Seq(1), row: blank(Bytes::new()), parent: None };
    // Two levels: what is decoded from nothing has nothing in it, but its fields.
    let row = codec::decode_row(SessionId(7), &head).map(|view| codec::encode_row(&view).to_vec());
    row.into_iter().chain([Vec::new()]).collect()
}

fn row(input: &[u8]) -> Answer {
    let data = Bytes::copy_from_slice(input);
    let state = input.first().copied().unwrap_or(0) % 32;
    let row = Row { state, due_millis: None, updated_millis: 1, data };
    let head = Head { last: Seq(9), first: Seq(1), row, parent: None };
    let id = SessionId(7);
    let read = codec::decode_row(id, &head);
    if let Ok(view) = &read {
        let mut again = head.clone();
        again.row.data = codec::encode_row(view);
        let again = codec::decode_row(id, &again);
        // The engine's views are not compared, so what they show is.
        if again.as_ref().map(|again| format!("{again:?}")).ok() != Some(format!("{view:?}")) {
            return Answer::Wrong(format!("it comes back as {again:?}"));
        }
    }
    answer(read)
}

fn calls() -> Vec<Vec<u8>> {
    let submit = v1::SubmitRequest { session: "s".into(), agent: "a".into(), ..Default::default() };
    let answer = v1::AnswerRequest { session: "s".into(), ask: 1, ..Default::default() };
    vec![submit.encode_to_vec(), answer.encode_to_vec()]
}

fn call(input: &[u8]) -> Answer {
    let submit = v1::SubmitRequest::decode(input).map(drop);
    answer(submit.or_else(|_| v1::AnswerRequest::decode(input).map(drop)))
}

/// Runs nothing: the engine that it is given to only records.
#[derive(Debug)]
struct Nothing;

impl Launcher for Nothing {
    fn launch(&self, _: Launch, _: Io) -> BoxFuture<'static, Exit> {
        unreachable!("an engine without places launches nothing")
    }
}

fn archives() -> Vec<Vec<u8>> {
    let created = golden(|name| name == "session.created").concat();
    let whole = [&[1], &framed(&created)[HEADER.len()..]].concat();
    vec![created, whole]
}

/// Imports an archive that has the input as its only event, framed as it should be; or, if the
/// first byte is odd, the input as it is.
fn archive() -> crate::driver::Decode {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    Box::new(move |input| {
        let archive = match input.split_first() {
            Some((first, rest)) if first % 2 == 1 => raw(rest),
            _ => framed(input),
        };
        let imported = runtime.block_on(async {
            let engine = engine().await;
            let stream = futures::stream::iter([Ok(archive)]).boxed();
            let namespace = Namespace::default();
            let imported = engine.import(Caller::default(), &namespace, None, stream).await;
            engine.shutdown().await;
            imported
        });
        answer(imported)
    })
}

fn raw(rest: &[u8]) -> Bytes {
    let mut archive = BytesMut::from(&HEADER[..]);
    archive.extend_from_slice(rest);
    archive.freeze()
}

fn framed(event: &[u8]) -> Bytes {
    let mut archive = BytesMut::from(&HEADER[..]);
    archive.put_u8(EVENT);
    archive.put_u32(u32::try_from(event.len()).expect("inputs are short"));
    archive.extend_from_slice(event);
    let hash = blake3::hash(&archive);
    archive.put_u8(END);
    archive.put_u32(32);
    archive.extend_from_slice(hash.as_bytes());
    archive.freeze()
}

/// An engine that only records, in memory.
async fn engine() -> Engine {
    let opened = Engine::open(Options {
        data_dir: PathBuf::from("/nonexistent"),
        runs_max: 0,
        log: Arc::new(MemoryLog::new()),
        blobs: Blobs::memory(),
        launcher: Arc::new(Nothing),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
    });
    opened.await.expect("a log in memory opens")
}
