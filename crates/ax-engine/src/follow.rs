//! Followers: from the log, then live, under one cursor.

use crate::api::{FollowItem, FollowOptions, Status, Stream, Until, WaitState};
use crate::inner::Inner;
use crate::observe::Counted;
use crate::{Code, Error, codec};
use ax_core::id::{ExecId, Seq, SessionKey};
use ax_core::session::Kind;
use ax_log::{Entry, HeadWatch, ReadLimit};
use futures::StreamExt;
use futures::stream;
use std::collections::VecDeque;
use std::sync::Arc;

/// How much a follower reads ahead.
const READ: ReadLimit = ReadLimit { entries: 256, bytes: 256 * 1024 };

/// A follower on its way.
struct Follower {
    inner: Arc<Inner>,
    key: SessionKey,
    options: FollowOptions,
    watch: HeadWatch,
    /// The last position that was read.
    at: Seq,
    ready: VecDeque<FollowItem>,
    caught_up: bool,
    ended: bool,
    /// The execution of the input that is waited for, and whether it is over.
    exec: Option<ExecId>,
    over: bool,
    /// The head at which the status was looked at last.
    looked_at: Option<Seq>,
    _counted: Counted,
}

/// Follows a session.
pub(crate) async fn follow(
    inner: Arc<Inner>,
    key: SessionKey,
    options: FollowOptions,
) -> Result<Stream<FollowItem>, Error> {
    let head = inner.log.head(&key).await?;
    let Some(head) = head else {
        return Err(Error::new(Code::NoSession, format!("there is no session {}", key.session)));
    };
    if options.after > head.last {
        let what = format!("the session ends at {}, before {}", head.last, options.after);
        return Err(Error::new(Code::OutOfRange, what));
    }
    let watch = inner.log.watch(&key).await?;
    let mut follower = Follower {
        _counted: Counted::new(&inner.followers),
        inner,
        key,
        options,
        watch,
        at: options.after,
        ready: VecDeque::new(),
        caught_up: false,
        ended: false,
        exec: None,
        over: false,
        looked_at: None,
    };
    if let Until::Input(input) = options.until {
        follower.look_back(input).await?;
    }
    let items = stream::unfold(follower, |mut follower| async move {
        let item = follower.next().await?;
        Some((item, follower))
    });
    Ok(items.boxed())
}

impl Follower {
    async fn next(&mut self) -> Option<Result<FollowItem, Error>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(Ok(item));
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.advance().await {
                self.ended = true;
                return Some(Err(error));
            }
        }
    }

    /// Reads on, or waits until there is something to read.
    async fn advance(&mut self) -> Result<(), Error> {
        let head = self.watch.current();
        if self.at < head.last {
            let read = self.inner.log.read(&self.key, self.at, READ).await;
            match read {
                Ok(entries) => return self.take(entries),
                Err(ax_log::ReadError::NotFound) => return self.end_deleted(),
                Err(error) => return Err(error.into()),
            }
        }
        if !self.caught_up {
            self.caught_up = true;
            self.ready.push_back(FollowItem::CaughtUp(self.at));
            return Ok(());
        }
        if self.looked_at != Some(self.at) {
            self.looked_at = Some(self.at);
            if let Some(status) = self.reached().await? {
                self.ended = true;
                self.ready.push_back(FollowItem::Reached(self.at, Box::new(status)));
                return Ok(());
            }
        }
        let stopping = self.inner.stopping.clone();
        let beyond = tokio::select! {
            biased;
            head = self.watch.beyond(self.at) => head,
            () = stopping.cancelled() => {
                self.ended = true;
                self.ready.push_back(FollowItem::Shutdown(self.at));
                return Ok(());
            }
        };
        if beyond.ended && beyond.last <= self.at {
            return self.end_deleted();
        }
        Ok(())
    }

    fn end_deleted(&mut self) -> Result<(), Error> {
        self.ended = true;
        let stopping = self.inner.stopping.is_cancelled();
        let at = self.at;
        self.ready.push_back(if stopping {
            FollowItem::Shutdown(at)
        } else {
            FollowItem::Deleted(at)
        });
        Ok(())
    }

    fn take(&mut self, entries: Vec<Entry>) -> Result<(), Error> {
        for entry in entries {
            assert_eq!(entry.seq, self.at.next(), "the log has no gaps");
            self.at = entry.seq;
            let looks = self.options.no_deltas || matches!(self.options.until, Until::Input(_));
            if looks {
                let event = codec::decode_event(&entry.payload).map_err(|error| {
                    Error::new(Code::Damaged, format!("event {} cannot be read", entry.seq))
                        .caused_by(&error)
                })?;
                self.notice(event.exec, &event.kind);
                if self.options.no_deltas && matches!(event.kind, Kind::OutputDelta { .. }) {
                    continue;
                }
            }
            self.ready.push_back(FollowItem::Event(entry.seq, entry.payload));
        }
        Ok(())
    }

    fn notice(&mut self, exec: Option<ExecId>, kind: &Kind) {
        let Until::Input(wanted) = self.options.until else { return };
        match kind {
            Kind::ExecutionStarted { input, .. } if *input == wanted => self.exec = exec,
            Kind::ExecutionEnded { .. } if exec.is_some() && exec == self.exec => self.over = true,
            Kind::InputCanceled { input } if *input == wanted => self.over = true,
            _ => {}
        }
    }

    /// Finds out what became of the input before the position that the follower begins at.
    async fn look_back(&mut self, input: Seq) -> Result<(), Error> {
        let after = self.options.after;
        let mut at = input.prev();
        while at < self.options.after {
            let entries = self.inner.log.read(&self.key, at, READ).await?;
            let Some(last) = entries.last() else { break };
            at = last.seq;
            for entry in entries.iter().take_while(|entry| entry.seq <= after) {
                if let Ok(event) = codec::decode_event(&entry.payload) {
                    self.notice(event.exec, &event.kind);
                }
            }
        }
        Ok(())
    }

    /// Returns the status if what the follower waits for has come.
    async fn reached(&self) -> Result<Option<Status>, Error> {
        if self.options.until == Until::Forever {
            return Ok(None);
        }
        let Some(view) = self.inner.show(&self.key).await? else { return Ok(None) };
        if view.last > self.at {
            return Ok(None);
        }
        let status = view.status;
        let busy = matches!(
            status.state,
            WaitState::Running | WaitState::Retrying | WaitState::WaitingCapacity
        );
        let reached = match self.options.until {
            Until::Forever => false,
            Until::Idle => !busy,
            Until::Input(_) => {
                let waits = status.state == WaitState::WaitingAsk && status.exec == self.exec;
                self.over || (waits && self.exec.is_some())
            }
        };
        Ok(reached.then_some(status))
    }
}
