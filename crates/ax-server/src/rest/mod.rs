//! The HTTP side: routes that hand their requests on, JSON in the mapping of protocol buffers.
//!
//! A request is put together from the path, the query and the body, and read as the message that
//! the gRPC method of the same name takes. [`ROUTES`] is the table, and the OpenAPI document says
//! what follows from it.

mod content;
mod descriptors;
pub mod openapi;
mod query;
mod sse;

pub(crate) use content::too_slow;
pub(crate) use sse::{broken_off, last_event_id};

use crate::api::Api;
use crate::caller::Asker;
use crate::status::response;
use ax_engine::{Code, Error};
use axum::Router;
use axum::extract::{RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use http::header;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// How a request comes and how it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Parameters only, answered by a message.
    Ask,
    /// A message, answered by a message.
    Send,
    /// Answered by server-sent events.
    Follow,
    /// Answered by a content.
    Download,
    /// A content, answered by a message.
    Upload,
}

/// A route: which method of the API it is.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) rpc: &'static str,
    pub(crate) form: Form,
}

const fn route(form: Form, method: &'static str, path: &'static str, rpc: &'static str) -> Route {
    Route { method, path, rpc, form }
}

/// Every route.
pub(crate) const ROUTES: &[Route] = &[
    route(Form::Send, "POST", "/v1/inputs", "Submit"),
    route(Form::Send, "POST", "/v1/sessions/{session}/inputs", "Submit"),
    route(Form::Ask, "GET", "/v1/sessions", "ListSessions"),
    route(Form::Ask, "GET", "/v1/sessions/{session}", "GetSession"),
    route(Form::Send, "PATCH", "/v1/sessions/{session}", "RenameSession"),
    route(Form::Ask, "DELETE", "/v1/sessions/{session}", "DeleteSession"),
    route(Form::Ask, "GET", "/v1/sessions/{session}/events", "ListEvents"),
    route(Form::Follow, "GET", "/v1/sessions/{session}/follow", "Follow"),
    route(Form::Send, "POST", "/v1/sessions/{session}/answers", "Answer"),
    route(Form::Send, "POST", "/v1/sessions/{session}/signals", "Signal"),
    route(Form::Send, "POST", "/v1/sessions/{session}/cancel", "Cancel"),
    route(Form::Send, "POST", "/v1/sessions/{session}/checkpoints", "Checkpoint"),
    route(Form::Send, "POST", "/v1/sessions/{session}/branches", "Branch"),
    route(Form::Send, "POST", "/v1/sessions/{session}/records", "Record"),
    route(Form::Ask, "GET", "/v1/sessions/{session}/records", "ListRecords"),
    route(Form::Download, "GET", "/v1/sessions/{session}/archive", "Export"),
    route(Form::Upload, "POST", "/v1/archives", "Import"),
    route(Form::Ask, "GET", "/v1/agents", "ListAgents"),
    route(Form::Send, "POST", "/v1/agents", "ApplyAgent"),
    route(Form::Ask, "GET", "/v1/agents/{agent}", "GetAgent"),
    route(Form::Ask, "DELETE", "/v1/agents/{agent}", "DeleteAgent"),
    route(Form::Send, "POST", "/v1/manifests/validate", "ValidateAgent"),
    route(Form::Upload, "POST", "/v1/blobs", "WriteBlob"),
    route(Form::Download, "GET", "/v1/blobs/{id}", "ReadBlob"),
    route(Form::Ask, "GET", "/v1/usage", "GetUsage"),
    route(Form::Ask, "GET", "/v1/info", "GetInfo"),
    route(Form::Send, "POST", "/v1/shutdown", "Shutdown"),
];

/// Reads a query as every route does; for `ax-fuzz`. Fails if none takes it.
pub(crate) fn decodes_query(text: &str) -> Result<(), Error> {
    let mut taken = Err(Error::invalid("no route takes it"));
    for route in ROUTES {
        let read = query::read(route, text).map(drop);
        if taken.is_err() {
            taken = read;
        }
    }
    taken
}

/// The routes with what carries them out.
pub(crate) fn routes(api: Api) -> Router {
    routes_where(api, |_| true).route("/v1/openapi.json", axum::routing::get(document))
}

/// The routes of some methods only.
pub(crate) fn routes_of(api: Api, methods: &[&str]) -> Router {
    routes_where(api, |route| methods.contains(&route.rpc))
}

fn routes_where(api: Api, wanted: impl Fn(&Route) -> bool) -> Router {
    let mut router = Router::new();
    for route in ROUTES.iter().filter(|route| wanted(route)) {
        router = router.route(route.path, handler(route));
    }
    router.with_state(api)
}

