//! The files of a session: kept where they were, and there again where a branch begins.

use crate::support::{MANIFEST, Scripted, World, gone};
use ax_core::id::Seq;
use ax_core::session::{BlobRef, Caller, Frame, Kind};
use ax_engine::{AgentSource, BranchPlan, Code, Engine, SessionRef};
use ax_store::BlobId;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

fn dir(world: &World, session: &SessionRef) -> PathBuf {
    world.dir.path().join("workspaces/default").join(session.id.to_string())
}

/// Where the files are kept, by position.
async fn saved(world: &World, engine: &Engine, name: &str) -> Vec<(Seq, BlobRef)> {
    let kinds = world.kinds(engine, name).await;
    let kept = kinds.iter().zip(1..).filter_map(|(kind, seq)| match kind {
        Kind::WorkspaceSaved { saved, .. } => Some((Seq(seq), saved.snapshot)),
        _ => None,
    });
    kept.collect()
}

/// The text of a file in a snapshot.
async fn text(world: &World, snapshot: &BlobRef, path: &str) -> Option<String> {
    let id = BlobId(snapshot.hash);
    let (blobs, namespace) = (&world.blobs, &world.namespace);
    let mut file = ax_workspace::read(blobs, namespace, &id, path.as_bytes()).await.ok()?;
    let mut content = Vec::new();
    while let Some(piece) = file.next().await.unwrap() {
        content.extend_from_slice(&piece);
    }
    Some(String::from_utf8(content).unwrap())
}

async fn branch(world: &World, engine: &Engine, name: &str, at: Option<Seq>) -> SessionRef {
    let plan = BranchPlan { at, ..BranchPlan::default() };
    let (namespace, parent) = (&world.namespace, world.session(name));
    let made = engine.branch(Caller::default(), namespace, &parent, plan).await.unwrap();
    world.session(&made.sessions[0].to_string())
}

/// Each attempt counts in a file, and says so to whoever looks into the workspace.
fn counts() -> Scripted {
    Scripted::new(|launch, talk| async move {
        let path = launch.workspace.join("count");
        let before: u32 = fs::read_to_string(&path).map_or(0, |text| text.parse().unwrap());
        fs::write(&path, (before + 1).to_string()).unwrap();
        talk.end().await
    })
}

#[tokio::test]
async fn a_branch_has_the_files_of_its_position() {
    let world = World::new();
    let engine = world.open(counts()).await;
    for key in ["a", "b", "c"] {
        let input = world.submit(&engine, "s", key).await;
        let names = world.until(&engine, "s", input).await;
        let last: Vec<_> = names.iter().rev().take(2).rev().map(String::as_str).collect();
        assert_eq!(last, ["workspace.saved", "execution.completed"], "first kept, then said");
    }
    let kept = saved(&world, &engine, "s").await;
    assert_eq!(kept.len(), 3);
    for (at, (_, snapshot)) in kept.iter().enumerate() {
        assert_eq!(text(&world, snapshot, "count").await.unwrap(), (at + 1).to_string());
    }
    // At the end of the second execution, which stands right behind its files.
    let child = branch(&world, &engine, "s", Some(kept[1].0.next())).await;
    assert!(!dir(&world, &child).exists(), "nothing is copied before it is needed");
    let input = world.submit(&engine, &child.id.to_string(), "d").await;
    world.until_from(&engine, &child, input).await;
    assert_eq!(fs::read_to_string(dir(&world, &child).join("count")).unwrap(), "3");
    let parent = dir(&world, &world.session("s")).join("count");
    assert_eq!(fs::read_to_string(parent).unwrap(), "3", "its own third, not the branch's");
    // Before anything was kept there is nothing.
    let early = branch(&world, &engine, "s", Some(Seq(2))).await;
    let input = world.submit(&engine, &early.id.to_string(), "e").await;
    world.until_from(&engine, &early, input).await;
    assert_eq!(fs::read_to_string(dir(&world, &early).join("count")).unwrap(), "1");
    engine.shutdown().await;
}

