//! The model keeps the law.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::{Arc, Mutex};

use ax_log::conformance::{self, Store};
use ax_log::{EventLog, MemoryLog};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;

#[derive(Default)]
struct InMemory(Mutex<Option<Arc<MemoryLog>>>);

impl Store for InMemory {
    fn open(&self) -> LocalBoxFuture<'_, Arc<dyn EventLog>> {
        async {
            let mut slot = self.0.lock().unwrap();
            let log = Arc::new(slot.as_ref().map_or_else(MemoryLog::new, |log| log.reopen()));
            *slot = Some(Arc::clone(&log));
            log as Arc<dyn EventLog>
        }
        .boxed_local()
    }

    fn crash(&self, log: Arc<dyn EventLog>) -> LocalBoxFuture<'_, ()> {
        drop(log);
        async {}.boxed_local()
    }

    fn break_writes(&self) -> bool {
        self.0.lock().unwrap().as_ref().unwrap().break_writes();
        true
    }
}

#[tokio::test]
async fn the_model_keeps_the_law() {
    conformance::all(InMemory::default).await;
}
