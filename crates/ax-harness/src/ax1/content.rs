//! Contents of the AX wire, and parts of ours.

use ax_core::session::{Body, Part, PartKind};
use ax_proto::ax1::{self, content};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct};
use serde_json::{Map, Value, json};

/// The media type of a part that is a link.
const LINK: &str = "text/uri-list";
/// What the media type of a part ends in whose text is the content in base64.
const BASE64: &str = ";base64";
/// How deep a value may be nested.
const DEPTH_MAX: usize = 64;

/// What a content of the wire is for us.
#[derive(Clone, Debug, PartialEq)]
pub enum Received {
    /// A part of a message.
    Part(Part),
    /// A question, or the answer to one.
    Confirmation(ax1::ConfirmationContent),
    /// Nothing that is kept, such as a mark that only the model understands.
    Nothing,
}

/// Reads a content.
pub fn received(content: ax1::Content) -> Received {
    use content::Type;
    let part = match content.r#type {
        None => return Received::Nothing,
        Some(Type::Text(text)) => Part::text(text.text),
        Some(Type::Thought(thought)) => match thought_text(thought) {
            Some(text) => Part { kind: PartKind::Thought, ..Part::text(text) },
            None => return Received::Nothing,
        },
        Some(Type::Image(image)) => {
            let media_type = image_type(image.mime_type());
            let source = image.source.map(|source| match source {
                ax1::image_content::Source::Data(data) => Source::Data(data),
                ax1::image_content::Source::Uri(uri) => Source::Link(uri),
            });
            media(PartKind::Image, media_type, source)
        }
        Some(Type::Audio(audio)) => {
            let media_type = audio_type(audio.mime_type());
            let source = audio.source.map(|source| match source {
                ax1::audio_content::Source::Data(data) => Source::Data(data),
                ax1::audio_content::Source::Uri(uri) => Source::Link(uri),
            });
            media(PartKind::Audio, media_type, source)
        }
        Some(Type::Document(document)) => {
            let media_type = document_type(document.mime_type());
            let source = document.source.map(|source| match source {
                ax1::document_content::Source::Data(data) => Source::Data(data),
                ax1::document_content::Source::Uri(uri) => Source::Link(uri),
            });
            media(PartKind::Document, media_type, source)
        }
        Some(Type::Video(video)) => {
            let media_type = video_type(video.mime_type());
            let source = video.source.map(|source| match source {
                ax1::video_content::Source::Data(data) => Source::Data(data),
                ax1::video_content::Source::Uri(uri) => Source::Link(uri),
            });
            media(PartKind::Video, media_type, source)
        }
        Some(Type::ToolCall(call)) => tool_call(call),
        Some(Type::ToolResult(result)) => tool_result(result),
        Some(Type::Confirmation(confirmation)) => return Received::Confirmation(confirmation),
    };
    Received::Part(part)
}

