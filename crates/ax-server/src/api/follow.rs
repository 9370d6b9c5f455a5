//! Following a session.

use super::{Api, Stream};
use crate::caller::{Act, Asker, about};
use crate::convert::{event, seq, wire_status};
use crate::kinds::Kinds;
use ax_core::id::Seq;
use ax_engine::{Error, FollowItem, FollowOptions, Until};
use ax_proto::v1;
use ax_proto::v1::follow_end::Reason;
use ax_proto::v1::follow_response::Item;
use futures::StreamExt as _;
use futures::stream;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// What followers get. An item that keeps the connection alive says how far they are, which
/// matters to one that leaves events out.
pub(crate) type Followed = Item;

impl Api {
    pub(crate) async fn follow(
        self,
        asker: Asker,
        request: v1::FollowRequest,
    ) -> Result<Stream<Followed>, Error> {
        let (namespace, session) =
            asker.session(Act::Read, &request.namespace, &request.session)?;
        let until = match (request.until_idle, seq(request.until_input)) {
            (true, Some(_)) => {
                let message = "a follower waits until_idle or until_input, not for both";
                return Err(Error::invalid(message));
            }
            (true, None) => Until::Idle,
            (false, Some(input)) => Until::Input(input),
            (false, None) => Until::Forever,
        };
        let kinds = Kinds::parse(&request.kinds)?;
        let after = Seq(request.after);
        let options = FollowOptions { after, until, no_deltas: request.no_deltas };
        let items = self.engine().follow(&namespace, &session, options).await;
        let items = items.map_err(|error| about(&session, error))?;
        let pause = self.server.options.keep_alive_pause;
        let due = Instant::now() + pause;
        let follower = Follower { items, kinds, pause, due, at: after, over: false };
        Ok(stream::unfold(follower, Follower::next).boxed())
    }
}

/// A follower on its way. It reads no further than its client does.
struct Follower {
    items: ax_engine::Stream<FollowItem>,
    kinds: Kinds,
    /// How long it says nothing at most, and until when now.
    pause: Duration,
    due: Instant,
    /// How far it has read.
    at: Seq,
    over: bool,
}

impl Follower {
    async fn next(mut self) -> Option<(Result<Followed, Error>, Self)> {
        let item = self.item().await?;
        self.due = Instant::now() + self.pause;
        Some((item, self))
    }

    async fn item(&mut self) -> Option<Result<Followed, Error>> {
        while !self.over {
            // A stream that is not polled to its next item loses nothing.
            let item = match timeout_at(self.due, self.items.next()).await {
                Ok(Some(Ok(item))) => item,
                Ok(Some(Err(error))) => {
                    self.over = true;
                    return Some(Err(error));
                }
                Ok(None) => return None,
                Err(_) => return Some(Ok(self.alive())),
            };
            match self.take(item) {
                Ok(Some(item)) => return Some(Ok(item)),
                // Events that are left out put nothing off.
                Ok(None) if Instant::now() >= self.due => return Some(Ok(self.alive())),
                Ok(None) => {}
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    const fn alive(&self) -> Item {
        Item::KeepAlive(v1::KeepAlive { last: self.at.0 })
    }

    fn take(&mut self, item: FollowItem) -> Result<Option<Followed>, Error> {
        let end = |reason: Reason, last: Seq, status| {
            Item::End(v1::FollowEnd { reason: reason.into(), last: last.0, status })
        };
        Ok(Some(match item {
            FollowItem::Event(seq, encoded) => {
                self.at = seq;
                let event = event(seq, &encoded)?;
                if !self.kinds.has(&event) {
                    return Ok(None);
                }
                Item::Event(event)
            }
            FollowItem::CaughtUp(last) => {
                self.at = self.at.max(last);
                Item::CaughtUp(v1::CaughtUp { last: last.0 })
            }
            FollowItem::Reached(last, status) => {
                end(Reason::Reached, last, Some(wire_status(*status)))
            }
            FollowItem::Deleted(last) => end(Reason::Deleted, last, None),
            FollowItem::Shutdown(last) => end(Reason::Shutdown, last, None),
        }))
    }
}
