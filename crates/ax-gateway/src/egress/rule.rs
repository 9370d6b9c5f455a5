//! Where a harness may go: the `egress` section of a manifest's gateway.

use crate::config::ConfigError;
use http::Method;
use serde::Deserialize;

/// Somewhere that a harness may go.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct EgressRule {
    /// A name, an address, or `*.` and the end of names.
    pub(crate) host: String,
    /// 80 and 443 unless given.
    port: Option<u16>,
    /// Only these methods, which can be told without encryption only; any if there is none.
    #[serde(default)]
    methods: Vec<String>,
    /// Whether it may be an address of this machine or of a private network.
    #[serde(default)]
    pub(crate) private: bool,
}

impl EgressRule {
    /// Whether it lets a request through. What a tunnel (`CONNECT`) is used for cannot be seen.
    pub(crate) fn lets(&self, method: &Method, host: &str, port: u16) -> bool {
        let host_fits = match self.host.strip_prefix("*.") {
            Some(end) => host.strip_suffix(end).is_some_and(|name| name.ends_with('.')),
            None => host == self.host,
        };
        let port_fits = self.port.map_or(matches!(port, 80 | 443), |only| only == port);
        let method_fits =
            self.methods.is_empty() || self.methods.iter().any(|only| only == method.as_str());
        host_fits && port_fits && method_fits
    }

    pub(crate) fn check(&self, path: &str) -> Result<(), ConfigError> {
        let name = self.host.strip_prefix("*.").unwrap_or(&self.host);
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-:_".contains(c);
        if name.is_empty() || name.len() > 253 || !name.chars().all(plain) || name.ends_with('.') {
            let cause = format!("{:?} is not the name of a host", self.host);
            let hint = "write it in small letters, such as api.example.com or *.example.com";
            return Err(ConfigError::new(format!("{path}.host"), cause, hint));
        }
        if self.port == Some(0) {
            return Err(ConfigError::new(format!("{path}.port"), "is not a port", ""));
        }
        let word = |method: &String| {
            !method.is_empty() && method.chars().all(|c| c.is_ascii_uppercase() || c == '-')
        };
        if !self.methods.iter().all(word) || self.methods.iter().any(|method| method == "CONNECT") {
            let hint = "write them as GET or POST; what is encrypted has no method to be seen";
            let path = format!("{path}.methods");
            return Err(ConfigError::new(path, "are not methods of HTTP", hint));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_rule_lets_through_what_it_names_and_nothing_else() {
        let rule = |rule| serde_json::from_value::<EgressRule>(rule).unwrap();
        let exact = rule(json!({"host": "a.com"}));
        assert!(
            exact.lets(&Method::CONNECT, "a.com", 443) && exact.lets(&Method::GET, "a.com", 80)
        );
        assert!(!exact.lets(&Method::CONNECT, "b.a.com", 443));
        assert!(!exact.lets(&Method::CONNECT, "a.com", 22));
        let below = rule(json!({"host": "*.a.com", "port": 8443}));
        assert!(below.lets(&Method::CONNECT, "b.a.com", 8443));
        assert!(!below.lets(&Method::CONNECT, "a.com", 8443));
        assert!(!below.lets(&Method::CONNECT, "ba.com", 8443));
        let reads = rule(json!({"host": "a.com", "methods": ["GET"]}));
        assert!(reads.lets(&Method::GET, "a.com", 80) && !reads.lets(&Method::POST, "a.com", 80));
        assert!(!reads.lets(&Method::CONNECT, "a.com", 443), "nobody sees what is in a tunnel");
    }
}
