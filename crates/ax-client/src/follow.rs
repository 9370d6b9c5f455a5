//! Following a session over connections that break.

use crate::client::Client;
use crate::connect::{Outage, Patience, given_up};
use crate::error::Error;
use crate::retry::millis_since;
use ax_proto::v1;
use ax_proto::v1::follow_end::Reason;
use ax_proto::v1::follow_response;
use tokio::time::{Instant, sleep_until};
use tonic::Streaming;

/// What a follower sees.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// An event. Each comes once, and in order.
    Event(Box<v1::Event>),
    /// Everything up to this position was recorded before; what follows is live.
    CaughtUp(u64),
    /// The connection broke; it is tried again. Any other item says that there is one again.
    Broken(Error),
    /// What was asked to be waited for has come, or the session was deleted. The last item.
    End(Box<v1::FollowEnd>),
}

/// A follower of a session. Use [`Client::follow`].
#[derive(Debug)]
pub struct Follow {
    client: Client,
    patience: Patience,
    request: v1::FollowRequest,
    place: Place,
    outage: Outage,
    began: Instant,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// To connect at once.
    Apart,
    /// To connect then.
    Pausing(Instant),
    /// Connected.
    Streaming(Box<Streaming<v1::FollowResponse>>),
    /// Nothing more comes.
    Over,
}

impl Follow {
    pub(crate) fn new(client: Client, patience: Patience, request: v1::FollowRequest) -> Self {
        let place =
            Place { last: request.after, holes: request.no_deltas || !request.kinds.is_empty() };
        let (outage, began, phase) = (Outage::default(), Instant::now(), Phase::Apart);
        Self { client, patience, request, place, outage, began, phase }
    }

    /// The position of the last event that was returned.
    pub const fn last(&self) -> u64 {
        self.place.last
    }

    /// Returns the next item; `None` after the last one.
    ///
    /// # Errors
    ///
    /// Returns what the server refused, or that none answered for too long. It is over then.
    ///
    /// # Cancellation
    ///
    /// Dropping the future loses nothing: the next call goes on where this one was.
    pub async fn next(&mut self) -> Result<Option<Item>, Error> {
        loop {
            let item = match &mut self.phase {
                Phase::Over => return Ok(None),
                Phase::Pausing(until) => {
                    sleep_until(*until).await;
                    self.phase = Phase::Apart;
                    None
                }
                Phase::Apart => {
                    let request =
                        v1::FollowRequest { after: self.place.last, ..self.request.clone() };
                    match self.client.sessions().follow(request).await {
                        Ok(stream) => {
                            self.phase = Phase::Streaming(Box::new(stream.into_inner()));
                            None
                        }
                        Err(status) => self.fail(status.into())?,
                    }
                }
                Phase::Streaming(stream) => match stream.message().await {
                    Ok(Some(response)) => self.take(response)?,
                    Ok(None) => self.fail(Error::broken("the stream ended too early"))?,
                    Err(status) => self.fail(status.into())?,
                },
            };
            if item.is_some() {
                return Ok(item);
            }
        }
    }

    fn take(&mut self, response: v1::FollowResponse) -> Result<Option<Item>, Error> {
        match response.item {
            Some(follow_response::Item::Event(event)) => match self.place.see(event.seq) {
                Sight::New => {
                    self.outage.end();
                    Ok(Some(Item::Event(Box::new(event))))
                }
                Sight::Old => Ok(None),
                Sight::Hole => self.fail(Error::broken(format!(
                    "the server sent event {} after {}",
                    event.seq, self.place.last
                ))),
            },
            Some(follow_response::Item::CaughtUp(caught_up)) => {
                self.outage.end();
                Ok(Some(Item::CaughtUp(caught_up.last)))
            }
            Some(follow_response::Item::End(end)) if end.reason() == Reason::Shutdown => {
                self.fail(Error::broken("the server is stopping"))
            }
            Some(follow_response::Item::End(end)) => {
                self.phase = Phase::Over;
                Ok(Some(Item::End(Box::new(end))))
            }
            Some(follow_response::Item::KeepAlive(alive)) => {
                self.outage.end();
                self.place.pass(alive.last);
                Ok(None)
            }
            None => self.fail(Error::broken("the server sent something unknown")),
        }
    }

    /// Waits for another try, or gives up. Tells of the first failure of an outage only.
    fn fail(&mut self, error: Error) -> Result<Option<Item>, Error> {
        self.phase = Phase::Over;
        if !error.broken {
            return Err(error);
        }
        let first = !self.outage.is_on();
        let Some(pause) = self.outage.fail(&self.patience, millis_since(self.began)) else {
            return Err(given_up(error, &self.patience));
        };
        self.phase = Phase::Pausing(Instant::now() + pause);
        Ok(first.then_some(Item::Broken(error)))
    }
}

/// Where a follower is: what makes that nothing is missing and nothing comes twice.
#[derive(Clone, Copy, Debug)]
struct Place {
    last: u64,
    /// Positions may be missing, because events were left out.
    holes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    New,
    Old,
    Hole,
}

impl Place {
    const fn see(&mut self, seq: u64) -> Sight {
        if seq <= self.last {
            return Sight::Old;
        }
        if seq > self.last + 1 && !self.holes {
            return Sight::Hole;
        }
        self.last = seq;
        Sight::New
    }

    /// Passes over events that were left out.
    const fn pass(&mut self, seq: u64) {
        if self.holes && seq > self.last {
            self.last = seq;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_new_once_and_a_hole_is_noticed() {
        let mut place = Place { last: 2, holes: false };
        let sights: Vec<_> = [2, 3, 3, 5, 4, 5].into_iter().map(|seq| place.see(seq)).collect();
        use Sight::{Hole, New, Old};
        assert_eq!(sights, [Old, New, Old, Hole, New, New]);
    }

    #[test]
    fn without_deltas_there_are_holes() {
        let mut place = Place { last: 0, holes: true };
        assert_eq!(place.see(7), Sight::New);
        assert_eq!(place.see(7), Sight::Old);
    }
}