#[tokio::test]
async fn files_that_are_gone_are_made_again_and_half_a_restore_is_not_used() {
    let world = World::new();
    let engine = world.open(counts()).await;
    let input = world.submit(&engine, "s", "a").await;
    world.until(&engine, "s", input).await;
    let session = world.session("s");
    fs::remove_dir_all(dir(&world, &session)).unwrap();
    let input = world.submit(&engine, "s", "b").await;
    world.until(&engine, "s", input).await;
    assert_eq!(fs::read_to_string(dir(&world, &session).join("count")).unwrap(), "2");
    // What a crash in the middle of a restore leaves.
    let first = saved(&world, &engine, "s").await[0].1;
    let beside = world.dir.path().join("snapshots/default").join(session.id.to_string());
    fs::write(beside.join("restoring"), BlobId(first.hash).to_string()).unwrap();
    fs::write(dir(&world, &session).join("count"), "77").unwrap();
    let input = world.submit(&engine, "s", "c").await;
    world.until(&engine, "s", input).await;
    assert_eq!(fs::read_to_string(dir(&world, &session).join("count")).unwrap(), "2");
    engine.shutdown().await;
}

#[tokio::test]
async fn an_attempt_that_dies_leaves_its_files_in_the_log() {
    let world = World::new();
    let tries = Arc::new(AtomicU32::new(0));
    let engine = world
        .open(Scripted::new(move |launch, talk| {
            let tries = Arc::clone(&tries);
            async move {
                let count = tries.fetch_add(1, Ordering::SeqCst);
                fs::write(launch.workspace.join("f"), format!("attempt {count}")).unwrap();
                if count == 0 { gone("killed by itself") } else { talk.end().await }
            }
        }))
        .await;
    let input = world.submit(&engine, "s", "a").await;
    let names = world.until(&engine, "s", input).await;
    let lost = names.iter().position(|name| name == "attempt.lost").unwrap();
    assert_eq!(names[lost - 1], "workspace.saved");
    let kept = saved(&world, &engine, "s").await;
    assert_eq!(text(&world, &kept[0].1, "f").await.unwrap(), "attempt 0");
    assert_eq!(text(&world, &kept[1].1, "f").await.unwrap(), "attempt 1");
    engine.shutdown().await;
}

/// Writes a file, does a step, and waits to be told so; twice.
fn steps() -> Scripted {
    Scripted::new(|launch, mut talk| async move {
        for step in ["one", "two"] {
            let path = launch.workspace.join("step");
            let work = async { fs::write(path, step).unwrap() };
            talk.once(&launch, step, work).await;
        }
        talk.say(Frame::Checkpoint { key: "mark".into(), name: "done".into() }).await;
        talk.told().await;
        talk.end().await
    })
}

