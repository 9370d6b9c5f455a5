//! Many inputs over one stream.

use super::Api;
use crate::SUBMITS_MAX;
use crate::caller::Asker;
use crate::status::details;
use ax_engine::Error;
use ax_proto::v1;
use ax_proto::v1::submit_stream_response::Answer;
use futures::{Stream, StreamExt as _};
use std::collections::HashMap;
use tokio::sync::oneshot;

/// The sessions that inputs are on the way to: who comes after the last of them.
#[derive(Debug, Default)]
struct Order {
    last: HashMap<(String, String), oneshot::Receiver<()>>,
}

impl Order {
    /// Enqueues behind the inputs of the same session. An input begins once its predecessor has
    /// dropped what it was given.
    fn enqueue(
        &mut self,
        submit: &v1::SubmitRequest,
    ) -> (Option<oneshot::Receiver<()>>, oneshot::Sender<()>) {
        let (done, next) = oneshot::channel();
        if submit.session.is_empty() {
            return (None, done);
        }
        if self.last.len() >= 2 * SUBMITS_MAX {
            // Whoever is done is no longer waited for.
            self.last.retain(|_, last| last.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        }
        let session = (submit.namespace.clone(), submit.session.clone());
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
                let submit = request.submit.unwrap_or_default();
                let turn = order.enqueue(&submit);
                (request.id, submit, turn)
            });
            async move {
                let (id, submit, (before, done)) = request?;
                if let Some(before) = before {
                    // It is dropped, never sent to.
                    let _dropped = before.await;
                }
                let answer = api.submit(asker, submit).await;
                drop(done);
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

    #[test]
    fn inputs_of_one_session_wait_for_each_other_and_others_do_not() {
        let mut order = Order::default();
        let submit =
            |session: &str| v1::SubmitRequest { session: session.into(), ..Default::default() };
        let (before, first) = order.enqueue(&submit("a"));
        assert!(before.is_none());
        assert!(order.enqueue(&submit("b")).0.is_none());
        assert!(order.enqueue(&submit("")).0.is_none());
        let (before, _second) = order.enqueue(&submit("a"));
        let mut before = before.unwrap();
        assert_eq!(before.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        drop(first);
        assert_eq!(before.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }

    #[test]
    fn what_is_done_is_forgotten() {
        let mut order = Order::default();
        for n in 0..10 * SUBMITS_MAX {
            let name = format!("session-{n}");
            drop(order.enqueue(&v1::SubmitRequest { session: name, ..Default::default() }));
        }
        assert!(order.last.len() <= 2 * SUBMITS_MAX);
    }
}
