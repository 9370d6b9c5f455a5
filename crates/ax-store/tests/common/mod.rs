//! A store that dies at a chosen step, or stops before a removal until it is told to go on.

#![expect(unreachable_pub, reason = "a module of several test files")]

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// What happens to the steps of the store.
#[derive(Debug)]
pub struct Plan {
    /// The number of steps that are carried out; every later one fails.
    pub steps_left: AtomicU64,
    /// Whether the first step that fails is carried out nevertheless.
    pub last_is_done: bool,
    /// If set, a removal tells the first and waits for the second.
    pub gate: Option<(Notify, Notify)>,
}

impl Plan {
    pub fn never_fails() -> Self {
        Self { steps_left: AtomicU64::new(u64::MAX), last_is_done: false, gate: None }
    }

    fn step(&self) -> Step {
        match self.steps_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
        {
            Ok(1) if self.last_is_done => Step::DoneAndLost,
            Ok(1..) => Step::Done,
            _ => Step::Dead,
        }
    }
}

#[derive(PartialEq)]
enum Step {
    Done,
    DoneAndLost,
    Dead,
}

fn dead<T>() -> Result<T> {
    Err(object_store::Error::Generic { store: "test", source: "the machine died".into() })
}

/// An object store under a plan.
#[derive(Debug)]
pub struct Planned {
    pub inner: Arc<dyn ObjectStore>,
    pub plan: Arc<Plan>,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("planned")
    }
}

async fn run<T>(plan: &Plan, work: impl Future<Output = Result<T>>) -> Result<T> {
    match plan.step() {
        Step::Done => work.await,
        Step::DoneAndLost => {
            drop(work.await);
            dead()
        }
        Step::Dead => dead(),
    }
}

#[async_trait]
impl ObjectStore for Planned {
    async fn put_opts(&self, to: &Path, body: PutPayload, with: PutOptions) -> Result<PutResult> {
        run(&self.plan, self.inner.put_opts(to, body, with)).await
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        with: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let inner = run(&self.plan, self.inner.put_multipart_opts(to, with)).await?;
        Ok(Box::new(PlannedUpload { inner, plan: Arc::clone(&self.plan) }))
    }

    async fn get_opts(&self, from: &Path, with: GetOptions) -> Result<GetResult> {
        run(&self.plan, self.inner.get_opts(from, with)).await
    }

    async fn get_ranges(&self, from: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        run(&self.plan, self.inner.get_ranges(from, ranges)).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (plan, inner) = (Arc::clone(&self.plan), Arc::clone(&self.inner));
        let removed = locations.then(move |location| {
            let (plan, inner) = (Arc::clone(&plan), Arc::clone(&inner));
            async move {
                if let Some((reached, go_on)) = &plan.gate {
                    reached.notify_one();
                    go_on.notified().await;
                }
                let location = stream::iter([location]).boxed();
                let work = async { inner.delete_stream(location).next().await.unwrap() };
                run(&plan, work).await
            }
        });
        removed.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.plan.step() {
            Step::Done => self.inner.list(prefix),
            _ => stream::iter([dead()]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        run(&self.plan, self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, with: CopyOptions) -> Result<()> {
        run(&self.plan, self.inner.copy_opts(from, to, with)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, with: RenameOptions) -> Result<()> {
        run(&self.plan, self.inner.rename_opts(from, to, with)).await
    }
}

#[derive(Debug)]
struct PlannedUpload {
    inner: Box<dyn MultipartUpload>,
    plan: Arc<Plan>,
}

#[async_trait]
impl MultipartUpload for PlannedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        if self.plan.step() == Step::Done {
            return self.inner.put_part(data);
        }
        Box::pin(async { dead() })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        run(&self.plan, self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        run(&self.plan, self.inner.abort()).await
    }
}