/// Writes a part whose content is at hand.
pub fn sent(kind: PartKind, media_type: &str, name: &str, bytes: Vec<u8>) -> ax1::Content {
    use content::Type;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let plain = |bytes: Vec<u8>| Type::Text(ax1::TextContent { text: text(bytes) });
    let content = match kind {
        PartKind::Text => plain(bytes),
        PartKind::Thought => {
            let text = ax1::TextContent { text: text(bytes) };
            let text = ax1::thought_summary_content::Type::Text(text);
            let summary = vec![ax1::ThoughtSummaryContent { r#type: Some(text) }];
            Type::Thought(ax1::ThoughtContent { summary, ..Default::default() })
        }
        PartKind::ToolCall => match call_of(name, &bytes) {
            Some(call) => Type::ToolCall(call),
            None => plain(bytes),
        },
        PartKind::ToolResult => match result_of(name, &bytes) {
            Some(result) => Type::ToolResult(result),
            None => plain(bytes),
        },
        PartKind::Document if media_type.starts_with("text/") && media_type != LINK => plain(bytes),
        _ => file(kind, media_type, bytes),
    };
    ax1::Content { r#type: Some(content) }
}

/// Returns the media type and the bytes of a received part that is not text.
pub fn binary(part: &Part) -> Option<(String, Vec<u8>)> {
    let media_type = part.media_type.strip_suffix(BASE64)?;
    let Body::Text(text) = &part.body else { return None };
    Some((media_type.to_owned(), BASE64_STANDARD.decode(text).ok()?))
}

/// Who says a part of an agent's message.
pub const fn role(kind: PartKind) -> &'static str {
    match kind {
        PartKind::Thought | PartKind::ToolCall => "model",
        _ => "assistant",
    }
}

enum Source {
    Data(Vec<u8>),
    Link(String),
}

fn media(kind: PartKind, media_type: &str, source: Option<Source>) -> Part {
    let (media_type, text) = match source {
        Some(Source::Link(link)) => (LINK.to_owned(), link),
        Some(Source::Data(data)) if is_text(media_type) => match String::from_utf8(data) {
            Ok(text) => (media_type.to_owned(), text),
            Err(error) => encoded(media_type, error.as_bytes()),
        },
        Some(Source::Data(data)) => encoded(media_type, &data),
        None => encoded(media_type, &[]),
    };
    Part { kind, media_type, name: String::new(), body: Body::Text(text) }
}

fn encoded(media_type: &str, data: &[u8]) -> (String, String) {
    (format!("{media_type}{BASE64}"), BASE64_STANDARD.encode(data))
}

fn is_text(media_type: &str) -> bool {
    media_type.starts_with("text/") || media_type == "application/json"
}

fn file(kind: PartKind, media_type: &str, bytes: Vec<u8>) -> content::Type {
    let link = (media_type == LINK).then(|| String::from_utf8_lossy(&bytes).trim().to_owned());
    let (media_type, data) = match media_type.strip_suffix(BASE64) {
        Some(media_type) => (media_type, BASE64_STANDARD.decode(&bytes).unwrap_or(bytes)),
        None => (media_type, bytes),
    };
    match kind {
        PartKind::Image => {
            use ax1::image_content::Source;
            let source = Some(link.map_or(Source::Data(data), Source::Uri));
            let mime_type = image_number(media_type);
            let image = ax1::ImageContent { mime_type, source, ..Default::default() };
            content::Type::Image(image)
        }
        PartKind::Audio => {
            use ax1::audio_content::Source;
            let source = Some(link.map_or(Source::Data(data), Source::Uri));
            let mime_type = audio_number(media_type);
            let audio = ax1::AudioContent { mime_type, source, ..Default::default() };
            content::Type::Audio(audio)
        }
        PartKind::Video => {
            use ax1::video_content::Source;
            let source = Some(link.map_or(Source::Data(data), Source::Uri));
            let mime_type = video_number(media_type);
            let video = ax1::VideoContent { mime_type, source, ..Default::default() };
            content::Type::Video(video)
        }
        _ => {
            use ax1::document_content::Source;
            let source = Some(link.map_or(Source::Data(data), Source::Uri));
            let mime_type = document_number(media_type);
            content::Type::Document(ax1::DocumentContent { mime_type, source })
        }
    }
}

fn thought_text(thought: ax1::ThoughtContent) -> Option<String> {
    let texts = thought.summary.into_iter().filter_map(|summary| match summary.r#type {
        Some(ax1::thought_summary_content::Type::Text(text)) => Some(text.text),
        None => None,
    });
    let text = texts.collect::<Vec<_>>().join("\n");
    (!text.is_empty()).then_some(text)
}

fn tool_call(call: ax1::ToolCallContent) -> Part {
    let function = call.r#type.map(|ax1::tool_call_content::Type::FunctionCall(call)| call);
    let function = function.unwrap_or_default();
    let arguments = object(function.arguments);
    let value = json!({"id": call.id, "name": function.name, "arguments": arguments});
    json_part(PartKind::ToolCall, function.name, &value)
}

fn tool_result(result: ax1::ToolResultContent) -> Part {
    let function =
        result.r#type.map(|ax1::tool_result_content::Type::FunctionResult(function)| function);
    let function = function.unwrap_or_default();
    let response = function
        .result
        .map(|ax1::function_result_content::Result::Response(response)| object(Some(response)));
    let value = json!({"id": result.call_id, "name": function.name, "result": response});
    json_part(PartKind::ToolResult, function.name, &value)
}

fn json_part(kind: PartKind, name: String, value: &Value) -> Part {
    let body = Body::Text(value.to_string());
    Part { kind, media_type: "application/json".into(), name, body }
}

fn call_of(name: &str, bytes: &[u8]) -> Option<ax1::ToolCallContent> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let arguments = value.get("arguments").or_else(|| value.get("input"));
    let function = ax1::FunctionCallContent {
        name: text_of(&value, "name").unwrap_or_else(|| name.to_owned()),
        arguments: arguments.map(structure),
    };
    Some(ax1::ToolCallContent {
        id: text_of(&value, "id").unwrap_or_default(),
        r#type: Some(ax1::tool_call_content::Type::FunctionCall(function)),
        ..Default::default()
    })
}

