//! Following a session over connections that break.

use crate::client::Client;
use crate::error::Error;
use crate::machine::{Input, Machine, Want};
use crate::outage::{Chance, Patience};
use crate::retry::millis_since;
use ax_proto::v1;
use ax_proto::v1::follow_response::Item as Sent;
use std::time::Duration;
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
    request: v1::FollowRequest,
    machine: Machine,
    began: Instant,
    stream: Option<Box<Streaming<v1::FollowResponse>>>,
}

impl Follow {
    pub(crate) fn new(client: Client, patience: Patience, request: v1::FollowRequest) -> Self {
        let holes = request.no_deltas || !request.kinds.is_empty();
        let machine = Machine::new(request.after, holes, patience, Chance::fresh());
        Self { client, request, machine, began: Instant::now(), stream: None }
    }

    /// The position of the last event that was returned.
    pub const fn last(&self) -> u64 {
        self.machine.last()
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
            let input = match self.machine.want() {
                Want::Nothing => return Ok(None),
                Want::Wait { until_millis } => {
                    self.stream = None;
                    sleep_until(self.began + Duration::from_millis(until_millis)).await;
                    Input::Due
                }
                Want::Open { after } => self.open(after).await,
                Want::Read => match &mut self.stream {
                    Some(stream) => read(stream).await,
                    None => Input::Failed(Error::broken("the stream is gone")),
                },
            };
            if let Some(item) = self.machine.handle(millis_since(self.began), input)? {
                return Ok(Some(item));
            }
        }
    }

    async fn open(&mut self, after: u64) -> Input {
        let request = v1::FollowRequest { after, ..self.request.clone() };
        match self.client.sessions().follow(self.client.ask(request)).await {
            Ok(stream) => {
                self.stream = Some(Box::new(stream.into_inner()));
                Input::Opened
            }
            Err(status) => Input::Failed(status.into()),
        }
    }
}

async fn read(stream: &mut Streaming<v1::FollowResponse>) -> Input {
    match stream.message().await {
        Ok(Some(response)) => match response.item {
            Some(Sent::Event(event)) => Input::Event(Box::new(event)),
            Some(Sent::CaughtUp(caught_up)) => Input::CaughtUp(caught_up.last),
            Some(Sent::KeepAlive(alive)) => Input::Alive(alive.last),
            Some(Sent::End(end)) => Input::End(Box::new(end)),
            None => Input::Failed(Error::broken("the server sent something unknown")),
        },
        Ok(None) => Input::Failed(Error::broken("the stream ended too early")),
        Err(status) => Input::Failed(status.into()),
    }
}
