//! Reading the value of a setting, from the file or from words.

use super::setting::{Kind, Setting};
use ax_engine::manifest::duration_millis;
use ax_engine::manifest::yaml::{Node, Value as Yaml};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use tracing_subscriber::EnvFilter;

/// The longest text, in bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Reads the value of a setting from the file, which is in `dir`.
pub(super) fn from_node(setting: &Setting, node: &Node, dir: &Path) -> Result<Value, String> {
    let wrong = || format!("must be a {}, not {}", setting.kind.name(), node.what());
    match (setting.kind, &node.value) {
        (Kind::Bool, Yaml::Bool(value)) => Ok((*value).into()),
        (Kind::Number(..), Yaml::Number(number)) => from_text(setting, &number.to_string(), dir),
        (Kind::Texts | Kind::Addresses, Yaml::List(items)) => {
            let text = |item: &Node| match &item.value {
                Yaml::Text(text) if !text.contains(',') => Some(text.clone()),
                _ => None,
            };
            let texts: Option<Vec<_>> = items.iter().map(text).collect();
            from_text(setting, &texts.ok_or_else(wrong)?.join(","), dir)
        }
        (Kind::Number(..) | Kind::Bool, _) => Err(wrong()),
        (_, Yaml::Text(text)) => from_text(setting, text, dir),
        _ => Err(wrong()),
    }
}

/// Reads the value of a setting from a flag or an environment variable.
pub(super) fn from_text(setting: &Setting, text: &str, dir: &Path) -> Result<Value, String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("has {} bytes, the most is {TEXT_BYTES_MAX}", text.len()));
    }
    let shown = if setting.secret { "what is given".to_owned() } else { format!("{text:?}") };
    let wrong = || format!("must be a {}, not {shown}", setting.kind.name());
    match setting.kind {
        Kind::Text => Ok(text.into()),
        Kind::Filter => match EnvFilter::builder().parse(text) {
            Ok(_) => Ok(text.into()),
            Err(error) => Err(format!("{text:?} is no log level: {error}")),
        },
        Kind::Path if text.is_empty() => Err(wrong()),
        Kind::Path => Ok(dir.join(text).to_string_lossy().into()),
        Kind::Bool => text.parse::<bool>().map(Value::from).map_err(|_| wrong()),
        Kind::Number(least, most) => {
            let number = text.parse::<u64>().ok().filter(|n| (least..=most).contains(n));
            number.map(Value::from).ok_or_else(wrong)
        }
        Kind::Duration => duration_millis(text)
            .map(|_| text.into())
            .ok_or_else(|| format!("{} such as `30s` or `1h30m`", wrong())),
        Kind::OneOf(words) if words.contains(&text) => Ok(text.into()),
        Kind::OneOf(_) => Err(wrong()),
        Kind::Addresses => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            let parse = |item: &str| match item.parse::<SocketAddr>() {
                Ok(address) => Ok(Value::from(address.to_string())),
                Err(_) => Err(format!("{item:?} is no address such as 127.0.0.1:7700")),
            };
            items.map(parse).collect()
        }
        Kind::Texts => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(items.collect())
        }
    }
}
