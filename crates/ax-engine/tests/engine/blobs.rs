//! What an event names is there, whatever is collected meanwhile.

use crate::gate::{Gate, GatedLog};
use crate::support::{Scripted, World};
use ax_core::id::{Seq, SessionId};
use ax_core::session::{BlobRef, Body, Caller, Kind, Part, PartKind};
use ax_engine::{BranchPlan, Code, Engine, Error, SessionRef, Submission, Submitted};
use ax_store::Blob;
use std::sync::Arc;

/// A world whose log has a gate.
fn gated() -> (World, Gate) {
    let log = GatedLog::default();
    let gate = log.gate.clone();
    (World::over(Arc::new(log)), gate)
}

fn quiet() -> Scripted {
    Scripted::new(|_, talk| async move { talk.end().await })
}

/// A session by its id: collections read the smallest first.
fn numbered(id: u128) -> SessionRef {
    SessionRef { id: SessionId(id), name: String::new() }
}

async fn put(world: &World, content: &'static str) -> Blob {
    world.blobs.put_bytes(&world.namespace, content.into()).await.unwrap()
}

async fn submit(
    world: &World,
    engine: &Engine,
    session: SessionRef,
    body: Body,
) -> Result<Submitted, Error> {
    let (media_type, name) = ("text/plain".into(), String::new());
    let submission = Submission {
        session: Some(session),
        agent: Some("test".into()),
        parts: vec![Part { kind: PartKind::Document, media_type, name, body }],
        ..Submission::default()
    };
    engine.submit(Caller::default(), &world.namespace, submission).await
}

fn body(blob: &Blob) -> Body {
    Body::Blob(BlobRef { hash: blob.id.0, bytes: blob.bytes })
}

#[tokio::test]
async fn an_input_names_only_what_is_there_with_its_real_length() {
    let world = World::new();
    let engine = world.open(quiet()).await;
    let nowhere = Body::Blob(BlobRef { hash: [7; 32], bytes: 7 });
    let refused = submit(&world, &engine, world.session("s"), nowhere).await.unwrap_err();
    assert_eq!(refused.code, Code::NoBlob);
    let known = engine.session(&world.namespace, &world.session("s")).await;
    assert_eq!(known.unwrap_err().code, Code::NoSession, "nothing has happened");
    let blob = put(&world, "content").await;
    let claimed = Body::Blob(BlobRef { hash: blob.id.0, bytes: 1 << 40 });
    submit(&world, &engine, world.session("s"), claimed).await.unwrap();
    let kinds = world.kinds(&engine, "s").await;
    let recorded = kinds.iter().find_map(|kind| match kind {
        Kind::InputReceived { parts, .. } => parts[0].body.blob(),
        _ => None,
    });
    assert_eq!(recorded.unwrap().bytes, 7);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_blob_that_is_named_during_a_collection_stays() {
    let (world, gate) = gated();
    let engine = world.open(quiet()).await;
    submit(&world, &engine, numbered(5), "hello".into()).await.unwrap();
    let (named, other) = (put(&world, "named").await, put(&world, "other").await);
    gate.shut(SessionId(5));
    let collect = engine.collect_blobs(&world.namespace, 0);
    let meanwhile = async {
        gate.arrived().await;
        // Behind where the collection reads: it does not see the event.
        let submitted = submit(&world, &engine, numbered(3), body(&named)).await;
        gate.open();
        submitted.unwrap();
    };
    let (collected, ()) = tokio::join!(collect, meanwhile);
    assert_eq!(collected.unwrap().removed_count, 1);
    let stat = async |blob: &Blob| world.blobs.stat(&world.namespace, &blob.id).await.unwrap();
    assert!(stat(&named).await.is_some());
    assert!(stat(&other).await.is_none());
    engine.shutdown().await;
}

#[tokio::test]
async fn sessions_branch_and_are_deleted_while_a_collection_reads() {
    let (world, gate) = gated();
    let engine = world.open(quiet()).await;
    let blob = put(&world, "inherited").await;
    submit(&world, &engine, numbered(5), "hello".into()).await.unwrap();
    submit(&world, &engine, numbered(9), body(&blob)).await.unwrap();
    gate.shut(SessionId(5));
    let collect = engine.collect_blobs(&world.namespace, 0);
    let meanwhile = async {
        gate.arrived().await;
        let (caller, parent) = (Caller::default(), numbered(9));
        let plan = BranchPlan::default();
        let made = engine.branch(caller, &world.namespace, &parent, plan).await.unwrap();
        // The collection has not come to the parent, and never will.
        engine.delete(Caller::default(), &world.namespace, &parent).await.unwrap();
        gate.open();
        made.sessions[0]
    };
    let (collected, child) = tokio::join!(collect, meanwhile);
    assert_eq!(collected.unwrap().removed_count, 0);
    let child = numbered(child.0);
    let events = engine.events(&world.namespace, &child, Seq::ZERO, 0).await.unwrap().events;
    assert!(!events.is_empty());
    assert!(world.blobs.stat(&world.namespace, &blob.id).await.unwrap().is_some());
    engine.delete(Caller::default(), &world.namespace, &child).await.unwrap();
    let collected = engine.collect_blobs(&world.namespace, 0).await.unwrap();
    assert_eq!(collected.removed_count, 1, "what nothing refers to any more is removed");
    engine.shutdown().await;
}
