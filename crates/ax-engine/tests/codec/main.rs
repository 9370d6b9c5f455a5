//! What is stored reads back as what it was, for ever.
#![expect(clippy::unwrap_used, reason = "a test")]

mod arbitrary;
mod drive;
mod samples;

use ax_core::id::{AskId, AttemptId, ExecId, Seq, SessionId};
use ax_core::session::{AgentRef, Answer, Answered, Event, State, Usage};
use ax_core::time::Timestamp;
use ax_engine::codec::{
    decode_event, decode_row, decode_state, encode_event, encode_row, encode_state, from_proto,
    to_proto, wire_event,
};
use ax_engine::{SessionView, Status, WaitState};
use ax_log::{Head, Row};
use ax_proto::{store, v1};
use bytes::Bytes;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use prost::Message;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Events and a snapshot as version 1 wrote them, a line each: a name, and the bytes in
/// hexadecimal digits.
const FIXTURE: &str = include_str!("../fixtures/stored-v1.txt");
/// The event of a record, and a snapshot with records, as they were first written.
const RECORDS_FIXTURE: &str = include_str!("../fixtures/stored-records-v1.txt");
const WORKSPACES_FIXTURE: &str = include_str!("../fixtures/stored-workspaces-v1.txt");
/// The BLAKE3 hash of the fixture. It never changes: a new kind of event gets a new fixture.
const FIXTURE_HASH: &str = "490e771da14bc969f6745bbe7d9dc3d088fa569ec195d90fb8ecb124786b755b";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect()
}

fn check_state(state: &State) {
    assert_eq!(decode_state(&encode_state(state)).as_ref(), Ok(state));
}

#[test]
fn what_version_1_wrote_is_read_and_written_alike() {
    let events = samples::events();
    let mut now: Vec<_> = events
        .iter()
        .map(|event| format!("{} {}", event.kind.name(), hex(&encode_event(event))))
        .collect();
    now.push(format!("snapshot {}", hex(&encode_state(&samples::state()))));
    assert_eq!(now.len(), FIXTURE.lines().count());
    for (now, then) in now.iter().zip(FIXTURE.lines()) {
        assert_eq!(now, then, "old readers must be able to read what is written");
    }
    assert_eq!(blake3::hash(FIXTURE.as_bytes()).to_string(), FIXTURE_HASH);
    let lines: Vec<_> = FIXTURE.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    let (snapshot, events) = lines.split_last().unwrap();
    let events: Vec<_> = events.iter().map(|line| decode_event(&unhex(line)).unwrap()).collect();
    assert_eq!(events, samples::events());
    assert_eq!(decode_state(&unhex(snapshot)), Ok(samples::state()));
}

#[test]
fn what_came_later_is_read_and_written_as_it_first_was() {
    let (record, state) = samples::records();
    as_it_was(RECORDS_FIXTURE, &[record], &state);
    let (events, state) = samples::workspaces();
    as_it_was(WORKSPACES_FIXTURE, &events, &state);
}

/// The lines of a fixture are events, and then a state.
fn as_it_was(fixture: &str, events: &[Event], state: &State) {
    let mut now: Vec<_> = events.iter().map(|event| hex(&encode_event(event))).collect();
    now.push(hex(&encode_state(state)));
    let then: Vec<_> = fixture.lines().collect();
    assert_eq!(now, then);
    let (snapshot, lines) = then.split_last().unwrap();
    for (line, event) in lines.iter().zip(events) {
        assert_eq!(decode_event(&unhex(line)).as_ref(), Ok(event));
    }
    assert_eq!(decode_state(&unhex(snapshot)).as_ref(), Ok(state));
}

#[test]
fn the_samples_have_every_kind() {
    let (record, _) = samples::records();
    let (files, _) = samples::workspaces();
    let events = samples::events().into_iter().chain([record]).chain(files);
    let kinds: BTreeSet<_> = events.map(|event| event.kind.name()).collect();
    assert_eq!(kinds.len(), 36, "every name of `Kind::name`");
}

#[test]
fn an_event_on_the_wire_has_its_position() {
    let event = samples::events().remove(0);
    let wire = wire_event(Seq(7), &encode_event(&event)).unwrap();
    assert_eq!(wire.seq, 7);
    assert_eq!(v1::Event { seq: 0, ..wire.clone() }, to_proto(&event));
    assert_eq!(from_proto(wire), Ok(event));
}

