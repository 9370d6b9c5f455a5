//! After the storm: everything that waits is given what it waits for, and all of it ends.

use crate::audit;
use crate::client::{fitting, named};
use crate::life::World;
use crate::prng::Prng;
use crate::program::SIGNALS;
use ax_core::id::{Seq, SessionKey};
use ax_core::session::Caller;
use ax_engine::{Code, Engine, ListSessions, SessionView, WaitState};
use ax_log::{EmbeddedLog, EventLog, ReadLimit};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// How often what waits is served, at most. Each question, sleep and wait of a program takes a
/// round, for each input that waits.
const ROUNDS_MAX: u64 = 120;

/// Waits for quiet, serves everything, and looks at all that was left behind.
pub(crate) async fn settle(world: &mut World, engine: &Engine) {
    let mut prng = world.prng.clone();
    let mut rounds = 0;
    let mut before = BTreeMap::new();
    loop {
        world.meet(engine, true);
        // Longer than any backoff, step or silence, shorter than the longest sleep.
        sleep(Duration::from_secs(200)).await;
        let sessions = sessions(world, engine).await;
        quiet(world, engine, &sessions, &before);
        before = sessions.iter().map(|(key, view)| (key.clone(), view.last)).collect();
        let waiting: Vec<_> = sessions.iter().filter(|(_, view)| !has_ended(view)).collect();
        if waiting.is_empty() || !world.outside.is_sound() {
            break;
        }
        rounds += 1;
        if rounds > ROUNDS_MAX {
            let (key, view) = waiting[0];
            let what = format!("E4 ended: {key} does not end: {:?}", view.status);
            world.outside.fail(what);
            break;
        }
        for (key, view) in waiting {
            serve(world, engine, key, view, &mut prng).await;
        }
    }
    if world.outside.is_sound() {
        sleep(Duration::from_secs(60)).await;
        audit::audit(world, engine).await;
        audit::tell(world, engine).await;
    } else {
        audit::tell(world, engine).await;
    }
}

/// Lists what there is.
async fn sessions(world: &World, engine: &Engine) -> Vec<(SessionKey, SessionView)> {
    let mut found = Vec::new();
    for namespace in audit::namespaces() {
        let list = ListSessions { limit: 1_000, ..ListSessions::default() };
        match engine.sessions(&namespace, list).await {
            Ok(page) => {
                for row in page.sessions {
                    let key = SessionKey::new(namespace.clone(), row.id);
                    match engine.session(&namespace, &named(&key)).await {
                        Ok(view) => {
                            same(world, &key, &row, &view);
                            found.push((key, view));
                        }
                        Err(error) => {
                            world
                                .outside
                                .fail(format!("E10 listed: {key} is not there: {error:?}"));
                        }
                    }
                }
            }
            Err(error) => world.outside.fail(format!("E10 listed: {error:?}")),
        }
    }
    found
}

/// E10 listed: the row of a session says what the session is.
fn same(world: &World, key: &SessionKey, row: &SessionView, view: &SessionView) {
    let of = |view: &SessionView| (view.status.state, view.last, view.title.clone());
    if of(row) != of(view) {
        let (row, view) = (of(row), of(view));
        world.outside.fail(format!("E10 listed: {key} is listed as {row:?}, is {view:?}"));
    }
}

fn has_ended(view: &SessionView) -> bool {
    use WaitState::{Canceled, Completed, Failed, Ready, TimedOut};
    matches!(view.status.state, Ready | Completed | Failed | Canceled | TimedOut)
}

/// E4 named-wait, E11 asleep: what is busy gets on, and what waits has a name and no task.
fn quiet(
    world: &World,
    engine: &Engine,
    sessions: &[(SessionKey, SessionView)],
    before: &BTreeMap<SessionKey, Seq>,
) {
    let mut busy = 0;
    for (key, view) in sessions {
        let status = &view.status;
        let named = match status.state {
            WaitState::WaitingAsk => !status.asks.is_empty(),
            WaitState::WaitingTimer => status.due_at.is_some(),
            WaitState::WaitingSignal => !status.waiting.is_empty(),
            WaitState::Running | WaitState::Retrying | WaitState::WaitingCapacity => {
                busy += 1;
                before.get(key) != Some(&view.last)
            }
            _ => status.queued == 0,
        };
        if !named {
            world.outside.fail(format!("E4 named-wait: {key} is stuck: {status:?}"));
        }
        // What is due in a moment, or waited for by a harness that is not let go yet, is awake.
        let waits = !has_ended(view) && before.get(key) != Some(&view.last);
        busy += u64::from(waits || status.due_at.is_some());
    }
    let info = engine.info();
    if busy == 0 && (info.awake_sessions, info.running_attempts) != (0, 0) {
        world.outside.fail(format!("E11 asleep: while all is quiet, {info:?}"));
    }
}

/// Gives a session what it waits for.
async fn serve(
    world: &World,
    engine: &Engine,
    key: &SessionKey,
    view: &SessionView,
    prng: &mut Prng,
) {
    let caller = || Caller { principal: "settler".into(), ..Caller::default() };
    for (ask, open) in &view.status.asks {
        let answer = fitting(prng, open);
        let (to, via) = (named(key), "sim".into());
        let told = engine.answer(caller(), &key.namespace, &to, Some(*ask), answer, via).await;
        if let Err(error) = told {
            // The answer to another may have ended it, or time has.
            if !matches!(error.code, Code::NotOpen) {
                world.outside.fail(format!("E4 named-wait: {ask} of {key}: {error:?}"));
            }
        }
    }
    if view.status.state == WaitState::WaitingSignal {
        for name in SIGNALS {
            let payload = "{}".to_owned();
            let to = named(key);
            let told =
                engine.signal(caller(), &key.namespace, &to, name.into(), None, payload).await;
            if let Err(error) = told {
                world.outside.fail(format!("E4 named-wait: a signal to {key}: {error:?}"));
            }
        }
    }
}

/// E1 acknowledged: what is there now is there after a stop and a loss of power.
pub(crate) async fn reopen(world: &mut World, engine: &Engine, log: &Arc<dyn EventLog>) {
    let before = heads(world, log.as_ref()).await;
    engine.shutdown().await;
    world.disk = world.disk.crash();
    match EmbeddedLog::open(&world.log_options()) {
        Ok(log) => {
            let after = heads(world, &log).await;
            if before != after {
                world.outside.fail(format!("E1 acknowledged: {before:?} became {after:?}"));
            }
            for (key, last) in after {
                let read = log.read(&key, last.prev(), ReadLimit::default()).await;
                if !read.as_ref().is_ok_and(|entries| entries.len() == 1) {
                    world.outside.fail(format!("E1 acknowledged: {last} of {key}: {read:?}"));
                }
            }
        }
        Err(error) => world.outside.fail(format!("E9 opened: after all: {error:?}")),
    }
}

async fn heads(world: &World, log: &dyn EventLog) -> Vec<(SessionKey, Seq)> {
    let mut heads = Vec::new();
    let sessions = world.followers.keys().cloned().collect::<Vec<_>>();
    for key in sessions {
        if let Ok(Some(head)) = log.head(&key).await {
            heads.push((key, head.last));
        }
    }
    heads
}
