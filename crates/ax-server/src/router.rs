//! Everything that is behind one port, and what every request goes through.

use crate::REQUEST_BYTES_MAX;
use crate::api::Api;
use crate::ax1;
use crate::grpc::{Admin, Agents, Sessions};
use crate::harnesses::Harnesses;
use crate::ops::measure;
use crate::origins::{Origins, refuse_strangers, share_answers};
use crate::rest;
use crate::serve::Server;
use crate::status::{explain, refuse};
use ax_engine::{Code, Error};
use ax_harness::Opened;
use ax_proto::v1::agents_server::AgentsServer;
use ax_proto::v1::server_server::ServerServer;
use ax_proto::v1::sessions_server::SessionsServer;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::Response;
use std::convert::Infallible;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::Service;

/// What has a health; the empty name stands for the server.
const SERVICES: [&str; 5] = [
    "",
    ax1::HEALTH_NAME,
    SessionsServer::<Sessions>::NAME,
    AgentsServer::<Agents>::NAME,
    ServerServer::<Admin>::NAME,
];
/// Paths that are answered even while the server stops.
const ALWAYS: &[&str] = &["/grpc.health.v1.Health/", "/healthz", "/readyz", "/metrics"];

/// Puts everything together. What is returned beside says whether the server is healthy, and
/// answers harnesses as long as it lives.
pub(crate) async fn router(server: Server) -> (Router, HealthReporter, Opened) {
    let (stop, options) = (server.stop.clone(), server.options.clone());
    let engine = server.engine.clone();
    let api = Api::new(Arc::new(server));
    let opened = options.desk.open(Arc::new(Harnesses::new(api.clone())));
    let (health, health_service) = tonic_health::server::health_reporter();
    for service in SERVICES {
        health.set_service_status(service, ServingStatus::Serving).await;
    }
    let sessions = SessionsServer::new(Sessions { api: api.clone() });
    let agents = AgentsServer::new(Agents { api: api.clone() });
    let admin = ServerServer::new(Admin { api: api.clone() });
    let router = rest::routes(api).merge(options.beside);
    let router = grpc(router, sessions.max_decoding_message_size(REQUEST_BYTES_MAX));
    let router = grpc(router, agents.max_decoding_message_size(REQUEST_BYTES_MAX));
    let router = grpc(router, admin.max_decoding_message_size(REQUEST_BYTES_MAX));
    let router = ax1::routes(router, &engine).layer(map_response(explain));
    let router = reflection(grpc(router, health_service));
    let router = router.fallback(no_route).method_not_allowed_fallback(no_method);
    let router = match options.guard {
        Some(guard) => guard.0(router),
        None => router,
    };
    let origins = Origins::new(options.origins);
    let router = router
        .layer(from_fn_with_state(origins.clone(), refuse_strangers))
        .merge(options.open)
        .layer(from_fn_with_state(stop, draining))
        .layer(from_fn_with_state(origins, share_answers));
    let router = match options.metrics {
        Some(metrics) => router.layer(from_fn_with_state(metrics, measure)),
        None => router,
    };
    (router, health, opened)
}

/// Tells those who watch the health that the server stops.
pub(crate) async fn unhealthy(health: &HealthReporter) {
    for service in SERVICES {
        health.set_service_status(service, ServingStatus::NotServing).await;
    }
}

/// Mounts a gRPC service.
pub(crate) fn grpc<S, B>(router: Router, service: S) -> Router
where
    S: Service<Request, Response = http::Response<B>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    B: axum::body::HttpBody<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    router.route_service(&format!("/{}/{{*method}}", S::NAME), service)
}

/// Mounts what describes the services to clients that ask.
fn reflection(router: Router) -> Router {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(ax_proto::API_DESCRIPTORS)
            .register_encoded_file_descriptor_set(ax_proto::ax1::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let v1 = builder().build_v1().expect("the descriptors are generated");
    let alpha = builder().build_v1alpha().expect("the descriptors are generated");
    grpc(grpc(router, v1), alpha)
}

async fn no_route(request: Request) -> Response {
    let message = format!("there is no {}", request.uri().path());
    refuse(request.headers(), Error::new(Code::NoRoute, message))
}

async fn no_method(request: Request) -> Response {
    let message = format!("{} does not have the method {}", request.uri().path(), request.method());
    refuse(request.headers(), Error::new(Code::NoMethod, message))
}

/// Refuses what comes while the server stops.
async fn draining(State(stop): State<CancellationToken>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if stop.is_cancelled() && !ALWAYS.iter().any(|always| path.starts_with(always)) {
        return refuse(request.headers(), Error::new(Code::Stopping, "the server is stopping"));
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use http::{StatusCode, header};
    use tower::ServiceExt as _;

    #[tokio::test]
    async fn what_comes_while_the_server_stops_may_come_again_later() {
        let stop = CancellationToken::new();
        let router = Router::new()
            .fallback(|| async { "here" })
            .layer(from_fn_with_state(stop.clone(), draining));
        let ask = async |path: &str, kind: &str| {
            let request = Request::builder().uri(path).header("content-type", kind);
            let request = request.body(Body::empty()).unwrap();
            router.clone().oneshot(request).await.unwrap()
        };
        assert_eq!(ask("/v1/info", "").await.status(), StatusCode::OK);
        stop.cancel();
        let refused = ask("/v1/info", "").await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
        let refused = ask("/agentexecutor.v1.Sessions/Submit", "application/grpc").await;
        assert_eq!(refused.headers()["grpc-status"], "14");
        for path in ALWAYS {
            assert_eq!(ask(path, "").await.status(), StatusCode::OK, "{path}");
        }
    }
}
