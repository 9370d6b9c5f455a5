//! One request, from its head to the response.

use crate::answer::{Answer, tokens};
use crate::ask::{Ask, str_of};
use crate::body::{self, Refusal};
use crate::canonical;
use crate::deliver::{self, Source};
use crate::fault::Fault;
use crate::ledger::{self, Entry, Kind, Open, Status};
use crate::plan::{self, Headers, Plan};
use crate::prompt::excerpt;
use crate::script::Script;
use crate::server::Server;
use crate::stored::Production;
use crate::wire::{self, Format, Frame, Route};
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, Method, Uri, header};
use axum::response::Response;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

/// How much of a prompt is in the ledger, in characters.
const PROMPT_CHARS_MAX: usize = 200;

/// What of the head of a request is looked at.
struct Head {
    uri: Uri,
    headers: HeaderMap,
    query: HashMap<String, String>,
}

impl Headers for HeaderMap {
    fn get(&self, name: &str) -> Option<String> {
        Some(Self::get(self, name)?.to_str().ok()?.to_owned())
    }
}

/// Answers a request.
pub(crate) async fn handle(State(server): State<Arc<Server>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let query = Query::try_from_uri(&parts.uri).map(|Query(query)| query).unwrap_or_default();
    let head = Head { uri: parts.uri, headers: parts.headers, query };
    let path = head.uri.path();
    if parts.method == Method::HEAD || (parts.method == Method::GET && path == "/") {
        return response(200, Body::empty());
    }
    if path.starts_with("/_") {
        return control(&server, &parts.method, &head, body).await;
    }
    match wire::route(&parts.method, path) {
        Some(Route::Generate { format, model, stream }) => {
            let read = body::json(&head.headers, body).await;
            let made = match read {
                Ok(body) => generate(&server, &head, body, (format, model, stream)).await,
                Err(refusal) => Err(refusal),
            };
            made.unwrap_or_else(|refusal| refuse(format, refusal))
        }
        Some(Route::Count { format, model }) => {
            let read = body::json(&head.headers, body).await;
            let counted = read.map(|body| count(&server, format, model, &body));
            counted.unwrap_or_else(|refusal| refuse(format, refusal))
        }
        Some(Route::Fetch { format, id }) => {
            let fetched = fetch(&server, &head, format, &id).await;
            fetched.unwrap_or_else(|refusal| refuse(format, refusal))
        }
        Some(Route::Cancel { format, id }) => {
            cancel(&server, &head, format, &id).unwrap_or_else(|refusal| refuse(format, refusal))
        }
        Some(Route::Delete { format, id }) => {
            delete(&server, &head, format, &id).unwrap_or_else(|refusal| refuse(format, refusal))
        }
        Some(Route::Models { id }) => plain(200, &wire::models(path, &head.headers, id.as_deref())),
        None => refuse(Format::Chat, (404, format!("nothing is at {} {path}", parts.method))),
    }
}

/// Lets a test look into the server and steer it.
async fn control(server: &Server, method: &Method, head: &Head, body: Body) -> Response {
    match (method.as_str(), head.uri.path()) {
        ("GET", "/_ledger") => {
            let after = head.query.get("after").and_then(|after| after.parse().ok()).unwrap_or(0);
            let entries = server.ledger.entries(after);
            plain(200, &json!({"totals": ledger::totals(&entries), "entries": entries}))
        }
        ("GET", "/_script") => plain(200, &json!(*server.script())),
        ("POST", "/_reset") => {
            server.reset();
            plain(200, &json!({}))
        }
        ("POST", "/_script") => {
            let text = match body::text(&head.headers, body).await {
                Ok(text) => text,
                Err((status, message)) => return plain(status, &json!({"error": message})),
            };
            match Script::from_json(&String::from_utf8_lossy(&text)) {
                Ok(script) => {
                    let count = script.turns.len();
                    server.set_script(script);
                    plain(200, &json!({"turn_count": count}))
                }
                Err(error) => {
                    let cause = error.source().map(|source| format!(": {source}"));
                    let message = format!("{error}{}", cause.unwrap_or_default());
                    plain(400, &json!({"error": message}))
                }
            }
        }
        _ => plain(404, &json!({"error": "there is no such control"})),
    }
}

