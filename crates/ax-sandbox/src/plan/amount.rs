//! Sizes and durations, as people write them.

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serializer};

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

/// Reads a number followed by one of these units.
fn read(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Bytes: a number, or a text such as `512MiB`.
pub(super) mod bytes {
    use super::{Deserialize, Deserializer, Error, Serializer, Written, read};

    const UNITS: [(&str, u64); 5] =
        [("", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

    pub(crate) fn serialize<S: Serializer>(bytes: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(*bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        match Written::deserialize(from) {
            Ok(Written::Number(bytes)) => Some(bytes),
            Ok(Written::Text(text)) => read(&text, &UNITS),
            Err(_) => None,
        }
        .ok_or_else(|| Error::custom("is not a size: write bytes, or a text such as 512MiB"))
    }
}

/// Seconds: a number, or a text such as `30m`.
pub(super) mod duration {
    use super::{Deserialize, Deserializer, Error, Serializer, Written, read};

    const UNITS: [(&str, u64); 5] = [("", 1), ("s", 1), ("m", 60), ("h", 3600), ("d", 86400)];

    pub(crate) fn serialize<S: Serializer>(time: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(seconds) => to.serialize_some(seconds),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        match Option::<Written>::deserialize(from) {
            Ok(None) => return Ok(None),
            Ok(Some(Written::Number(seconds))) => Some(seconds),
            Ok(Some(Written::Text(text))) => read(&text, &UNITS),
            Err(_) => None,
        }
        .map(Some)
        .ok_or_else(|| Error::custom("is not a duration: write seconds, or a text such as 30m"))
    }
}