#[test]
fn the_driver_gets_far() {
    let mut runner = TestRunner::deterministic();
    let mut kinds = BTreeSet::new();
    for _ in 0..200 {
        let mut driver = drive::Driver::new();
        for step in drive::moves().new_tree(&mut runner).unwrap().current() {
            driver.go(step);
        }
        kinds.extend(driver.take_events().iter().map(|event| event.kind.name()));
    }
    // It neither branches nor deletes, its harness does not diverge and has no budget.
    assert!(kinds.len() >= 25, "{} kinds: {kinds:?}", kinds.len());
}

proptest! {
    #[test]
    fn every_event_reads_back(event in arbitrary::event()) {
        prop_assert_eq!(decode_event(&encode_event(&event)), Ok(event));
    }

    #[test]
    fn every_state_that_is_reached_reads_back(moves in drive::moves()) {
        let mut driver = drive::Driver::new();
        for step in moves {
            driver.go(step);
            check_state(driver.state());
            for event in driver.take_events() {
                prop_assert_eq!(decode_event(&encode_event(&event)), Ok(event));
            }
        }
    }

    #[test]
    fn garbage_is_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        drop(decode_event(&bytes));
        drop(decode_state(&bytes));
        drop(decode_row(SessionId(1), &head(bytes.into())));
    }

    #[test]
    fn damaged_bytes_never_panic(
        event in arbitrary::event(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        end in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode_event(&event).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = decode_event(&bytes) {
            prop_assert_eq!(decode_event(&encode_event(&read)), Ok(read));
        }
        bytes.truncate(end.index(bytes.len()));
        drop(decode_event(&bytes));
    }

    #[test]
    fn damaged_snapshots_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = encode_state(&samples::state()).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        drop(decode_state(&bytes));
    }
}

/// Changes the message of the first sample that `change` takes, and says why it is refused then.
fn refusal(change: impl Fn(&mut v1::Event) -> bool) -> String {
    let changed = samples::events().iter().find_map(|event| {
        let mut message = to_proto(event);
        change(&mut message).then_some(message)
    });
    decode_event(&changed.unwrap().encode_to_vec()).unwrap_err().to_string()
}

macro_rules! refused {
    ($kind:ident, $message:ident, $change:expr, $expect:literal) => {
        let found = refusal(|event| {
            if let Some(v1::event::Kind::$kind($message)) = &mut event.kind {
                $change;
                return true;
            }
            false
        });
        assert_eq!(found, $expect);
    };
}

#[test]
fn what_is_wrong_is_named_by_its_field() {
    let gone = "event.kind is missing or of an unknown kind";
    assert_eq!(refusal(|event| event.kind.take().is_some()), gone);
    let set = |event: &mut v1::Event| {
        event.actor = 9;
        true
    };
    assert_eq!(refusal(set), "event.actor has no value 9");
    let set = |event: &mut v1::Event| {
        event.key_id = 1;
        true
    };
    assert_eq!(refusal(set), "event.key_id is 1, which is out of range");
    refused!(
        InputReceived,
        input,
        input.digest.truncate(31),
        "input_received.digest has 31 bytes instead of 32"
    );
    refused!(
        InputReceived,
        input,
        input.policy = 0,
        "input_received.policy is missing or of an unknown kind"
    );
    refused!(
        InputCanceled,
        input,
        input.input = 0,
        "input_canceled.input is missing or of an unknown kind"
    );
    refused!(
        InputCanceled,
        input,
        input.input = u64::MAX,
        "input_canceled.input is 18446744073709551615, which is out of range"
    );
    refused!(
        SessionBranched,
        branched,
        branched.parent = "x".into(),
        "session_branched.parent is not an identifier: \"x\" is not a session id: ses_ and 32 \
         hexadecimal digits"
    );
    refused!(
        StepCompleted,
        step,
        step.result = Some(v1::Body::default()),
        "step_completed.result is missing or of an unknown kind"
    );
    refused!(
        StepStarted,
        step,
        step.step.clear(),
        "step_started.step is missing or of an unknown kind"
    );
    refused!(
        AttemptLost,
        lost,
        lost.reason = None,
        "attempt_lost.reason is missing or of an unknown kind"
    );
}

