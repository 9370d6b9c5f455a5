//! Reaching a server, and finding out whether it serves.

use super::config::{Address, Config};
use super::failure;
use super::place::{Place, SOCKET, is_own_port};
use crate::reach::Reach;
use ax_core::session::Failure;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

/// The shortest and the longest pause between two tries.
const PAUSE_MIN: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long one try may take.
const TRY_MAX: Duration = Duration::from_secs(5);

/// `grpc.health.v1.HealthCheckRequest`; no service is named: the server as a whole.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `SERVING` of `grpc.health.v1.HealthCheckResponse.ServingStatus`.
const SERVING: i32 = 1;

/// Waits until the server serves, and returns a channel to it.
pub(super) async fn serving(config: &Config, place: &Place) -> Result<Channel, Failure> {
    let due = Instant::now() + config.ready_max();
    let mut pause = PAUSE_MIN;
    loop {
        let tried = tokio::time::timeout(TRY_MAX, try_once(place)).await;
        let why = match tried {
            Ok(Ok(channel)) => return Ok(channel),
            Ok(Err(why)) => why,
            Err(_) => format!("no answer within {} s", TRY_MAX.as_secs()),
        };
        if Instant::now() + pause >= due {
            let millis = config.ready_max().as_millis();
            let message = format!("the server does not serve after {millis} ms: {why}");
            return Err(failure("not_ready", message));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn try_once(place: &Place) -> Result<Channel, String> {
    if let (Some(port), Reach::Machine) = (place.port, &place.reach)
        && !is_own_port(port)
    {
        return Err(format!("nobody, or somebody else, listens on port {port}"));
    }
    let channel = channel(place).await.map_err(|error| chain(&error))?;
    match check(channel.clone()).await {
        Ok(SERVING) => Ok(channel),
        Ok(status) => Err(format!("it says that its health is {status}, not {SERVING} (serving)")),
        // Not every server tells of its health.
        Err(status) if status.code() == Code::Unimplemented => Ok(channel),
        Err(status) => Err(status.message().to_owned()),
    }
}

async fn channel(place: &Place) -> Result<Channel, tonic::transport::Error> {
    if let Some(port) = place.port {
        let reach = place.reach.clone();
        let connect = tower::service_fn(move |_: Uri| {
            let reach = reach.clone();
            async move { reach.connect(port).await.map(TokioIo::new) }
        });
        return Endpoint::from_static("http://localhost").connect_with_connector(connect).await;
    }
    match &place.address {
        Address::Http(url) => {
            let endpoint = Endpoint::from_shared(url.clone())?;
            endpoint.tcp_keepalive(Some(Duration::from_secs(30))).connect().await
        }
        Address::Unix(path) => {
            let (path, held) = (path.clone(), place.held.clone());
            let connect = tower::service_fn(move |_: Uri| {
                let (path, held) = (path.clone(), held.clone());
                async move {
                    match held {
                        Some(held) => held.connect(SOCKET).await.map(TokioIo::new),
                        None => UnixStream::connect(path).await.map(TokioIo::new),
                    }
                }
            });
            // The address is never resolved: the connector knows where to go.
            Endpoint::from_static("http://localhost").connect_with_connector(connect).await
        }
    }
}

async fn check(channel: Channel) -> Result<i32, Status> {
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(chain(&error)))?;
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let request = Request::new(HealthCheckRequest::default());
    Ok(client.unary(request, path, codec).await?.into_inner().status)
}

/// An error and what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(below) = cause {
        words = format!("{words}: {below}");
        cause = below.source();
    }
    words
}
