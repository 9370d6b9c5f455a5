//! A gateway in front of one tool server, and a session that keeps nothing.

use crate::Outcome;
use ax_core::id::{Namespace, SessionId, SessionKey};
use ax_core::session::{self as core, EffectClass, StepKey};
use ax_gateway::{Config, Desk, Gateway, Listen, Quotas, Setup, Told};
use bytes::Bytes;
use futures::TryStreamExt as _;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// A gateway, and its route to the tool server.
pub(crate) struct Open {
    _gateway: Arc<Gateway>,
    pub(crate) url: String,
}

pub(crate) async fn open(upstream: &str) -> Outcome<Open> {
    let section = json!({"tools": [{
        "name": "suite",
        "url": upstream,
        "tools": [{"tool": "*", "effect": "idempotent"}],
    }]});
    let (frames, mut said) = mpsc::channel(64);
    let setup = Setup {
        config: Config::parse(&section)?,
        listen: Listen::default(),
        http: ax_gateway::connections()?,
        frames,
        may_act: Box::new(|| true),
        journal: Vec::new(),
        doubts: HashSet::new(),
        sent: Vec::new(),
        asks: HashMap::new(),
        scope: "default/1/1".into(),
        spawn: Arc::new(|_| Box::pin(async { Err(std::io::Error::other("no programs")) })),
        used: ax_gateway::Used::default(),
        rates: ax_gateway::Rates::default(),
        rated: String::new(),
        quotas: Quotas::default(),
        namespace: String::new(),
        session: SessionKey::new(Namespace::default(), SessionId(1)),
        desk: Desk::default(),
        trace: None,
        files: std::env::temp_dir(),
    };
    let gateway = Arc::new(Gateway::open(setup).await?);
    let session = Arc::downgrade(&gateway);
    drop(tokio::spawn(async move {
        while let Some(frame) = said.recv().await {
            if let (Some((key, told)), Some(gateway)) = (answer(frame), session.upgrade()) {
                gateway.tell(&key, told);
            }
        }
    }));
    let of_it = |(name, _): &&(String, String)| name == "AX_MCP_SUITE_URL";
    let url = gateway.environment().iter().find(of_it).map(|(_, url)| url.clone());
    Ok(Open { url: url.ok_or("the tool server has no route")?, _gateway: gateway })
}

/// Serves the route under an address without the key of the harness, which the suite would lose.
pub(crate) async fn serve(gateway: &Open) -> Outcome<String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = format!("http://{}/mcp", listener.local_addr()?);
    let (http, url) = (reqwest::Client::new(), gateway.url.clone());
    drop(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (http, url) = (http.clone(), url.clone());
            let service = service_fn(move |request| pass_on(http.clone(), url.clone(), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            drop(tokio::spawn(connection));
        }
    }));
    Ok(address)
}

/// Passes a request on, and the answer back as it comes.
async fn pass_on(
    http: reqwest::Client,
    url: String,
    request: Request<Incoming>,
) -> Outcome<Response<impl Body<Data = Bytes, Error = reqwest::Error>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let asked = http.request(head.method, url).headers(head.headers).body(body);
    let answer = asked.send().await?;
    let mut response = Response::builder().status(answer.status());
    if let Some(headers) = response.headers_mut() {
        headers.clone_from(answer.headers());
        headers.remove("transfer-encoding");
    }
    let body = StreamBody::new(answer.bytes_stream().map_ok(Frame::data));
    Ok(response.body(body)?)
}

/// What a session says.
fn answer(frame: core::Frame) -> Option<(StepKey, Told)> {
    match frame {
        core::Frame::StepBegin { step, effect: EffectClass::Once, .. } => {
            Some((step, Told::Granted))
        }
        core::Frame::StepEnd { step, .. } => Some((step, Told::Recorded)),
        _ => None,
    }
}
