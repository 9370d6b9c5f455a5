//! Many inputs over one stream.

use super::Api;
use super::sessions::{submission, submitted};
use crate::SUBMITS_MAX;
use crate::caller::Asker;
use crate::status::details;
use ax_core::id::{Namespace, SessionId};
use ax_engine::Error;
use ax_proto::v1;
use ax_proto::v1::submit_stream_response::Answer;
use futures::{Stream, StreamExt as _};
use prost::Message as _;
use std::collections::HashMap;
use tokio::sync::oneshot;

/// The sessions that inputs are on the way to: who comes after the last of them.
#[derive(Debug, Default)]
struct Order {
    last: HashMap<(Namespace, SessionId), oneshot::Receiver<()>>,
}

impl Order {
    /// Enqueues behind the inputs of the same session. An input begins once its predecessor has
    /// dropped what it was given: it has its place then, or was refused.
    fn enqueue(
        &mut self,
        session: Option<(Namespace, SessionId)>,
    ) -> (Option<oneshot::Receiver<()>>, oneshot::Sender<()>) {
        let (done, next) = oneshot::channel();
        let Some(session) = session else {
            return (None, done);
        };
        if self.last.len() >= 2 * SUBMITS_MAX {
            // Whoever is done is no longer waited for.
            self.last.retain(|_, last| last.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        }
        (self.last.insert(session, next), done)
    }
}

impl Api {
    /// Answers requests in their order while the next ones are under way.
    pub(crate) fn submit_stream<E: Send + 'static>(
        self,
        asker: Asker,
        requests: impl Stream<Item = Result<v1::SubmitStreamRequest, E>> + Send + 'static,
    ) -> impl Stream<Item = Result<v1::SubmitStreamResponse, E>> + Send + 'static {
        let mut order = Order::default();
        let answers = requests.map(move |request| {
            let (api, asker) = (self.clone(), asker.clone());
            let request = request.map(|request| {
                let fits = asker.message(request.encoded_len());
                let submit = request.submit.unwrap_or_default();
                let read = fits.and_then(|()| submission(&asker, submit));
                let session = read.as_ref().ok().and_then(|(namespace, submission)| {
                    Some((namespace.clone(), submission.session.as_ref()?.id))
                });
                (request.id, read, order.enqueue(session))
            });
            async move {
                let (id, read, (before, next)) = request?;
                if let Some(before) = before {
                    // It is dropped, never sent to.
                    let _dropped = before.await;
                }
                let answer = match read {
                    Err(error) => Err(error),
                    Ok((namespace, submission)) => {
                        let session = submission.session.clone();
                        let (engine, caller) = (api.engine(), asker.caller());
                        let done = engine.submit_before(caller, &namespace, submission, next).await;
                        submitted(session.as_ref(), done)
                    }
                };
                Ok(v1::SubmitStreamResponse { id, answer: Some(wire(answer)) })
            }
        });
        answers.buffered(SUBMITS_MAX)
    }
}

fn wire(answer: Result<v1::SubmitResponse, Error>) -> Answer {
    match answer {
        Ok(done) => Answer::Done(done),
        Err(error) => Answer::Error(details(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: u128) -> Option<(Namespace, SessionId)> {
        Some((Namespace::default(), SessionId(id)))
    }

    #[test]
    fn inputs_of_one_session_wait_for_each_other_and_others_do_not() {
        let mut order = Order::default();
        let (before, first) = order.enqueue(session(1));
        assert!(before.is_none());
        assert!(order.enqueue(session(2)).0.is_none());
        assert!(order.enqueue(None).0.is_none());
        let (before, _second) = order.enqueue(session(1));
        let mut before = before.unwrap();
        assert_eq!(before.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        drop(first);
        assert_eq!(before.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }

    #[test]
    fn what_is_done_is_forgotten() {
        let mut order = Order::default();
        for number in 0..10 * SUBMITS_MAX {
            drop(order.enqueue(session(number as u128)));
        }
        assert!(order.last.len() <= 2 * SUBMITS_MAX);
    }
}
