//! Credentials that the gateway adds to requests: what the manifest says of them, and what they
//! are. Only here, in [`Credential`], is the secret at hand.

use super::OF_CONNECTION;
use crate::config::{ConfigError, check_variable};
use crate::gateway::OpenError;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use rustls::pki_types::ServerName;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Stands for the secret in the value of a header.
const SECRET: &str = "{secret}";
/// Stands for the secret where it was.
const HIDDEN: &[u8] = b"[hidden]";
/// The most headers that are added.
const HEADERS_MAX: usize = 16;
/// Headers that say where a message goes and how long it is: no credentials.
const OF_MESSAGE: [HeaderName; 4] =
    [header::CONTENT_LENGTH, header::EXPECT, header::HOST, header::PROXY_AUTHENTICATE];

/// What is added to the requests to a host.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Inject {
    /// Headers by name; `{secret}` in a value stands for the secret.
    headers: BTreeMap<String, String>,
    /// The environment variable of the runtime that holds the secret.
    api_key_env: String,
    /// Whether the secret goes out encrypted.
    #[serde(default)]
    pub(super) scheme: Scheme,
}

/// What requests are encrypted with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scheme {
    /// TLS.
    #[default]
    Https,
    /// Nothing.
    Http,
}

impl Scheme {
    /// The port that needs no naming.
    pub(super) const fn port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Http => 80,
        }
    }
}

impl Inject {
    pub(super) fn check(&self, path: &str, host: &str) -> Result<(), ConfigError> {
        if host.starts_with("*.") {
            let cause = format!("{host:?} stands for many hosts, and a credential is for one");
            return Err(ConfigError::new(path, cause, "write a rule for each host by its name"));
        }
        if self.scheme == Scheme::Https && ServerName::try_from(host).is_err() {
            let cause = format!("{host:?} cannot be the name in a certificate");
            return Err(ConfigError::new(path, cause, ""));
        }
        check_variable(path, Some(&self.api_key_env))?;
        let path = format!("{path}.headers");
        if !(1..=HEADERS_MAX).contains(&self.headers.len()) {
            let cause = format!("must name 1 to {HEADERS_MAX} headers");
            let hint = "write them as {Authorization: \"Bearer {secret}\"}";
            return Err(ConfigError::new(path, cause, hint));
        }
        let mut seen = BTreeSet::new();
        for (name, value) in &self.headers {
            let path = format!("{path}.{name}");
            check_name(&path, name)?;
            if !seen.insert(name.to_ascii_lowercase()) {
                return Err(ConfigError::new(path, "is named twice", ""));
            }
            check_value(&path, value)?;
        }
        Ok(())
    }

    /// Reads the secret from the environment of the runtime.
    ///
    /// # Errors
    ///
    /// Says that it is not there, or cannot be sent; never what it is.
    pub(super) fn credential(&self, host: &str) -> Result<Credential, OpenError> {
        let secret = std::env::var(&self.api_key_env).unwrap_or_default();
        let failure = |why| OpenError::Credential {
            host: host.to_owned(),
            variable: self.api_key_env.clone(),
            why,
        };
        if secret.is_empty() {
            return Err(failure("is not set"));
        }
        let header = |(name, value): (&String, &String)| {
            let name = name.parse().ok()?;
            let mut value = HeaderValue::try_from(value.replace(SECRET, &secret)).ok()?;
            value.set_sensitive(true);
            Some((name, value))
        };
        let headers: Option<Vec<_>> = self.headers.iter().map(header).collect();
        let headers = headers.ok_or_else(|| failure("has characters that no header can have"))?;
        Ok(Credential { headers, secret: secret.into() })
    }
}

fn check_name(path: &str, name: &str) -> Result<(), ConfigError> {
    let cause = match name.parse::<HeaderName>() {
        Err(_) => "is not the name of a header",
        Ok(name) if OF_CONNECTION.contains(&name) || OF_MESSAGE.contains(&name) => {
            "is no header for credentials"
        }
        Ok(_) => return Ok(()),
    };
    let hint = "use Authorization, or what the host asks for, such as X-Api-Key";
    Err(ConfigError::new(path, cause, hint))
}

fn check_value(path: &str, value: &str) -> Result<(), ConfigError> {
    let cause = if !value.contains(SECRET) {
        "does not say where the secret belongs"
    } else if HeaderValue::from_str(value).is_err() {
        "has characters that no header can have"
    } else {
        return Ok(());
    };
    Err(ConfigError::new(path, cause, "write it as `Bearer {secret}`; the secret stays outside"))
}

/// A secret, and the headers that carry it.
pub(super) struct Credential {
    headers: Vec<(HeaderName, HeaderValue)>,
    secret: Box<str>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").finish_non_exhaustive()
    }
}

