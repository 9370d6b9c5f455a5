//! Where a server is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a server is: a socket in the file system, or a host and a port.
///
/// ```
/// use ax_client::Address;
///
/// let address: Address = "https://ax.example:8080".parse().unwrap();
/// assert_eq!(address.to_string(), "https://ax.example:8080");
/// assert!("ax.example".parse::<Address>().is_ok(), "it is a path");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix domain socket.
    Unix(PathBuf),
    /// TCP, with or without TLS.
    Tcp {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
        /// Whether it speaks TLS.
        tls: bool,
    },
}

/// Why a text names no server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} does not name a server: {why}")]
pub struct AddressError {
    /// What was read.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

impl FromStr for Address {
    type Err = AddressError;

    /// Reads `http://HOST:PORT`, `https://HOST:PORT`, `unix:PATH`, `unix:///PATH` or a path.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let refuse = |why: String| AddressError { text: text.to_owned(), why };
        let path = match text.split_once(':') {
            Some(("unix", path)) => path.strip_prefix("//").unwrap_or(path),
            Some((scheme @ ("http" | "https"), rest)) if rest.starts_with("//") => {
                return tcp(&rest[2..], scheme == "https").map_err(refuse);
            }
            Some((scheme, rest)) if rest.starts_with("//") => {
                return Err(refuse(format!("{scheme} is not supported")));
            }
            _ => text,
        };
        if path.is_empty() {
            return Err(refuse("the path is empty".into()));
        }
        Ok(Self::Unix(path.into()))
    }
}

fn tcp(rest: &str, tls: bool) -> Result<Address, String> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#', '@']) {
        return Err("there is more than a host and a port".into());
    }
    // The colons of an IPv6 address are within brackets.
    let bracketed = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (host, port) = match bracketed {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => match rest.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().map_err(|_| format!("{port:?} is no port"))?,
        None if tls => 443,
        None => 80,
    };
    if host.is_empty() {
        return Err("there is no host".into());
    }
    Ok(Address::Tcp { host: host.to_owned(), port, tls })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp { host, port, tls } => {
                let scheme = if *tls { "https" } else { "http" };
                let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
                write!(f, "{scheme}://{open}{host}{close}:{port}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_by_a_socket_or_by_a_host_and_a_port() {
        let tcp = |host: &str, port, tls| Address::Tcp { host: host.into(), port, tls };
        for (text, address) in [
            ("/a/b", Address::Unix("/a/b".into())),
            ("unix:/a", Address::Unix("/a".into())),
            ("unix:///a", Address::Unix("/a".into())),
            ("rel.sock", Address::Unix("rel.sock".into())),
            ("http://localhost:80", tcp("localhost", 80, false)),
            ("http://127.0.0.1:8080/", tcp("127.0.0.1", 8080, false)),
            ("https://ax.example", tcp("ax.example", 443, true)),
            ("https://[::1]:9", tcp("::1", 9, true)),
        ] {
            assert_eq!(text.parse(), Ok(address.clone()), "{text}");
            assert_eq!(address.to_string().parse(), Ok(address), "{text}");
        }
        for text in
            ["ftp://a:1", "", "unix:", "http://", "http://a:x", "http://a:1/v1", "http://:1"]
        {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
