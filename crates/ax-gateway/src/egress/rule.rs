//! Where a harness may go: the `egress` section of a manifest's gateway.

use super::inject::{Inject, Scheme};
use crate::config::ConfigError;
use http::Method;
use serde::Deserialize;

/// Somewhere that a harness may go.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct EgressRule {
    /// A name, an address, or `*.` and the end of names.
    pub(crate) host: String,
    /// 80 and 443 unless given; only that of the scheme, if something is added.
    port: Option<u16>,
    /// Only these methods, which can be told without encryption only; any if there is none.
    #[serde(default)]
    methods: Vec<String>,
    /// Whether it may be an address of this machine or of a private network.
    #[serde(default)]
    pub(crate) private: bool,
    /// What is added to requests, which is why the gateway reads them.
    pub(crate) inject: Option<Inject>,
}

/// How a request comes to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// As it is, without encryption.
    Plain,
    /// In a tunnel, whose encryption stays closed.
    Tunnel,
    /// In a tunnel, whose encryption ends at the gateway.
    Opened,
}

impl EgressRule {
    /// Whether it lets a request through. What a tunnel (`CONNECT`) is used for cannot be seen.
    pub(super) fn lets(&self, way: Way, method: &Method, host: &str, port: u16) -> bool {
        let way_fits = match (way, self.scheme()) {
            (_, None) | (Way::Plain, Some(Scheme::Http)) | (Way::Opened, Some(Scheme::Https)) => {
                true
            }
            (Way::Plain | Way::Tunnel | Way::Opened, Some(_)) => false,
        };
        let method_fits =
            self.methods.is_empty() || self.methods.iter().any(|only| only == method.as_str());
        way_fits && method_fits && self.fits(host, port)
    }

    /// Whether tunnels to a place are opened for it.
    pub(super) fn opens(&self, host: &str, port: u16) -> bool {
        self.scheme() == Some(Scheme::Https) && self.fits(host, port)
    }

    fn fits(&self, host: &str, port: u16) -> bool {
        let host_fits = match self.host.strip_prefix("*.") {
            Some(end) => host.strip_suffix(end).is_some_and(|name| name.ends_with('.')),
            None => host == self.host,
        };
        let port_fits = match (self.port, self.scheme()) {
            (Some(only), _) => only == port,
            (None, Some(scheme)) => scheme.port() == port,
            (None, None) => matches!(port, 80 | 443),
        };
        host_fits && port_fits
    }

    /// What its requests are encrypted with, if something is added to them.
    pub(super) fn scheme(&self) -> Option<Scheme> {
        self.inject.as_ref().map(|inject| inject.scheme)
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
        let Some(inject) = &self.inject else { return Ok(()) };
        if self.methods.iter().any(|method| method == "TRACE") {
            let cause = "TRACE would show the harness what is added";
            return Err(ConfigError::new(format!("{path}.methods"), cause, "leave it out"));
        }
        inject.check(&format!("{path}.inject"), &self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn rule(rule: Value) -> EgressRule {
        serde_json::from_value(rule).unwrap()
    }

    #[test]
    fn a_rule_lets_through_what_it_names_and_nothing_else() {
        let tunnels = |rule: &EgressRule, host, port| {
            rule.lets(Way::Tunnel, &Method::CONNECT, host, port) && !rule.opens(host, port)
        };
        let plain = |rule: &EgressRule, method| rule.lets(Way::Plain, &method, "a.com", 80);
        let exact = rule(json!({"host": "a.com"}));
        assert!(tunnels(&exact, "a.com", 443) && plain(&exact, Method::GET));
        assert!(!tunnels(&exact, "b.a.com", 443));
        assert!(!tunnels(&exact, "a.com", 22));
        let below = rule(json!({"host": "*.a.com", "port": 8443}));
        assert!(tunnels(&below, "b.a.com", 8443));
        assert!(!tunnels(&below, "a.com", 8443));
        assert!(!tunnels(&below, "ba.com", 8443));
        let reads = rule(json!({"host": "a.com", "methods": ["GET"]}));
        assert!(plain(&reads, Method::GET) && !plain(&reads, Method::POST));
        assert!(!tunnels(&reads, "a.com", 443), "nobody sees what is in a tunnel");
    }

    #[test]
    fn a_rule_that_adds_something_is_for_one_way_and_one_port() {
        let inject = json!({"headers": {"a": "{secret}"}, "apiKeyEnv": "B"});
        let mut written = json!({"host": "a.com", "inject": inject, "methods": ["GET"]});
        let sealed = rule(written.clone());
        assert!(sealed.opens("a.com", 443) && !sealed.opens("b.a.com", 443));
        assert!(sealed.lets(Way::Opened, &Method::GET, "a.com", 443));
        assert!(!sealed.lets(Way::Opened, &Method::POST, "a.com", 443));
        for (way, port) in [(Way::Plain, 443), (Way::Plain, 80), (Way::Tunnel, 443)] {
            assert!(!sealed.lets(way, &Method::GET, "a.com", port), "{way:?} {port}");
        }
        written["inject"]["scheme"] = json!("http");
        let open = rule(written);
        assert!(open.lets(Way::Plain, &Method::GET, "a.com", 80) && !open.opens("a.com", 80));
        assert!(!open.lets(Way::Plain, &Method::GET, "a.com", 443));
        assert!(!open.lets(Way::Tunnel, &Method::GET, "a.com", 80));
    }
}
