//! Records: what frameworks that run elsewhere keep, and how they are fenced.

use crate::support::{Scripted, World};
use ax_core::id::{Seq, SessionId};
use ax_core::session::{BlobRef, Body, Caller, Part};
use ax_engine::{BranchPlan, Code, Engine, Error, NewRecord, Submitted};

fn quiet() -> Scripted {
    Scripted::new(|_, talk| async move { talk.end().await })
}

fn record(text: &str) -> NewRecord {
    NewRecord {
        agent: Some("test".into()),
        collection: "steps".into(),
        key: None,
        parts: vec![Part::text(text)],
        replaces: false,
        after: None,
    }
}

async fn write(world: &World, engine: &Engine, record: NewRecord) -> Result<Submitted, Error> {
    engine.record(Caller::default(), &world.namespace, &world.session("s"), record).await
}

/// The positions of what a page has, and of the newest record and the one that stands for all.
async fn read(
    world: &World,
    engine: &Engine,
    name: &str,
    after: u64,
    limit: usize,
) -> (Vec<u64>, u64, u64) {
    let session = world.session(name);
    let page = engine.records(&world.namespace, &session, "steps", Seq(after), limit).await;
    let page = page.unwrap();
    let events = page.events.iter().map(|(seq, _)| seq.0).collect();
    (events, page.collection.last.0, page.collection.base.0)
}

#[tokio::test]
async fn records_are_read_from_the_one_that_stands_for_all() {
    let world = World::new();
    let engine = world.open(quiet()).await;
    let first = write(&world, &engine, record("one")).await.unwrap();
    assert!(first.created && first.seq == Seq(2));
    for text in ["two", "three", "four"] {
        write(&world, &engine, record(text)).await.unwrap();
    }
    write(&world, &engine, NewRecord { collection: "other".into(), ..record("x") }).await.unwrap();
    assert_eq!(read(&world, &engine, "s", 0, 0).await, (vec![2, 3, 4, 5], 5, 0));
    assert_eq!(read(&world, &engine, "s", 3, 1).await, (vec![4], 5, 0));
    write(&world, &engine, NewRecord { replaces: true, ..record("all") }).await.unwrap();
    write(&world, &engine, record("five")).await.unwrap();
    // What is asked of a session that sleeps is read from the log.
    while engine.info().awake_sessions > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(read(&world, &engine, "s", 0, 0).await, (vec![7, 8], 8, 7));
    assert_eq!(read(&world, &engine, "s", 7, 0).await, (vec![8], 8, 7));
    assert_eq!(read(&world, &engine, "s", 8, 0).await, (vec![], 8, 7));
}

#[tokio::test]
async fn of_two_writers_who_read_the_same_one_is_refused() {
    let world = World::new();
    let engine = world.open(quiet()).await;
    let after = |after, text| NewRecord { after: Some(Seq(after)), ..record(text) };
    write(&world, &engine, after(0, "one")).await.unwrap();
    let (one, other) = tokio::join!(
        write(&world, &engine, after(2, "mine")),
        write(&world, &engine, after(2, "yours")),
    );
    let refused = [&one, &other].into_iter().filter_map(|done| done.as_ref().err());
    let codes: Vec<_> = refused.map(|error| error.code).collect();
    assert_eq!(codes, [Code::Stale]);
    assert_eq!(read(&world, &engine, "s", 0, 0).await, (vec![2, 3], 3, 0));
    // Sent again because its answer was lost, it is known again, though it is stale by now.
    let keyed = || NewRecord { key: Some("k".into()), ..after(3, "next") };
    let sent = write(&world, &engine, keyed()).await.unwrap();
    write(&world, &engine, record("later")).await.unwrap();
    let again = write(&world, &engine, keyed()).await.unwrap();
    assert!(again.duplicate && again.seq == sent.seq);
    let other = NewRecord { replaces: true, ..keyed() };
    assert_eq!(write(&world, &engine, other).await.unwrap_err().code, Code::KeyReused);
}

#[tokio::test]
async fn a_branch_has_the_records_of_its_prefix() {
    let world = World::new();
    let engine = world.open(quiet()).await;
    write(&world, &engine, record("one")).await.unwrap();
    write(&world, &engine, record("two")).await.unwrap();
    let plan = BranchPlan { at: Some(Seq(2)), names: vec!["b".into()], ..BranchPlan::default() };
    let session = world.session("s");
    engine.branch(Caller::default(), &world.namespace, &session, plan).await.unwrap();
    assert_eq!(read(&world, &engine, "b", 0, 0).await, (vec![2], 2, 0));
    let (session, after) = (world.session("b"), NewRecord { after: Some(Seq(2)), ..record("b") });
    engine.record(Caller::default(), &world.namespace, &session, after).await.unwrap();
    assert_eq!(read(&world, &engine, "b", 2, 0).await.0.len(), 1);
    assert_eq!(
        read(&world, &engine, "s", 0, 0).await,
        (vec![2, 3], 3, 0),
        "the parent is as it was"
    );
}

#[tokio::test]
async fn what_a_record_refers_to_is_there_and_stays() {
    let world = World::new();
    let engine = world.open(quiet()).await;
    let blob = world.blobs.put_bytes(&world.namespace, "content".into()).await.unwrap();
    let body = |hash| Part { body: Body::Blob(BlobRef { hash, bytes: 7 }), ..Part::text("") };
    let nowhere = NewRecord { parts: vec![body([7; 32])], ..record("") };
    assert_eq!(write(&world, &engine, nowhere).await.unwrap_err().code, Code::NoBlob);
    let kept = NewRecord { parts: vec![body(blob.id.0)], ..record("") };
    write(&world, &engine, kept).await.unwrap();
    engine.collect_blobs(&world.namespace, 0).await.unwrap();
    assert!(world.blobs.stat(&world.namespace, &blob.id).await.unwrap().is_some());
}

#[tokio::test]
async fn a_session_that_is_unknown_has_no_records() {
    let world = World::new();
    let engine = world.open(quiet()).await;
    let session = ax_engine::SessionRef { id: SessionId(5), name: String::new() };
    let read = engine.records(&world.namespace, &session, "steps", Seq::ZERO, 0).await;
    assert_eq!(read.unwrap_err().code, Code::NoSession);
    let unnamed = NewRecord { agent: None, ..record("one") };
    assert_eq!(write(&world, &engine, unnamed).await.unwrap_err().code, Code::NoSession);
}
