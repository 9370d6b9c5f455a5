//! Harnesses in a sandbox with defaults.
#![allow(dead_code, unreachable_pub, reason = "each test file uses some of it")]

use super::{Rig, Running};
use ax_core::session::{Body, Frame};
use ax_harness::supervise::Options;
use ax_harness::{Adapters, Exit, Launch, Launcher};
use serde_json::{Value, json};
use std::fs;
use std::sync::Arc;

/// A harness that is a shell script, in a sandbox with defaults.
pub fn sh(rig: &Rig, script: &str) -> Launch {
    let mut launch = rig.launch(json!({
        "type": "process", "protocol": "text", "command": ["sh", "-c", script],
    }));
    launch.agent.sandbox = Value::Null;
    launch
}

/// How a server that runs nothing without a sandbox starts programs.
pub fn options(rig: &Rig) -> Options {
    Options { unsandboxed: false, private: vec![rig.path().join("private")], ..rig.options() }
}

pub fn launcher(rig: &Rig) -> Arc<dyn Launcher> {
    Arc::new(Adapters::new(options(rig)))
}

/// Runs an attempt; returns what it said and how it ended.
pub async fn run(rig: &Rig, launch: Launch) -> (String, Exit) {
    let (frames, exit) = Running::start(&launcher(rig), launch).rest().await;
    rig.assert_nothing_runs();
    let left = fs::read_dir(rig.path().join("sandboxes")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "sandboxes are still registered");
    (said(&frames), exit)
}

pub fn said(frames: &[Frame]) -> String {
    let text = |frame: &Frame| match frame {
        Frame::Delta { text, .. } => Some(text.clone()),
        Frame::Output { parts, .. } => Some(
            parts
                .iter()
                .filter_map(|part| match &part.body {
                    Body::Text(text) => Some(text.as_str()),
                    _ => None,
                })
                .collect(),
        ),
        _ => None,
    };
    frames.iter().filter_map(text).collect()
}
