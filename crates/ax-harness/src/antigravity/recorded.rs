//! What the real program said in whole turns, and what becomes of it.

use super::calls::Calls;
use super::questions::Form;
use super::steps::{Steps, note};
use super::wire::{Heard, heard};
use ax_core::session::{Body, Frame};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

const SESSION: &str = "ax-0123456789abcdef0123456789abcdef";

fn shown(frame: &Frame) -> String {
    match frame {
        Frame::Delta { block, part, text } => format!("delta {block} {part:?} {text}"),
        Frame::Output { block: Some(block), .. } => format!("end of {block}"),
        Frame::Output { key: Some(key), parts, .. } => {
            let Body::Text(text) = &parts[0].body else { panic!("a text") };
            format!("output {key} {:?} {text}", parts[0].kind)
        }
        Frame::Note { name, data: Body::Text(data), .. } => format!("note {name} {data}"),
        Frame::Ask { key, kind, prompt, choices, .. } => {
            format!("ask {key} {kind:?} {prompt} {choices:?}")
        }
        other => panic!("{other:?}"),
    }
}

fn check(name: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/antigravity");
    let said = std::fs::read_to_string(dir.join(format!("{name}.jsonl"))).unwrap();
    let (mut steps, mut calls) = (Steps::new(SESSION), Calls::default());
    let mut told = String::new();
    for line in said.lines() {
        let frames: Vec<Frame> = match heard(line.as_bytes()).unwrap() {
            Heard::Step(step) => {
                let asked = Form::of(&step).and_then(|form| form.next(&mut BTreeMap::new()));
                let asked = asked.map(|(_, frame)| frame);
                if step.state == "STATE_ERROR" {
                    calls.lose();
                }
                steps.hear(&step).into_iter().chain(asked).collect()
            }
            Heard::Hook(hook) => match (&hook.pre_tool_args, &hook.post_tool_args) {
                (Some(args), _) => {
                    let (call, _, frame) = calls.made(args);
                    vec![frame, call.question()]
                }
                (None, Some(args)) => vec![calls.came_of(args)],
                (None, None) => vec![calls.came_of(hook.on_tool_error_args.as_ref().unwrap())],
            },
            Heard::Opened => {
                told.push_str("opened\n");
                continue;
            }
            Heard::State(state) => {
                writeln!(told, "{} {:?}", state.state, state.error).unwrap();
                continue;
            }
            Heard::Usage(usage) => vec![note("usage", &usage)],
            other => panic!("{other:?}"),
        };
        for frame in frames {
            writeln!(told, "{}", shown(&frame)).unwrap();
        }
    }
    expect_test::expect_file![dir.join(format!("{name}.txt"))].assert_eq(&told);
    assert!(!calls.is_working());
}

#[test]
fn a_turn_with_tools_is_understood() {
    check("tools");
}

#[test]
fn a_turn_with_a_question_is_understood() {
    check("question");
}

#[test]
fn a_turn_in_which_a_tool_is_denied_is_understood() {
    check("denied");
}

#[test]
fn a_turn_that_the_model_breaks_is_understood() {
    check("model-error");
}