#[tokio::test]
async fn files_are_kept_with_each_step_if_the_manifest_says_so() {
    for (policy, expected) in [("step", 2), ("checkpoint", 1), ("never", 0)] {
        let world = World::new();
        let engine = world.open_bare(steps()).await;
        let manifest = format!("{MANIFEST}  workspace: {{snapshots: {policy}}}\n");
        let source = AgentSource { manifest, dir: None };
        engine.apply_agent(&world.namespace, source).await.unwrap();
        let input = world.submit(&engine, "s", "a").await;
        let names = world.until(&engine, "s", input).await;
        let kept = saved(&world, &engine, "s").await;
        assert_eq!(kept.len(), expected, "{policy}: {names:?}");
        if policy == "step" {
            for ((at, snapshot), step) in kept.iter().zip(["one", "two"]) {
                assert_eq!(text(&world, snapshot, "step").await.unwrap(), step);
                let at = usize::try_from(at.0).unwrap();
                assert_eq!(names[at], "step.completed", "right behind its files");
            }
        }
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn a_checkpoint_of_a_client_keeps_the_files_while_the_harness_works() {
    let world = World::new();
    let (wrote, go_on) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let flags = (Arc::clone(&wrote), Arc::clone(&go_on));
    let engine = world
        .open(Scripted::new(move |launch, talk| {
            let (wrote, go_on) = (Arc::clone(&flags.0), Arc::clone(&flags.1));
            async move {
                fs::write(launch.workspace.join("f"), "half").unwrap();
                wrote.store(true, Ordering::SeqCst);
                while !go_on.load(Ordering::SeqCst) {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                fs::write(launch.workspace.join("f"), "whole").unwrap();
                talk.end().await
            }
        }))
        .await;
    let input = world.submit(&engine, "s", "a").await;
    while !wrote.load(Ordering::SeqCst) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let (namespace, session) = (&world.namespace, world.session("s"));
    let at = engine.checkpoint(Caller::default(), namespace, &session, "half".into()).await;
    let kept = saved(&world, &engine, "s").await;
    assert_eq!(at.unwrap().seq, kept[0].0.next(), "right behind its files");
    go_on.store(true, Ordering::SeqCst);
    world.until(&engine, "s", input).await;
    assert_eq!(text(&world, &kept[0].1, "f").await.unwrap(), "half");
    let last = saved(&world, &engine, "s").await[1].1;
    assert_eq!(text(&world, &last, "f").await.unwrap(), "whole");
    engine.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_kept_is_named_and_stops_nobody() {
    let world = World::new();
    // Where the runtime keeps what belongs to it there is a file.
    let snapshots = world.dir.path().join("snapshots");
    let engine = world
        .open(Scripted::new(move |launch, talk| {
            fs::create_dir_all(&snapshots).unwrap();
            fs::write(snapshots.join("default"), "in the way").unwrap();
            fs::write(launch.workspace.join("f"), "not kept").unwrap();
            async move { talk.end().await }
        }))
        .await;
    let session = world.session("s");
    let input = world.submit(&engine, "s", "a").await;
    let names = world.until(&engine, "s", input).await;
    let last: Vec<_> = names.iter().rev().take(2).rev().map(String::as_str).collect();
    assert_eq!(last, ["workspace.unsaved", "execution.completed"]);
    let namespace = &world.namespace;
    let asked = engine.checkpoint(Caller::default(), namespace, &session, "c".into()).await;
    assert_eq!(asked.unwrap_err().code, Code::Workspace);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_session_without_files_says_nothing_of_them() {
    let world = World::new();
    let engine = world.open(Scripted::new(|_, talk| async move { talk.end().await })).await;
    let input = world.submit(&engine, "s", "a").await;
    let names = world.until(&engine, "s", input).await;
    assert!(!names.iter().any(|name| name.starts_with("workspace")), "{names:?}");
    assert!(!world.dir.path().join("snapshots").exists());
    engine.shutdown().await;
}

#[tokio::test]
async fn a_deleted_session_leaves_nothing_beside_its_files() {
    let world = World::new();
    let engine = world.open(counts()).await;
    let input = world.submit(&engine, "s", "a").await;
    world.until(&engine, "s", input).await;
    let session = world.session("s");
    let beside = world.dir.path().join("snapshots/default").join(session.id.to_string());
    assert!(beside.exists() && dir(&world, &session).exists());
    engine.delete(Caller::default(), &world.namespace, &session).await.unwrap();
    assert!(!beside.exists() && !dir(&world, &session).exists());
    engine.shutdown().await;
}

#[tokio::test]
async fn a_collection_spares_what_snapshots_need() {
    let world = World::new();
    let engine = world.open(counts()).await;
    for key in ["a", "b"] {
        let input = world.submit(&engine, "s", key).await;
        world.until(&engine, "s", input).await;
    }
    engine.collect_blobs(&world.namespace, 0).await.unwrap();
    let child = branch(&world, &engine, "s", None).await;
    let input = world.submit(&engine, &child.id.to_string(), "c").await;
    world.until_from(&engine, &child, input).await;
    assert_eq!(fs::read_to_string(dir(&world, &child).join("count")).unwrap(), "3");
    engine.shutdown().await;
}
