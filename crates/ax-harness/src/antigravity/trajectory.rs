//! A conversation as the trajectory that a new session of the program begins with.
//!
//! The program takes a protocol buffer of its own, compressed by Zstandard; the messages here are
//! the part of its schema that says who said what. They are what version 0.1.22 reads and writes,
//! and are documented nowhere.

use crate::launch::{Role, Turn};
use crate::turn::said::said;
use ax_core::session::Failure;
use prost::Message;

/// The greatest conversation that is told, in bytes of its texts; the newest of it.
const HISTORY_BYTES_MAX: usize = 1024 * 1024;
/// The kinds of steps: what a user says, and what the model does.
const USER_INPUT: i32 = 14;
const PLANNER_RESPONSE: i32 = 15;
/// The state of a step that is over.
const DONE: i32 = 3;
/// The kind of a trajectory that the program itself makes.
const OF_A_CASCADE: i32 = 4;

/// The magic number of a frame, and a descriptor that says: one segment, its size in four bytes.
const ZSTD_HEAD: [u8; 5] = [0x28, 0xb5, 0x2f, 0xfd, 0xa0];
/// The largest block of a frame, in bytes.
const ZSTD_BLOCK_BYTES: usize = 128 * 1024;

#[derive(Clone, PartialEq, Message)]
struct Trajectory {
    #[prost(string, tag = "1")]
    trajectory_id: String,
    #[prost(message, repeated, tag = "2")]
    steps: Vec<Step>,
    #[prost(int32, tag = "4")]
    kind: i32,
    #[prost(string, tag = "6")]
    cascade_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct Step {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(int32, tag = "4")]
    status: i32,
    #[prost(message, optional, tag = "19")]
    user_input: Option<UserInput>,
    #[prost(message, optional, tag = "20")]
    planner_response: Option<PlannerResponse>,
}

#[derive(Clone, PartialEq, Message)]
struct UserInput {
    #[prost(string, tag = "2")]
    text: String,
    #[prost(message, repeated, tag = "3")]
    parts: Vec<TextPart>,
}

#[derive(Clone, PartialEq, Message)]
struct TextPart {
    #[prost(string, tag = "1")]
    text: String,
}

#[derive(Clone, PartialEq, Message)]
struct PlannerResponse {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(string, tag = "8")]
    shown: String,
}

/// Makes a trajectory of a conversation; none if nothing was said.
pub(super) fn of(history: &[Turn], id: &str) -> Result<Option<Vec<u8>>, Failure> {
    let mut steps = Vec::new();
    let mut room = HISTORY_BYTES_MAX;
    for turn in history.iter().rev() {
        let text = said(turn)?;
        if text.is_empty() {
            continue;
        }
        let Some(left) = room.checked_sub(text.len()) else { break };
        room = left;
        steps.push(step(turn.role, text));
    }
    if steps.is_empty() {
        return Ok(None);
    }
    steps.reverse();
    let (trajectory_id, cascade_id) = (id.to_owned(), id.to_owned());
    let whole = Trajectory { trajectory_id, steps, kind: OF_A_CASCADE, cascade_id };
    Ok(Some(stored(&whole.encode_to_vec())))
}

fn step(role: Role, text: String) -> Step {
    let mut step = Step { kind: 0, status: DONE, user_input: None, planner_response: None };
    match role {
        Role::User => {
            step.kind = USER_INPUT;
            let parts = vec![TextPart { text: text.clone() }];
            step.user_input = Some(UserInput { text, parts });
        }
        Role::Agent => {
            step.kind = PLANNER_RESPONSE;
            step.planner_response = Some(PlannerResponse { shown: text.clone(), text });
        }
    }
    step
}

/// Returns a frame of Zstandard (RFC 8878) that has the bytes as they are.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let size = u32::try_from(bytes.len()).expect("a conversation is cut before it is that long");
    let mut frame = ZSTD_HEAD.to_vec();
    frame.extend_from_slice(&size.to_le_bytes());
    let blocks = bytes.chunks(ZSTD_BLOCK_BYTES);
    let last = blocks.len().saturating_sub(1);
    for (at, block) in blocks.enumerate() {
        let length = u32::try_from(block.len()).expect("a block is short");
        let head = ((length << 3) | u32::from(at == last)).to_le_bytes();
        frame.extend_from_slice(&head[..3]);
        frame.extend_from_slice(block);
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::Content;
    use ax_core::session::PartKind;

    fn turn(role: Role, text: &str) -> Turn {
        let part = Content {
            kind: PartKind::Text,
            media_type: "text/plain".into(),
            name: String::new(),
            text: text.into(),
            file: None,
        };
        Turn { role, parts: vec![part] }
    }

    /// Reads a frame whose blocks are all raw.
    fn unstored(frame: &[u8]) -> Vec<u8> {
        let (head, mut rest) = frame.split_at(9);
        let mut bytes = Vec::new();
        loop {
            let word = u32::from_le_bytes([rest[0], rest[1], rest[2], 0]);
            assert_eq!((word >> 1) & 3, 0, "a raw block");
            let (block, after) = rest[3..].split_at((word >> 3) as usize);
            bytes.extend_from_slice(block);
            rest = after;
            if word & 1 == 1 {
                break;
            }
        }
        assert!(rest.is_empty());
        assert_eq!(head[5..], u32::try_from(bytes.len()).unwrap().to_le_bytes());
        bytes
    }

    #[test]
    fn who_said_what_is_a_step() {
        let told = of(&[turn(Role::User, "one"), turn(Role::Agent, "two")], "id").unwrap().unwrap();
        let read = Trajectory::decode(unstored(&told).as_slice()).unwrap();
        assert_eq!((read.trajectory_id.as_str(), read.cascade_id.as_str()), ("id", "id"));
        let kinds: Vec<i32> = read.steps.iter().map(|step| step.kind).collect();
        assert_eq!(kinds, [USER_INPUT, PLANNER_RESPONSE]);
        assert_eq!(read.steps[0].user_input.as_ref().unwrap().text, "one");
        assert_eq!(read.steps[1].planner_response.as_ref().unwrap().text, "two");
    }

    #[test]
    fn the_newest_is_told_and_a_long_one_has_several_blocks() {
        assert_eq!(of(&[], "id").unwrap(), None);
        let long = "x".repeat(HISTORY_BYTES_MAX - 10);
        let turns = [turn(Role::User, "too old to be told"), turn(Role::Agent, &long)];
        let told = of(&turns, "id").unwrap().unwrap();
        let read = Trajectory::decode(unstored(&told).as_slice()).unwrap();
        assert_eq!(read.steps.len(), 1);
    }
}