fn result_of(name: &str, bytes: &[u8]) -> Option<ax1::ToolResultContent> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let response = value.get("result").filter(|result| !result.is_null()).map(structure);
    let function = ax1::FunctionResultContent {
        name: text_of(&value, "name").unwrap_or_else(|| name.to_owned()),
        result: response.map(ax1::function_result_content::Result::Response),
    };
    Some(ax1::ToolResultContent {
        call_id: text_of(&value, "id").unwrap_or_default(),
        r#type: Some(ax1::tool_result_content::Type::FunctionResult(function)),
        ..Default::default()
    })
}

fn text_of(value: &Value, field: &str) -> Option<String> {
    value.get(field)?.as_str().map(str::to_owned)
}

fn object(from: Option<Struct>) -> Value {
    let fields = from.unwrap_or_default().fields;
    fields.into_iter().map(|(name, value)| (name, json_of(value))).collect::<Map<_, _>>().into()
}

fn json_of(value: prost_types::Value) -> Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => value.into(),
        Some(Kind::NumberValue(value)) => number(value),
        Some(Kind::StringValue(text)) => text.into(),
        Some(Kind::StructValue(fields)) => object(Some(fields)),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(json_of).collect(),
    }
}

/// The wire has only floating point; a whole number is written as one.
fn number(value: f64) -> Value {
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= WHOLE_MAX {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and small enough")]
        let whole = value as i64;
        return whole.into();
    }
    value.into()
}

/// Any value as a map; one that is none under the name `value`.
fn structure(value: &Value) -> Struct {
    match (value, wire(value, DEPTH_MAX).kind) {
        (Value::Object(_), Some(Kind::StructValue(fields))) => fields,
        (_, kind) => {
            let value = prost_types::Value { kind };
            Struct { fields: [("value".to_owned(), value)].into() }
        }
    }
}

fn wire(value: &Value, depth: usize) -> prost_types::Value {
    let kind = match value {
        _ if depth == 0 => Kind::StringValue(value.to_string()),
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(values) => {
            let values = values.iter().map(|value| wire(value, depth - 1)).collect();
            Kind::ListValue(ListValue { values })
        }
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.clone(), wire(value, depth - 1)));
            Kind::StructValue(Struct { fields: fields.collect() })
        }
    };
    prost_types::Value { kind: Some(kind) }
}

macro_rules! media_types {
    ($to:ident, $from:ident, $kind:ty, $any:literal, $($name:ident = $media_type:literal,)*) => {
        fn $to(kind: $kind) -> &'static str {
            match kind {
                <$kind>::TypeUnspecified => $any,
                $(<$kind>::$name => $media_type,)*
            }
        }

        fn $from(media_type: &str) -> i32 {
            let kind = match media_type {
                $($media_type => <$kind>::$name,)*
                _ => <$kind>::TypeUnspecified,
            };
            kind.into()
        }
    };
}

media_types! {
    image_type, image_number, ax1::image_content::MimeType, "application/octet-stream",
    TypePng = "image/png", TypeJpeg = "image/jpeg", TypeWebp = "image/webp",
    TypeHeic = "image/heic", TypeHeif = "image/heif", TypeGif = "image/gif",
    TypeBmp = "image/bmp", TypeTiff = "image/tiff",
}

