//! Logs on standard error: text for a person at a terminal, else one JSON object a line.
//!
//! A line carries the ids of session, execution and attempt, never what they contain. A field that
//! is named like a secret is not written, whoever writes it.

use crate::config::Config;
use crate::time::{now, rfc3339};
use serde_json::{Map, Value};
use std::fmt;
use std::io::Write as _;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt as text, reload};

/// Fields that are never written.
const SECRETS: [&str; 6] =
    ["authorization", "token", "secret", "password", "api_key", "credential"];

/// The log of this process.
#[derive(Clone, Debug)]
pub(crate) struct Logs {
    filter: reload::Handle<EnvFilter, Registry>,
    /// What is logged unless a setting says.
    level: &'static str,
}

impl Logs {
    /// Begins to log; `level` holds unless the configuration says.
    pub(crate) fn start(config: &Config, level: &'static str, is_terminal: bool) -> Self {
        let (filter, handle) = reload::Layer::new(Self::filter(config, level));
        let is_json = match config.text("log.format") {
            Some("json") => true,
            Some("text") => false,
            _ => !is_terminal && level == "info",
        };
        let (json, plain) = if is_json {
            (Some(Json), None)
        } else {
            let plain = text::layer().with_ansi(is_terminal).with_writer(std::io::stderr);
            (None, Some(plain))
        };
        let registry = tracing_subscriber::registry().with(filter).with(json).with(plain);
        // Fails only if there is one already, which then is as good.
        drop(registry.try_init());
        Self { filter: handle, level }
    }

    fn filter(config: &Config, level: &str) -> EnvFilter {
        match config.text("log.level") {
            Some(level) => EnvFilter::new(level),
            // What a library says of each connection is not news.
            None => EnvFilter::new(format!("{level},rmcp=warn")),
        }
    }

    /// Logs from now on what the configuration says.
    pub(crate) fn reload(&self, config: &Config) {
        if let Err(error) = self.filter.reload(Self::filter(config, self.level)) {
            tracing::error!(%error, "the log level was not changed");
        }
    }
}

/// Writes events as JSON, with the fields of the spans they are in.
#[derive(Clone, Copy, Debug)]
struct Json;

/// The fields of a span, kept with it.
struct Fields(Map<String, Value>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Json {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Map::new();
            attributes.record(&mut Writer(&mut fields));
            span.extensions_mut().insert(Fields(fields));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(Fields(fields)) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(&mut Writer(fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut line = Map::new();
        line.insert("at".into(), rfc3339(now().millis).into());
        line.insert("level".into(), event.metadata().level().as_str().into());
        line.insert("target".into(), event.metadata().target().into());
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(Fields(fields)) = span.extensions().get::<Fields>() {
                line.extend(fields.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
        }
        event.record(&mut Writer(&mut line));
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        // A log that nobody takes stops nothing.
        drop(std::io::stderr().lock().write_all(text.as_bytes()));
    }
}

/// Writes fields into a JSON object.
struct Writer<'a>(&'a mut Map<String, Value>);

impl Writer<'_> {
    fn put(&mut self, field: &Field, value: Value) {
        let name = field.name();
        if !SECRETS.iter().any(|secret| name.contains(secret)) {
            self.0.insert(name.to_owned(), value);
        }
    }
}

impl Visit for Writer<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}