impl Credential {
    /// Puts it into a request, in the place of whatever the harness wrote there.
    pub(super) fn add_to(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            drop(headers.insert(name.clone(), value.clone()));
        }
    }

    /// Takes the secret out of the headers of an answer.
    pub(super) fn hide(&self, headers: &mut HeaderMap) {
        for value in headers.values_mut() {
            if let Some(hidden) = self.hidden(value.as_bytes()) {
                *value = HeaderValue::from_bytes(&hidden)
                    .unwrap_or_else(|_| HeaderValue::from_static("[hidden]"));
            }
        }
    }

    /// Takes the secret out of a text.
    pub(super) fn hide_in(&self, text: &str) -> String {
        text.replace(&*self.secret, "[hidden]")
    }

    /// The same without the secret, if that is in it.
    fn hidden(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let secret = self.secret.as_bytes();
        let (mut kept, mut rest) = (Vec::new(), bytes);
        while let Some(at) = rest.windows(secret.len()).position(|part| part == secret) {
            kept.extend_from_slice(&rest[..at]);
            kept.extend_from_slice(HIDDEN);
            rest = &rest[at + secret.len()..];
        }
        if rest.len() == bytes.len() {
            return None;
        }
        kept.extend_from_slice(rest);
        Some(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use serde_json::{Value, json};

    fn check(rule: Value, expect: Result<(), &str>) {
        let section = json!({"egress": [rule]});
        let result = Config::parse(&section).map(drop).map_err(|error| error.path);
        assert_eq!(result, expect.map_err(|path| format!("egress[0].{path}")), "{section}");
    }

    fn rule(header: &str, value: &str) -> Value {
        let inject = json!({"headers": {header: value}, "apiKeyEnv": "KEY"});
        json!({"host": "a.test", "inject": inject})
    }

    #[test]
    fn what_is_wrong_with_a_credential_is_named_by_its_field() {
        check(rule("Authorization", "Bearer {secret}"), Ok(()));
        for header in ["Connection", "transfer-encoding", "Host", "content-length", "a b", ""] {
            let path = format!("inject.headers.{header}");
            check(rule(header, "{secret}"), Err(&path));
        }
        for value in ["Bearer abc", "{secret}\r\nhost: b", "{secret}\0"] {
            check(rule("authorization", value), Err("inject.headers.authorization"));
        }
        for (field, value, path) in [
            ("host", json!("*.a.test"), "inject"),
            ("host", json!("a..test"), "inject"),
            ("methods", json!(["GET", "TRACE"]), "methods"),
        ] {
            let mut rule = rule("a", "{secret}");
            rule[field] = value;
            check(rule, Err(path));
        }
        for (field, value, path) in [
            ("headers", json!({}), "inject.headers"),
            ("headers", json!({"A": "{secret}", "a": "{secret}"}), "inject.headers.a"),
            ("apiKeyEnv", json!(""), "inject.apiKeyEnv"),
            ("apiKeyEnv", json!("A=b"), "inject.apiKeyEnv"),
            ("apiKeyEnv", Value::Null, "inject.apiKeyEnv"),
            ("scheme", json!("ftp"), "inject.scheme"),
            ("secret", json!("s3cret"), "inject.secret"),
        ] {
            let mut rule = rule("a", "{secret}");
            rule["inject"][field] = value;
            check(rule, Err(path));
        }
    }

    #[test]
    fn a_secret_that_is_not_there_is_named_and_one_that_is_there_is_not() {
        let inject = |variable: &str| Inject {
            headers: [("a".to_owned(), "{secret}".to_owned())].into(),
            api_key_env: variable.to_owned(),
            scheme: Scheme::Https,
        };
        let said = inject("AX_TEST_NOT_SET").credential("a.test").unwrap_err().to_string();
        assert!(said.contains("AX_TEST_NOT_SET") && said.contains("a.test"), "{said}");
        let credential = inject("CARGO_MANIFEST_DIR").credential("a.test").unwrap();
        assert!(!format!("{credential:?}").contains(env!("CARGO_MANIFEST_DIR")));
    }

    #[test]
    fn a_secret_is_taken_out_wherever_it_is() {
        let credential = Credential { headers: Vec::new(), secret: "s3cret".into() };
        for (value, expect) in [
            ("s3cret", "[hidden]"),
            ("a s3crets3cret; s3cre", "a [hidden][hidden]; s3cre"),
            ("nothing", "nothing"),
            ("", ""),
        ] {
            let mut headers = HeaderMap::new();
            headers.append("a", HeaderValue::from_static(value));
            headers.append("a", HeaderValue::from_static(value));
            credential.hide(&mut headers);
            let all: Vec<_> = headers.get_all("a").iter().collect();
            assert_eq!(all, [expect, expect]);
            assert_eq!(credential.hide_in(value), expect);
        }
    }
}
