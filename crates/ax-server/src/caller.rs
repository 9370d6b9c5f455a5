//! Who makes a request.

use ax_core::session::Caller;
use ax_engine::Error;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use tonic::Request;
use tonic::metadata::MetadataMap;

/// The longest request id or trace that is kept, in bytes.
const ID_BYTES_MAX: usize = 128;

/// The user id of the process at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) uid: u32,
}

/// Says who makes a request: the user that the kernel names.
pub(crate) fn caller<T>(request: &Request<T>) -> Result<Caller, Error> {
    let peer = request.extensions().get::<Option<Peer>>().copied().flatten();
    let Some(peer) = peer else {
        return Err(Error::invalid("the system does not say who the caller is"));
    };
    Ok(Caller {
        principal: user(peer.uid),
        request: text(request.metadata(), "ax-request-id"),
        trace: text(request.metadata(), "traceparent"),
    })
}

fn text(metadata: &MetadataMap, name: &str) -> Arc<str> {
    let value = metadata.get(name).and_then(|value| value.to_str().ok());
    value.filter(|value| value.len() <= ID_BYTES_MAX).unwrap_or_default().into()
}

/// The name of a user; `uid:1000` if it has none.
fn user(uid: u32) -> Arc<str> {
    static USERS: OnceLock<BTreeMap<u32, Arc<str>>> = OnceLock::new();
    let users = USERS.get_or_init(|| {
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        parse(&passwd)
    });
    users.get(&uid).cloned().unwrap_or_else(|| format!("uid:{uid}").into())
}

/// Reads the format of passwd(5).
fn parse(passwd: &str) -> BTreeMap<u32, Arc<str>> {
    let mut users = BTreeMap::new();
    for line in passwd.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(Ok(uid))) = (fields.next(), fields.nth(1).map(str::parse)) {
            users.entry(uid).or_insert_with(|| name.into());
        }
    }
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read_and_nonsense_is_passed_over() {
        let users = parse("root:x:0:0::/:/bin/sh\nnonsense\na:b:c\ntoor:x:0:0::/:\nme:x:1000:1000");
        assert_eq!(users.len(), 2);
        assert_eq!(&*users[&0], "root");
        assert_eq!(&*users[&1000], "me");
    }
}
