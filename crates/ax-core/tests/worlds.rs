//! Walks every small world: from a few beginnings, every sequence of a few inputs up to a depth.
//!
//! Two sequences that lead to the same state are walked on from once. On every transition and in
//! every state these invariants hold; `docs/invariants.md` counts on their numbers.
//!
//! | id  | name                | what holds                                                       |
//! |-----|---------------------|------------------------------------------------------------------|
//! | I1  | refusal-is-nothing  | a refused input changes no state and asks for nothing            |
//! | I2  | events-apply        | every event that is decided can be applied, and gives the state  |
//! | I3 | replay | replaying the log gives the state, from the start or any snapshot |
//! | I4  | one-attempt         | an attempt is started only after the one before is over          |
//! | I5  | durable-first       | an effect is released only when the event it rests on is durable |
//! | I6 | once | a `once` step is granted at most once an attempt, and never after |
//! | | | an attempt that had it under way was lost, unless a person says so |
//! | | | or it was begun as one whose outcome can be found out |
//! | I7  | done-is-done        | a step that was carried out is never begun again                 |
//! | I8 | named-wait | a session that has not ended runs, has a deadline, or waits for an |
//! |     |                     | answer or a signal                                               |
//! | I9  | nothing-dangles     | no question, sleep or wait outlives its execution                |
//! | I10 | deleted-is-final    | a deleted session takes nothing, and nothing is due in it        |
//! | I11 | counted | executions, attempts and questions are counted from 1 without gaps |
//! | I12 | late-is-refused     | whoever is not the running attempt is refused                    |
//! | I13 | deadline-acts       | a tick at the deadline does something                            |
//! | I14 | branch-is-free | a branch from any position inherits no question, sleep or wait, and |
//! |     |                     | asks about each `once` step that was under way before it goes on |
//! | I15 | idempotent          | an input with a known key does nothing more                      |
//! | I16 | silence-after-end   | nothing is told to an attempt that is over                       |
#![expect(clippy::unwrap_used, reason = "a test")]

mod common;
mod world;

use world::Walk;

/// What clients do, around one attempt.
const CLIENTS: &[&str] = &[
    "create queue=1 attempts=2 restarts=2 backoff=100..100 execution=9000 idle=700 park=300",
    "create agent=other",
    "submit a key=a",
    "submit b key=a",
    "submit b",
    "submit c policy=reject",
    "submit d policy=interrupt key=d",
    "submit e policy=branch",
    "submit f key=",
    "answer approve",
    "answer ask_1 deny:no",
    "answer ask_2 text:x",
    "signal s key=g",
    "signal s key=a",
    "signal ''",
    "cancel",
    "cancel exec_1 queued",
    "rename t",
    "rename",
    "checkpoint c",
    "saved w",
    "unsaved",
    "save w at=2",
    "delete",
    "> end",
    "> fail f",
    "> fail f final",
    "> ask q approval",
    "> ask r text expires=200",
    "exec_1/attempt_1 > end",
    "exec_1/attempt_1 gone",
    "exec_1/attempt_2 > heartbeat",
    "gone",
    "crash",
    "tick",
    "wait 300",
    "wait 2000",
    "persisted",
];

/// What a harness does with steps.
const STEPS: &[&str] = &[
    "> begin o once",
    "> begin o once digest=2",
    "> begin p once limit=400",
    "> begin r read",
    "> begin o probed",
    "> begin d probed",
    "> done d",
    "> begin i idempotent model",
    "> begin '' once",
    "> done o 1",
    "> done p",
    "> failed o",
    "> done r tokens=6",
    "> failed i",
    "> output x",
    "> output x key=r",
    "> output x key=k",
    "> delta b x",
    "> output block=b key=k",
    "> mark m",
    "> note n key=m",
    "> diverged o",
    "> end",
    "> fail f",
    "> fail f final",
    "> heartbeat",
    "exec_1/attempt_1 > done o",
    "exec_1/attempt_1 > begin o once",
    "gone",
    "recover",
    "suspend",
    "crash",
    "tick",
    "wait 100",
    "wait 1000",
    "persisted",
    "answer choice:retry",
    "answer ask_1 choice:completed:1",
    "answer ask_2 choice:failed",
    "answer approve",
    "cancel",
    "submit again",
    "delete",
];

/// What a harness waits for.
const WAITS: &[&str] = &[
    "> ask q approval",
    "> ask q text",
    "> ask c choice of=a,b expires=500",
    "> ask n choice",
    "> sleep z 0",
    "> sleep z 1000",
    "> sleep y 200",
    "> sleep q 5",
    "> await w s",
    "> await w t",
    "> await v s",
    "> begin o once",
    "> done o",
    "> heartbeat",
    "> end",
    "> fail f",
    "answer approve",
    "answer deny:no",
    "answer ask_1 choice:a",
    "answer ask_2 choice:b",
    "answer choice:retry",
    "signal s",
    "signal s key=1",
    "signal t json={}",
    "cancel",
    "submit more",
    "gone",
    "crash",
    "tick",
    "wait 50",
    "wait 300",
    "wait 3000",
    "back 100",
    "persisted",
    "branch carry",
    "branch drop",
    "delete",
];

const BEGUN: &str =
    "create queue=2 attempts=3 restarts=3 backoff=100..100 idle=700 park=300 tokens=10";

#[test]
fn every_small_world_of_clients_keeps_the_invariants() {
    Walk::from(&[], CLIENTS, 5).check(20_000);
}

#[test]
fn every_small_world_of_clients_whose_log_lags_keeps_the_invariants() {
    Walk::from(&["manual"], CLIENTS, 5).check(20_000);
}

#[test]
fn every_small_world_of_steps_keeps_the_invariants() {
    Walk::from(&[BEGUN, "submit a"], STEPS, 4).check(5_000);
}

#[test]
fn every_small_world_of_steps_whose_log_lags_keeps_the_invariants() {
    Walk::from(&["manual", BEGUN, "submit a", "persisted"], STEPS, 4).check(5_000);
}

#[test]
fn every_small_world_of_waits_keeps_the_invariants() {
    Walk::from(&[BEGUN, "submit a"], WAITS, 4).check(5_000);
}

#[test]
fn every_small_world_of_waits_whose_log_lags_keeps_the_invariants() {
    Walk::from(&["manual", BEGUN, "submit a", "persisted"], WAITS, 4).check(5_000);
}

#[test]
fn every_small_world_after_unknown_steps_keeps_the_invariants() {
    let unknown = [BEGUN, "submit a", "> begin o once", "> begin p once", "crash"];
    Walk::from(&unknown, STEPS, 5).check(5_000);
}

#[test]
fn every_small_world_after_steps_in_doubt_keeps_the_invariants() {
    let doubt = [BEGUN, "submit a", "> begin d probed", "> begin o once", "crash"];
    Walk::from(&doubt, STEPS, 4).check(5_000);
    let doubt = [BEGUN, "submit a", "> begin d probed", "crash"];
    Walk::from(&doubt, WAITS, 4).check(5_000);
}
