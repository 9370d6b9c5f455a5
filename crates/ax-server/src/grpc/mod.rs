//! The protocol buffers side: services that hand their requests on.

mod agents;
mod server;
mod sessions;

pub(crate) use agents::Agents;
pub(crate) use server::Admin;
pub(crate) use sessions::Sessions;

use crate::api::{Api, Stream};
use crate::caller::Asker;
use crate::status::status;
use ax_engine::Error;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

type Answered<T> = Result<Response<T>, Status>;
type Streamed<T> = BoxStream<'static, Result<T, Status>>;

/// Says who makes a request.
fn asker<T>(request: &Request<T>) -> Result<Asker, Status> {
    Asker::of(request.extensions(), request.metadata().as_ref()).map_err(status)
}

/// Carries a request out that has one answer.
async fn call<Q, A, F>(
    api: &Api,
    request: Request<Q>,
    carry_out: impl FnOnce(Api, Asker, Q) -> F,
) -> Answered<A>
where
    F: Future<Output = Result<A, Error>>,
{
    let asker = asker(&request)?;
    let answer = carry_out(api.clone(), asker, request.into_inner()).await;
    answer.map(Response::new).map_err(status)
}

/// Makes a stream of answers.
fn streamed<T: 'static, A>(
    items: Stream<T>,
    answer: impl Fn(T) -> A + Send + 'static,
) -> Response<Streamed<A>> {
    Response::new(items.map(move |item| item.map(&answer).map_err(status)).boxed())
}

/// Reads the rest of what a client streams; a message that cannot be read breaks it off.
fn rest<Q: Send + 'static>(
    requests: Streaming<Q>,
    chunk: impl Fn(Q) -> Vec<u8> + Send + 'static,
) -> impl futures::Stream<Item = Result<bytes::Bytes, Error>> + Send {
    requests.map(move |request| match request {
        Ok(request) => Ok(chunk(request).into()),
        Err(status) => Err(Error::invalid(format!("the content broke off: {}", status.message()))),
    })
}
