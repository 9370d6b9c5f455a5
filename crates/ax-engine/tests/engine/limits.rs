//! What holds whatever a harness or a client does.

use crate::support::{MANIFEST, Scripted, World};
use ax_core::session::{Caller, Frame, Part};
use ax_engine::{AgentSource, Code, Submission};
use std::time::{Duration, Instant};

/// How long a harness chats that nobody stops.
const CHAT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_harness_that_never_stops_talking_runs_out_of_time() {
    let world = World::new();
    let program = Scripted::new(|_, talk| async move {
        let began = Instant::now();
        while began.elapsed() < CHAT {
            let parts = vec![Part::text("y")];
            talk.say(Frame::Output { block: None, key: None, parts }).await;
        }
        talk.end().await
    });
    let engine = world.open(program).await;
    let manifest = MANIFEST.replace("parkAfter: 50ms", "executionTimeout: 100ms");
    let source = AgentSource { manifest, dir: None };
    engine.apply_agent(&world.namespace, source).await.unwrap();
    let input = world.submit(&engine, "chat", "k").await;
    let names = world.until(&engine, "chat", input).await;
    assert_eq!(names.last().unwrap(), "execution.timed_out");
    engine.shutdown().await;
}

#[tokio::test]
async fn an_input_that_is_refused_leaves_no_session_behind() {
    let world = World::new();
    let engine = world.open(Scripted::new(|_, talk| async move { talk.end().await })).await;
    let submission = |title: &str, parts: usize| Submission {
        session: Some(world.session("s")),
        agent: Some("test".into()),
        title: Some(title.into()),
        parts: vec![Part::text("x"); parts],
        ..Submission::default()
    };
    for bad in [submission(&"t".repeat(17 * 1024), 1), submission("fine", 257)] {
        let refused = engine.submit(Caller::default(), &world.namespace, bad).await;
        refused.unwrap_err();
        let known = engine.session(&world.namespace, &world.session("s")).await;
        assert_eq!(known.unwrap_err().code, Code::NoSession);
    }
    let good = submission("fine", 1);
    let submitted = engine.submit(Caller::default(), &world.namespace, good).await.unwrap();
    assert!(submitted.created);
    engine.shutdown().await;
}