#[test]
fn an_unknown_kind_is_refused_and_unknown_fields_are_not() {
    let event = samples::events().remove(0);
    let mut bytes = encode_event(&event).to_vec();
    // Field 10, a varint.
    bytes.extend([10 << 3, 1]);
    assert_eq!(decode_event(&bytes), Ok(event.clone()));
    let mut message = to_proto(&event);
    message.kind = None;
    let mut bytes = message.encode_to_vec();
    // Field 1000, an empty message.
    bytes.extend([0xc2, 0x3e, 0]);
    let error = decode_event(&bytes).unwrap_err().to_string();
    assert_eq!(error, "event.kind is missing or of an unknown kind");
}

#[test]
fn a_snapshot_that_no_writer_made_is_refused() {
    let check = |change: &dyn Fn(&mut store::v1::Snapshot), expect: &str| {
        let mut message = store::v1::Snapshot::decode(&*encode_state(&samples::state())).unwrap();
        change(&mut message);
        let error = decode_state(&message.encode_to_vec()).unwrap_err();
        assert_eq!(error.to_string(), expect);
    };
    check(&|state| state.version = 2, "snapshot version 2 is not known");
    let twice = "snapshot.keys has \"input key\" twice";
    check(&|state| state.keys.push(state.keys[0].clone()), twice);
    check(
        &|state| state.keys = vec![state.keys[0].clone(); 4_097],
        "snapshot.keys is 4097, which is out of range",
    );
    let twice = "snapshot.asks has \"ask_1\" twice";
    check(&|state| state.asks.push(state.asks[0].clone()), twice);
    let phase = "execution.phase has no value 9";
    check(&|state| state.execution.as_mut().unwrap().phase = 9, phase);
    let max = "snapshot.exec_count is 4294967295, which is out of range";
    check(&|state| state.exec_count = u32::MAX, max);
}

#[test]
fn what_a_later_version_added_to_a_snapshot_reads_back() {
    let answer = Answer::Choice("one".into(), "why".into());
    let answered = Answered { ask: AskId(1), seq: Seq(40), answer };
    let answered = vec![answered; Answered::COUNT_MAX];
    check_state(&State { answered: answered.clone().into(), ..samples::state() });
    let more = State { answered: [answered.clone(), answered].concat().into(), ..samples::state() };
    let error = decode_state(&encode_state(&more)).unwrap_err();
    assert_eq!(error.to_string(), "snapshot.answered is 32, which is out of range");
}

fn head(data: Bytes) -> Head {
    let row = Row { state: 8, due_millis: Some(9), updated_millis: 10, data };
    Head { last: Seq(5), first: Seq(1), row, parent: Some((SessionId(3), Seq(2))) }
}

fn view(reason: String) -> SessionView {
    let status = Status {
        state: WaitState::Completed,
        waiting: vec!["signal paid".into()],
        due_at: Some(Timestamp::from_millis(9)),
        exec: Some(ExecId(2)),
        attempt: Some(AttemptId(3)),
        asks: Vec::new(),
        queued: 4,
        outcome: "execution.failed".into(),
        reason,
    };
    SessionView {
        id: SessionId(1),
        name: "name".into(),
        title: "title".into(),
        agent: AgentRef { name: "agent".into(), version: 6 },
        sandbox: "process".into(),
        status,
        last: Seq(5),
        parent: Some((SessionId(3), Seq(2))),
        created_at: Timestamp::from_millis(7),
        updated_at: Timestamp::from_millis(10),
        usage: Usage { input_tokens: 1, ..Usage::default() },
    }
}

#[test]
fn a_row_reads_back() {
    let view = view("why".into());
    let read = decode_row(view.id, &head(encode_row(&view))).unwrap();
    assert_eq!(format!("{read:?}"), format!("{view:?}"));
}

#[test]
fn a_row_stays_small_whatever_a_harness_says() {
    let mut view = view("ä".repeat(100_000));
    view.status.waiting = vec!["ä".repeat(100_000); 100];
    view.title = "ä".repeat(8_000);
    let data = encode_row(&view);
    assert!(data.len() < 8 * 1024, "{}", data.len());
    let read = decode_row(view.id, &head(data)).unwrap();
    assert!(read.status.reason.ends_with('…'));
}

#[test]
fn a_row_in_an_unknown_state_is_refused() {
    let mut head = head(encode_row(&view(String::new())));
    head.row.state = 0;
    assert_eq!(
        decode_row(SessionId(1), &head).unwrap_err().to_string(),
        "row.state has no value 0"
    );
}
