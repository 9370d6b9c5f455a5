//! What strangers send to a server before it knows who they are: credentials, cursors, queries.

use super::answer;
use crate::driver::{Answer, Decode, Target};
use ax_core::id::{Namespace, SessionId};
use ax_core::time::Timestamp;
use ax_server::auth::{Settings, Shared, Shares};
use ax_server::fuzzing::{self, Credentials};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;
use std::fs;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const NOW: Timestamp = Timestamp { millis: 1_800_000_000_000 };
/// The seed of the provider's key, and the key of share tokens: the same in each run.
const SECRET: [u8; 32] = [7; 32];
/// A key of 7 and 32 bytes of zero, with its checksum.
const KEY: &str =
    concat!("axk_000000000000_", "0000000000000000000000000000000000000000000000000000", "0ep1s5r");

const CLAIMS: &[&str] = &[
    "{", "}", "[", "]", ",", ":", "\"", "\\u0000", "null", "true", "-1", "1e999", "0.5",
    "\"exp\":", "\"nbf\":", "\"iat\":", "\"aud\":", "\"iss\":", "\"sub\":", "\"org\":", "admin",
];
const TOKEN: &[&str] =
    &[".", "..", "=", "-", "_", "eyJhbGciOiJub25lIn0", "eyJhbGciOiJIUzI1NiJ9", "axs_", "axk_", "0"];
const QUERY: &[&str] = &[
    "&",
    "=",
    "%",
    "%00",
    "%ff",
    "+",
    "after=",
    "limit=",
    "cursor=",
    "kinds=",
    "noDeltas=",
    "untilIdle=",
    "namespace=",
    "access_token=",
    "-1",
    "18446744073709551616",
    "true",
    ",",
];

const FILE: &[&str] = &[
    "jwt:",
    "certificates:",
    "roles:",
    "algorithms: [",
    "]",
    "{",
    "}",
    ": ",
    "\n  ",
    "- ",
    "&a ",
    "*a",
    "<<: *a",
    "!!binary ",
    "1e999",
    "-1",
    ".nan",
    "null",
    "\"",
    "https://",
    "../",
];

/// The parties of a talk that the server has to believe.
struct World {
    dir: TempDir,
    pair: Ed25519KeyPair,
    credentials: Credentials,
    runtime: Runtime,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let pair = Ed25519KeyPair::from_seed_unchecked(&SECRET).expect("any seed does");
        let x = BASE64.encode(pair.public_key());
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "one", "alg": "EdDSA", "x": x});
        let jwks = dir.path().join("jwks.json");
        fs::write(&jwks, json!({ "keys": [jwk] }).to_string()).expect("a file");
        fs::create_dir(dir.path().join("auth")).expect("a directory");
        fs::write(dir.path().join("auth/share.key"), SECRET).expect("a file");
        let settings = json!({
            "issuer": "https://id.example.org", "audience": ["ax"], "jwks": jwks,
            "namespace_claim": "org.tenant", "role_claim": "groups",
            "roles": {"devs": "operator", "readers": "viewer"},
        });
        let settings = serde_json::from_value(settings).expect("they are settings");
        let credentials = Credentials::new(settings, dir.path(), NOW).expect("they do");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Self { dir, pair, credentials, runtime: runtime.expect("a runtime") }
    }

    fn sign(&self, claims: &[u8]) -> String {
        let header = BASE64.encode(json!({"alg": "EdDSA", "kid": "one"}).to_string());
        let text = format!("{header}.{}", BASE64.encode(claims));
        format!("{text}.{}", BASE64.encode(self.pair.sign(text.as_bytes())))
    }

    fn share(&self, text: &str) -> Result<Shared, String> {
        self.credentials.share(text)
    }

    fn token(&self, text: &str) -> Result<(), String> {
        self.runtime.block_on(self.credentials.token(text))
    }
}

pub(super) fn targets() -> Vec<Target> {
    let claims = claims();
    let world = World::new();
    let tokens: Vec<_> = claims.iter().map(|claims| world.sign(claims).into_bytes()).collect();
    let shares: Vec<_> = shares(&world).into_iter().map(String::into_bytes).collect();
    let pages = fuzzing::pages().map(String::into_bytes).to_vec();
    vec![
        target("token", tokens.clone(), TOKEN, forged(tokens)),
        target("claims", claims, CLAIMS, signed()),
        target("share", shares, TOKEN, shared()),
        target("key", vec![KEY.into()], TOKEN, text(|text| one_form(text, fuzzing::key(text)))),
        target("page", pages, TOKEN, text(|text| one_form(text, fuzzing::page(text)))),
        target("query", queries(), QUERY, text(|text| answer(fuzzing::query(text)))),
        target("last_event_id", ids(), QUERY, Box::new(|id| answer(fuzzing::last_event_id(id)))),
        Target { memory_factor: 4_000, ..target("auth_file", files(), FILE, text(auth_file)) },
    ]
}