media_types! {
    audio_type, audio_number, ax1::audio_content::MimeType, "application/octet-stream",
    TypeWav = "audio/wav", TypeMp3 = "audio/mp3", TypeAiff = "audio/aiff", TypeAac = "audio/aac",
    TypeOgg = "audio/ogg", TypeFlac = "audio/flac", TypeMpeg = "audio/mpeg",
    TypeM4a = "audio/m4a", TypeL16 = "audio/l16", TypeS16le = "audio/s16le",
    TypeOpus = "audio/opus", TypeAlaw = "audio/alaw", TypeMulaw = "audio/mulaw",
}

media_types! {
    document_type, document_number, ax1::document_content::MimeType, "application/octet-stream",
    TypePdf = "application/pdf", TypeJson = "application/json", TypePython = "text/x-python",
}

media_types! {
    video_type, video_number, ax1::video_content::MimeType, "application/octet-stream",
    TypeMp4 = "video/mp4", TypeMpeg = "video/mpeg", TypeMpg = "video/mpg", TypeMov = "video/mov",
    TypeAvi = "video/avi", TypeXFlv = "video/x-flv", TypeWebm = "video/webm",
    TypeWmv = "video/wmv", Type3gpp = "video/3gpp",
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(content: content::Type) {
        let content = ax1::Content { r#type: Some(content) };
        let Received::Part(part) = received(content.clone()) else { panic!("{content:?}") };
        let Body::Text(text) = part.body else { panic!("a text") };
        let back = sent(part.kind, &part.media_type, &part.name, text.into_bytes());
        assert_eq!(back, content);
    }

    #[test]
    fn contents_come_back_as_they_were() {
        use content::Type;
        there_and_back(Type::Text(ax1::TextContent { text: "hé".into() }));
        let text = ax1::thought_summary_content::Type::Text(ax1::TextContent { text: "x".into() });
        let summary = vec![ax1::ThoughtSummaryContent { r#type: Some(text) }];
        there_and_back(Type::Thought(ax1::ThoughtContent { summary, ..Default::default() }));
        let source = Some(ax1::image_content::Source::Data(vec![0, 255, 1]));
        let mime_type = ax1::image_content::MimeType::TypePng.into();
        let image = Type::Image(ax1::ImageContent { mime_type, source, resolution: 0 });
        let Received::Part(part) = received(ax1::Content { r#type: Some(image.clone()) }) else {
            panic!("a part");
        };
        assert_eq!(binary(&part), Some(("image/png".into(), vec![0, 255, 1])));
        there_and_back(image);
        let source = Some(ax1::document_content::Source::Data(b"{}".to_vec()));
        let mime_type = ax1::document_content::MimeType::TypeJson.into();
        there_and_back(Type::Document(ax1::DocumentContent { mime_type, source }));
        let arguments = json!({"a": [1, 2.5, null, true, "x", {"b": {}}]});
        let function =
            ax1::FunctionCallContent { name: "pay".into(), arguments: Some(structure(&arguments)) };
        there_and_back(Type::ToolCall(ax1::ToolCallContent {
            id: "c1".into(),
            r#type: Some(ax1::tool_call_content::Type::FunctionCall(function)),
            ..Default::default()
        }));
        let response = structure(&json!({"ok": true}));
        let function = ax1::FunctionResultContent {
            name: "pay".into(),
            result: Some(ax1::function_result_content::Result::Response(response)),
        };
        there_and_back(Type::ToolResult(ax1::ToolResultContent {
            call_id: "c1".into(),
            r#type: Some(ax1::tool_result_content::Type::FunctionResult(function)),
            ..Default::default()
        }));
    }

    #[test]
    fn numbers_and_depth_are_kept_in_bounds() {
        assert_eq!(number(3.0), json!(3));
        assert_eq!(number(-0.5), json!(-0.5));
        assert_eq!(number(f64::NAN), Value::Null);
        let mut deep = json!(1);
        for _ in 0..200 {
            deep = json!([deep]);
        }
        let Value::Object(fields) = object(Some(structure(&deep))) else { panic!("a map") };
        assert_eq!(fields.len(), 1);
    }
}