fn handler(route: &'static Route) -> MethodRouter<Api> {
    match route.rpc {
        "Submit" => unary(route, Api::submit),
        "ListSessions" => unary(route, Api::list_sessions),
        "GetSession" => unary(route, Api::get_session),
        "RenameSession" => unary(route, Api::rename_session),
        "DeleteSession" => unary(route, Api::delete_session),
        "ListEvents" => unary(route, Api::list_events),
        "Answer" => unary(route, Api::answer),
        "Signal" => unary(route, Api::signal),
        "Cancel" => unary(route, Api::cancel),
        "Checkpoint" => unary(route, Api::checkpoint),
        "Branch" => unary(route, Api::branch),
        "Record" => unary(route, Api::record),
        "ListRecords" => unary(route, Api::list_records),
        "ListAgents" => unary(route, Api::list_agents),
        "ApplyAgent" => unary(route, Api::apply_agent),
        "GetAgent" => unary(route, Api::get_agent),
        "DeleteAgent" => unary(route, Api::delete_agent),
        "ValidateAgent" => unary(route, Api::validate_agent),
        "GetUsage" => unary(route, Api::get_usage),
        "GetInfo" => unary(route, Api::get_info),
        "Shutdown" => unary(route, Api::shutdown),
        "Follow" => other(route, sse::follow),
        "Export" => other(route, content::export),
        "Import" => other(route, content::import),
        "ReadBlob" => other(route, content::read_blob),
        "WriteBlob" => other(route, content::write_blob),
        rpc => unreachable!("{rpc} has no handler"),
    }
}

fn filter(route: &Route) -> MethodFilter {
    match route.method {
        "GET" => MethodFilter::GET,
        "POST" => MethodFilter::POST,
        "PATCH" => MethodFilter::PATCH,
        _ => MethodFilter::DELETE,
    }
}

/// A request that is answered by one message.
fn unary<Q, A, F, C>(route: &'static Route, carry_out: C) -> MethodRouter<Api>
where
    Q: DeserializeOwned + Send + 'static,
    A: Serialize + 'static,
    F: Future<Output = Result<A, Error>> + Send,
    C: FnOnce(Api, Asker, Q) -> F + Clone + Send + Sync + 'static,
{
    let handle = move |State(api): State<Api>, params: Params, request: Request| async move {
        let (parts, body) = request.into_parts();
        let carried = async {
            let asker = Asker::of(&parts.extensions, &parts.headers)?;
            let body = match route.form {
                Form::Send => content::json(&parts.headers, body, api.body_pause_max()).await?,
                _ => Map::new(),
            };
            let request = message(route, &parts, params, body)?;
            carry_out(api, asker, request).await
        };
        match carried.await {
            Ok(answer) => json(&answer),
            Err(error) => response(&error),
        }
    };
    on(filter(route), handle)
}

/// A request that is carried out in a way of its own.
fn other<F, C>(route: &'static Route, carry_out: C) -> MethodRouter<Api>
where
    F: Future<Output = Result<Response, Error>> + Send,
    C: FnOnce(Call) -> F + Clone + Send + Sync + 'static,
{
    let handle = move |State(api): State<Api>, params: Params, request: Request| async move {
        let (parts, body) = request.into_parts();
        let carried = async {
            let asker = Asker::of(&parts.extensions, &parts.headers)?;
            carry_out(Call { api, asker, route, parts, params, body }).await
        };
        carried.await.unwrap_or_else(|error| response(&error))
    };
    on(filter(route), handle)
}

type Params = Result<RawPathParams, axum::extract::rejection::RawPathParamsRejection>;

/// A request on its way.
#[derive(Debug)]
struct Call {
    api: Api,
    asker: Asker,
    route: &'static Route,
    parts: Parts,
    params: Params,
    body: axum::body::Body,
}

/// Puts a request together.
fn message<Q: DeserializeOwned>(
    route: &Route,
    parts: &Parts,
    params: Params,
    mut fields: Map<String, Value>,
) -> Result<Q, Error> {
    let params = params.map_err(|error| Error::invalid(error.body_text()))?;
    let given = params.iter().map(|(name, value)| (name.to_owned(), Value::from(value)));
    let given = given.collect::<Vec<_>>();
    let query = query::read(route, parts.uri.query().unwrap_or_default())?;
    for (name, value) in given.into_iter().chain(query) {
        let other = fields.insert(name.clone(), value);
        if other.is_some_and(|other| Some(&other) != fields.get(&name)) {
            return Err(Error::invalid(format!("the request says {name} twice, and differently")));
        }
    }
    serde_json::from_value(Value::Object(fields))
        .map_err(|error| Error::invalid(format!("the request is malformed: {error}")))
}

/// Answers by a message.
fn json(answer: &impl Serialize) -> Response {
    match serde_json::to_vec(answer) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => {
            let message = "the answer cannot be written as JSON";
            response(&Error::new(Code::Internal, message).caused_by(&error))
        }
    }
}

async fn document() -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (headers, openapi::text()).into_response()
}
