use super::*;
use ax_log::MemoryLog;
use std::sync::atomic::{AtomicU64, Ordering};

fn store(log: &Arc<dyn EventLog>) -> AgentStore {
    let time = AtomicU64::new(1);
    let clock = move || Timestamp::from_millis(time.fetch_add(1, Ordering::Relaxed));
    AgentStore::new(Arc::clone(log), clock)
}

fn memory() -> Arc<dyn EventLog> {
    Arc::new(MemoryLog::default())
}

fn source(name: &str, queue: u32) -> AgentSource {
    let manifest = format!(
        "apiVersion: agentexecutor.dev/v1\nkind: Agent\nmetadata: {{name: {name}}}\n\
         spec:\n  sandbox: process\n  harness: {{type: process, command: [sh]}}\n  \
         limits: {{queue: {queue}}}\n"
    );
    AgentSource { manifest, dir: Some("/srv/agents".into()) }
}

fn names(agents: &[AgentView]) -> Vec<String> {
    agents.iter().map(|agent| format!("{}@{}", agent.name, agent.version)).collect()
}

#[tokio::test]
async fn the_newest_version_counts_and_the_others_stay() {
    let (log, here) = (memory(), Namespace::default());
    let store = store(&log);
    let (first, unchanged) = store.apply(&here, source("one", 1)).await.unwrap();
    assert_eq!((first.version, unchanged), (1, false));
    let (second, unchanged) = store.apply(&here, source("one", 2)).await.unwrap();
    assert_eq!((second.version, unchanged), (2, false));
    assert_eq!(store.get(&here, "one").await.unwrap().version, 2);
    let old = store.get(&here, "one@1").await.unwrap();
    assert_eq!(old.manifest, first.manifest);
    assert_eq!(old.dir, Some("/srv/agents".into()));
    store.apply(&here, source("another", 1)).await.unwrap();
    assert_eq!(names(&store.list(&here).await.unwrap()), ["another@1", "one@2"]);
}

#[tokio::test]
async fn a_manifest_that_says_the_same_is_not_stored_again() {
    let (log, here) = (memory(), Namespace::default());
    let store = store(&log);
    store.apply(&here, source("one", 1)).await.unwrap();
    let mut same = source("one", 1);
    same.manifest.insert_str(0, "# a comment\n");
    let (view, unchanged) = store.apply(&here, same.clone()).await.unwrap();
    assert_eq!((view.version, unchanged), (1, true));
    same.dir = None;
    let (view, unchanged) = store.apply(&here, same).await.unwrap();
    assert_eq!((view.version, unchanged), (2, false), "its paths begin elsewhere");
}

#[tokio::test]
async fn a_directory_that_no_harness_could_begin_in_is_refused() {
    let (log, here) = (memory(), Namespace::default());
    let store = store(&log);
    for dir in ["agents", "./", "/a\0b"] {
        let wrong = AgentSource { dir: Some(dir.into()), ..source("one", 1) };
        let error = store.apply(&here, wrong).await.unwrap_err();
        assert_eq!(error.code, Code::Invalid, "{dir:?}");
    }
    assert!(store.list(&here).await.unwrap().is_empty());
}

#[tokio::test]
async fn versions_count_on_over_a_deletion() {
    let (log, here) = (memory(), Namespace::default());
    let store = store(&log);
    store.apply(&here, source("one", 1)).await.unwrap();
    store.delete(&here, "one").await.unwrap();
    assert_eq!(store.get(&here, "one").await.unwrap_err().code, Code::NoAgent);
    assert_eq!(store.delete(&here, "one").await.unwrap_err().code, Code::NoAgent);
    assert!(store.list(&here).await.unwrap().is_empty());
    assert_eq!(store.get(&here, "one@1").await.unwrap().version, 1, "sessions may have it");
    let (view, unchanged) = store.apply(&here, source("one", 1)).await.unwrap();
    assert_eq!((view.version, unchanged), (2, false));
}

#[tokio::test]
async fn what_another_store_wrote_is_seen_and_not_overwritten() {
    let (log, here) = (memory(), Namespace::default());
    let (one, other) = (store(&log), store(&log));
    one.apply(&here, source("one", 1)).await.unwrap();
    assert_eq!(other.get(&here, "one").await.unwrap().version, 1);
    other.apply(&here, source("one", 2)).await.unwrap();
    let (view, _) = one.apply(&here, source("one", 3)).await.unwrap();
    assert_eq!(view.version, 3);
    assert_eq!(names(&store(&log).list(&here).await.unwrap()), ["one@3"]);
}

#[tokio::test]
async fn namespaces_do_not_see_each_other() {
    let (log, here) = (memory(), Namespace::default());
    let there = Namespace::new("there").unwrap();
    let store = store(&log);
    store.apply(&here, source("one", 1)).await.unwrap();
    assert_eq!(store.get(&there, "one").await.unwrap_err().code, Code::NoAgent);
    assert!(store.list(&there).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_session_of_the_agents_has_a_state_of_its_own() {
    let (log, here) = (memory(), Namespace::default());
    store(&log).apply(&here, source("one", 1)).await.unwrap();
    let head = log.head(&SessionKey::new(here, SYSTEM_SESSION)).await.unwrap().unwrap();
    assert_eq!((head.row.state, head.row.due_millis), (0, None));
    assert_eq!(crate::WaitState::from_number(0), None);
}

#[tokio::test]
async fn errors_say_what_may_have_been_meant() {
    let (log, here) = (memory(), Namespace::default());
    let store = store(&log);
    store.apply(&here, source("reviewer", 1)).await.unwrap();
    let error = store.get(&here, "reviewr").await.unwrap_err();
    assert_eq!(error.to_string(), "there is no agent \"reviewr\"");
    assert_eq!(error.hint(), "did you mean `reviewer`?");
    let error = store.get(&here, "reviewer@7").await.unwrap_err();
    assert_eq!(error.hint(), "the newest version is 1");
    let error = store.get(&here, "reviewer@0").await.unwrap_err();
    assert_eq!(error.code, Code::Invalid);
    let bad = AgentSource { manifest: "kind: Agent".into(), dir: None };
    let error = store.apply(&here, bad).await.unwrap_err();
    assert_eq!(error.code, Code::Manifest);
    assert!(!error.causes.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_that_write_at_once_make_every_version_once() {
    let log = memory();
    let writers = (0..2u32).map(|writer| {
        let store = store(&log);
        tokio::spawn(async move {
            let mut versions = Vec::new();
            for number in 0..8 {
                let source = source("one", writer * 100 + number);
                versions.push(store.apply(&Namespace::default(), source).await.unwrap().0.version);
            }
            versions
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut versions = Vec::new();
    for writer in writers {
        versions.extend(writer.await.unwrap());
    }
    versions.sort_unstable();
    assert_eq!(versions, (1..=16).collect::<Vec<_>>());
}