/// The answer of the model, the only thing that costs.
async fn generate(
    server: &Arc<Server>,
    head: &Head,
    body: Value,
    (format, model, stream): (Format, Option<String>, Option<bool>),
) -> Result<Response, Refusal> {
    let before = match str_of(&body, format.previous_key()) {
        "" => Vec::new(),
        id => {
            let previous = server.store.get(id).filter(|made| made.answer.ask.format == format);
            let missing = || (404, format!("{id} is not stored"));
            previous.ok_or_else(missing)?.conversation()
        }
    };
    let fault = demanded_fault(head).map_err(|message| (400, message))?;
    let ask = format.ask(&body, before, model, stream);
    let text = canonical::text(&body);
    let request_hash = canonical::hash(&body);
    let script = server.script();
    let (seq, (plan, seed)) = server.ledger.begin(&request_hash, |occurrence, fitted| {
        let mut plan = plan::plan(&script, fitted, &ask, &head.headers, &text);
        plan.fault = fault.unwrap_or(plan.fault);
        let seed = format!("{request_hash} {occurrence}");
        (entry(Kind::Generate, &ask, &request_hash, &plan), (plan, seed))
    });
    let open = Open { ledger: Arc::clone(&server.ledger), seq, becomes: Status::Cut };
    let fault = plan.fault.clone();
    let latency = fault.latency_millis.map_or(plan.latency, Duration::from_millis);
    let request_id = format.request_id(&seed);
    if let Some(status) = fault.status {
        tokio::time::sleep(latency).await;
        let message = fault.message.unwrap_or_else(|| format!("status {status} on demand"));
        let mut refused = refuse(format, (status, message));
        refused.headers_mut().extend(request_id);
        if let Some(seconds) = fault.retry_after_seconds {
            refused.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        return Ok(refused);
    }
    let answer = Answer {
        ask,
        seed,
        parts: plan.parts,
        outcome: plan.outcome,
        usage: plan.usage,
        chunk_chars: plan.chunk_chars,
        body,
    };
    let is_array = format == Format::Gemini && head.query.get("alt").is_none_or(|alt| alt != "sse");
    let mut frames = format.frames(&answer);
    if is_array {
        frames = array(frames);
    }
    let production = Production::new(answer, frames, latency, plan.chunk_delay);
    if production.answer.body.get("store").is_none_or(|store| store != false)
        && let Some(id) = format.stored_id(&production.answer)
    {
        server.store.put(id, Arc::clone(&production));
    }
    let mut response = deliver(production, fault, open, is_array).await;
    response.headers_mut().extend(request_id);
    Ok(response)
}

/// Sends an answer in the way that its request wants.
async fn deliver(made: Arc<Production>, fault: Fault, open: Open, is_array: bool) -> Response {
    if fault.hang_after_chunks == Some(0) {
        return std::future::pending().await;
    }
    let format = made.answer.ask.format;
    let background =
        made.answer.body.get("background").is_some_and(|background| background == true);
    let kind = if made.answer.ask.stream && !is_array { EVENTS } else { JSON };
    let source = if made.answer.ask.stream {
        // The head waits for the first event, as it does when a model has not begun.
        drop(made.frame(0).await);
        Source::Events { production: made, next: 0 }
    } else {
        if !background {
            made.done().await;
        }
        let whole = format.whole(&made.answer, made.stage());
        Source::Whole(Some(whole.to_string().into()))
    };
    let mut response = response(200, deliver::body(source, fault, open));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

fn count(server: &Server, format: Format, model: Option<String>, body: &Value) -> Response {
    let ask = format.ask(body, Vec::new(), model, Some(false));
    let (hash, text) = (canonical::hash(body), canonical::text(body));
    server.ledger.begin(&hash, |_, _| (decided(Kind::Count, ask, &hash, 200), ()));
    plain(200, &format.count(tokens(&text)))
}

/// A stored answer: as it stands, or its stream from any event on.
async fn fetch(
    server: &Arc<Server>,
    head: &Head,
    format: Format,
    id: &str,
) -> Result<Response, Refusal> {
    let made = stored(server, head, Kind::Fetch, format, id)?;
    if head.query.get("stream").is_none_or(|stream| stream != "true") {
        return Ok(plain(200, &format.whole(&made.answer, made.stage())));
    }
    let next = match head.query.get(format.cursor_key()) {
        None => 0,
        Some(cursor) => {
            let number = cursor.strip_prefix("e-").unwrap_or(cursor).parse::<usize>();
            let number = number.map_err(|_| (400, format!("{cursor:?} is not an event")))?;
            // The first event is `e-1` in one format and 0 in the other.
            if format == Format::Interactions { number } else { number + 1 }
        }
    };
    let fault = demanded_fault(head).map_err(|message| (400, message))?.unwrap_or_default();
    let hash = hash_of_path(head);
    let ask = Ask { stream: true, items: Vec::new(), ..made.answer.ask.clone() };
    let entry = Entry { status: Status::Open, ..decided(Kind::Fetch, ask, &hash, 200) };
    let (seq, ()) = server.ledger.begin(&hash, |_, _| (entry, ()));
    let open = Open { ledger: Arc::clone(&server.ledger), seq, becomes: Status::Cut };
    let source = Source::Events { production: made, next };
    let mut response = response(200, deliver::body(source, fault, open));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(EVENTS));
    Ok(response)
}

fn cancel(server: &Server, head: &Head, format: Format, id: &str) -> Result<Response, Refusal> {
    let made = stored(server, head, Kind::Cancel, format, id)?;
    made.cancel();
    Ok(plain(200, &format.whole(&made.answer, made.stage())))
}

fn delete(server: &Server, head: &Head, format: Format, id: &str) -> Result<Response, Refusal> {
    drop(stored(server, head, Kind::Delete, format, id)?);
    server.store.remove(id);
    Ok(match format {
        Format::Responses => plain(200, &json!({"id": id, "object": "response", "deleted": true})),
        _ => plain(200, &json!({})),
    })
}

/// Finds a stored answer, and puts the request into the ledger unless it is for a stream.
fn stored(
    server: &Server,
    head: &Head,
    kind: Kind,
    format: Format,
    id: &str,
) -> Result<Arc<Production>, Refusal> {
    let made = server.store.get(id).filter(|made| made.answer.ask.format == format);
    let model = made.as_ref().map(|made| made.answer.ask.model.clone()).unwrap_or_default();
    let is_stream = head.query.get("stream").is_some_and(|stream| stream == "true");
    if made.is_none() || !is_stream {
        let hash = hash_of_path(head);
        let ask = Ask { format, model, stream: false, items: Vec::new() };
        let status = if made.is_some() { 200 } else { 404 };
        server.ledger.begin(&hash, |_, _| (decided(kind, ask, &hash, status), ()));
    }
    made.ok_or_else(|| (404, format!("{id} is not stored")))
}

fn hash_of_path(head: &Head) -> String {
    canonical::hash(&Value::from(head.uri.to_string()))
}

/// The entry of a request that is answered by the model; the ledger completes it.
fn entry(kind: Kind, ask: &Ask, hash: &str, plan: &Plan) -> Entry {
    let refused = plan.fault.status;
    let paid = |tokens| if refused.is_none() { tokens } else { 0 };
    Entry {
        seq: 0,
        kind,
        format: ask.format,
        model: ask.model.clone(),
        stream: ask.stream,
        request_hash: hash.to_owned(),
        occurrence: 0,
        turn: ask.turn(),
        prompt: excerpt(&ask.last_user_text(), PROMPT_CHARS_MAX).to_owned(),
        script_turn: plan.turn,
        script_fitted: plan.fitted.clone(),
        status: if refused.is_some() { Status::Refused } else { Status::Open },
        http_status: refused.unwrap_or(200),
        input_tokens: paid(plan.usage.input_tokens),
        output_tokens: paid(plan.usage.output_tokens),
    }
}

/// The entry of a request that costs nothing and is decided at once.
fn decided(kind: Kind, ask: Ask, hash: &str, http_status: u16) -> Entry {
    Entry {
        seq: 0,
        kind,
        format: ask.format,
        turn: ask.turn(),
        prompt: excerpt(&ask.last_user_text(), PROMPT_CHARS_MAX).to_owned(),
        model: ask.model,
        stream: ask.stream,
        request_hash: hash.to_owned(),
        occurrence: 0,
        script_turn: None,
        script_fitted: Vec::new(),
        status: if http_status == 200 { Status::Answered } else { Status::Refused },
        http_status,
        input_tokens: 0,
        output_tokens: 0,
    }
}

/// The fault that the request itself asks for.
fn demanded_fault(head: &Head) -> Result<Option<Fault>, String> {
    let header = Headers::get(&head.headers, "x-fake-fault");
    let text = header.or_else(|| head.query.get("fake_fault").cloned());
    let fault = text.map(|text| Fault::from_json(&text)).transpose();
    fault.map_err(|reason| format!("the fault that is asked for is wrong: {reason}"))
}

/// Turns a stream of events into a list that is streamed, as Gemini does unless asked for events.
fn array(frames: Vec<Frame>) -> Vec<Frame> {
    let last = frames.len() - 1;
    let element = |(index, frame): (usize, Frame)| {
        let text = String::from_utf8_lossy(&frame.bytes);
        let data = text.trim_start_matches("data: ").trim_end();
        let before = if index == 0 { "[" } else { ",\r\n" };
        let after = if index == last { "]" } else { "" };
        Frame { bytes: format!("{before}{data}{after}").into() }
    };
    frames.into_iter().enumerate().map(element).collect()
}

const EVENTS: &str = "text/event-stream";
const JSON: &str = "application/json";

fn refuse(format: Format, (status, message): Refusal) -> Response {
    plain(status, &format.error(status, &message))
}

fn plain(status: u16, body: &Value) -> Response {
    let mut response = response(status, Body::from(body.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(JSON));
    response
}

fn response(status: u16, body: Body) -> Response {
    let response = Response::builder().status(status).body(body);
    response.expect("statuses are checked, and there are no headers yet")
}
