//! The memory of sessions that sleep.

use crate::harness::Functions;
use crate::resume::submit_all;
use crate::world::World;
use crate::{Arguments, round1, say};
use serde_json::json;
use std::sync::Arc;

const SESSIONS_DEFAULT: usize = 50_000;

/// Compares the memory of a fresh process that has opened a store with few sleeping sessions with
/// one that has opened a store with many; and what is left in the process that made them.
pub(crate) async fn idle(arguments: &Arguments) {
    let count = arguments.sessions.unwrap_or(SESSIONS_DEFAULT);
    let dir = tempfile::tempdir_in(&arguments.dir).unwrap();
    let harness = Functions::new(|_, talk| async move { talk.end().await });
    let world = Arc::new(World::open(dir.path(), 64, harness.clone()).await);
    world.apply_agent().await;
    let few = count / 10;
    submit_all(&world, 0..few, true).await;
    world.asleep().await;
    let before = anonymous_bytes();
    submit_all(&world, few..count, true).await;
    world.asleep().await;
    let after = anonymous_bytes();
    let grown = after.saturating_sub(before) as f64 / (count - few) as f64;
    world.engine.shutdown().await;
    drop(world);
    let closed = anonymous_bytes();
    let world = World::open(dir.path(), 64, harness).await;
    world.asleep().await;
    let opened = anonymous_bytes();
    let page = world.engine.sessions(&world.namespace, ax_engine::ListSessions::default());
    assert_eq!(page.await.unwrap().sessions.len(), 100, "they are there");
    say(&json!({
        "name": "idle", "sessions": count,
        "bytes_each_after_use": round1(grown),
        "process_bytes_before": before, "process_bytes_after": after,
        "bytes_each_after_reopening":
            round1(opened.saturating_sub(closed) as f64 / count as f64),
        "awake": world.engine.info().awake_sessions,
    }));
    world.engine.shutdown().await;
}

/// Returns the anonymous memory of this process, in bytes.
fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}