fn target(
    name: &'static str,
    examples: Vec<Vec<u8>>,
    words: &'static [&'static str],
    decode: Decode,
) -> Target {
    Target { name, examples, words, memory_factor: 2_000, decode }
}

/// A decoder of texts; what is none never gets that far.
fn text(decode: impl Fn(&str) -> Answer + 'static) -> Decode {
    Box::new(move |bytes| match std::str::from_utf8(bytes) {
        Ok(text) => decode(text),
        Err(_) => Answer::Refused("no text".into()),
    })
}

/// What is accepted is written in one way only.
fn one_form(text: &str, read: Result<String, String>) -> Answer {
    match &read {
        Ok(again) if again != text => Answer::Wrong(format!("it is another form of {again:?}")),
        _ => answer(read),
    }
}

fn claims() -> Vec<Vec<u8>> {
    let good = json!({
        "iss": "https://id.example.org", "aud": ["ax", "b"], "sub": "ada", "exp": 1_800_000_600,
        "nbf": 1_799_999_999.5, "iat": 1, "org": {"tenant": "acme"}, "groups": ["x", "devs"],
    });
    let flat = json!({
        "iss": "https://id.example.org", "aud": "ax", "sub": "bob", "exp": 1_800_000_600,
        "org.tenant": "acme", "groups": "readers",
    });
    vec![good.to_string().into_bytes(), flat.to_string().into_bytes()]
}

/// Texts of tokens: nothing is believed that the provider has not signed.
fn forged(known: Vec<Vec<u8>>) -> Decode {
    let world = World::new();
    text(move |text| {
        let checked = world.token(text);
        if checked.is_ok() && !known.iter().any(|known| known == text.as_bytes()) {
            return Answer::Wrong("it believes what was never signed".into());
        }
        answer(checked)
    })
}

/// Claims that the provider has signed, whatever they are.
fn signed() -> Decode {
    let world = World::new();
    Box::new(move |claims| answer(world.token(&world.sign(claims))))
}

fn shares(world: &World) -> Vec<String> {
    let make = |(name, millis)| {
        let namespace = Namespace::new(name).expect("it is a name");
        let expires_at = Timestamp { millis };
        let shared = Shared { namespace, session: SessionId(7), expires_at };
        Shares::of(world.dir.path()).make(&shared).expect("the key is there")
    };
    [("acme", NOW.millis + 1), ("default", NOW.millis)].map(make).to_vec()
}

/// Share tokens: the only one that holds is the one that was made.
fn shared() -> Decode {
    let world = World::new();
    let known = shares(&world);
    text(move |text| {
        let checked = world.share(text);
        if checked.is_ok() && known[0] != text {
            return Answer::Wrong("it believes what was never made".into());
        }
        answer(checked)
    })
}

fn queries() -> Vec<Vec<u8>> {
    let all = [
        "after=7&untilIdle=true&noDeltas=1&kinds=note,ask&kinds=step",
        "limit=10&cursor=AAAA&states=STATE_RUNNING&namespace=acme",
        "namespace=acme",
        "",
    ];
    all.iter().map(|query| query.as_bytes().to_vec()).collect()
}

fn ids() -> Vec<Vec<u8>> {
    vec![b"7".to_vec(), b"18446744073709551615".to_vec()]
}

fn files() -> Vec<Vec<u8>> {
    let file = r#"jwt:
  issuer: https://id.example.org
  audience: [agent-executor]
  jwks: https://id.example.org/keys.json
  algorithms: [RS256, ES256, EdDSA]
  leeway_seconds: 60
  namespace_claim: org.tenant
  role_claim: groups
  roles: {agents-dev: operator, agents-ops: admin}
certificates:
  - {name: "dns:worker.example.org", role: viewer, namespace: acme}
"#;
    vec![file.as_bytes().to_vec()]
}

/// The file that says who is let in, as it is read.
fn auth_file(text: &str) -> Answer {
    answer(serde_saphyr::from_str::<Settings>(text))
}
