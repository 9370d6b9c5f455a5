use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;
use std::path::Path;
use tempfile::TempDir;

const NOW: Timestamp = Timestamp { millis: 1_800_000_000_000 };
const NOW_SECONDS: u64 = 1_800_000_000;

/// An identity provider with its keys in a file.
struct Provider {
    dir: TempDir,
    pairs: Vec<(String, Ed25519KeyPair)>,
}

fn pair() -> Ed25519KeyPair {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap()
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn jwk(id: &str, pair: &Ed25519KeyPair) -> Value {
    let x = base64(pair.public_key());
    json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "alg": "EdDSA", "use": "sig", "x": x})
}

impl Provider {
    fn new() -> Self {
        let mut provider = Self { dir: tempfile::tempdir().unwrap(), pairs: Vec::new() };
        provider.add("one");
        provider
    }

    fn path(&self) -> String {
        Path::new(self.dir.path()).join("jwks.json").display().to_string()
    }

    fn add(&mut self, id: &str) {
        self.pairs.push((id.into(), pair()));
        let keys: Vec<_> = self.pairs.iter().map(|(id, pair)| jwk(id, pair)).collect();
        // A kind of key that nobody knows is passed over.
        let keys = [vec![json!({"kty": "new", "kid": "x"})], keys].concat();
        std::fs::write(self.path(), json!({ "keys": keys }).to_string()).unwrap();
    }

    fn settings(&self) -> Settings {
        let settings = json!({
            "issuer": "https://id.example.org",
            "audience": ["ax"],
            "jwks": self.path(),
            "namespace_claim": "org.tenant",
            "role_claim": "groups",
            "roles": {"devs": "operator", "readers": "viewer"},
        });
        serde_json::from_value(settings).unwrap()
    }

    fn tokens(&self) -> Tokens {
        Tokens::new(self.settings()).unwrap()
    }

    fn token(&self, id: &str, claims: &Value) -> String {
        let pair = &self.pairs.iter().find(|(known, _)| known == id).unwrap().1;
        signed(&json!({"alg": "EdDSA", "kid": id}), claims, |text| pair.sign(text).as_ref().into())
    }
}

fn signed(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let text = format!("{}.{}", base64(header.to_string()), base64(claims.to_string()));
    let signature = base64(sign(text.as_bytes()));
    format!("{text}.{signature}")
}

fn claims() -> Value {
    json!({
        "iss": "https://id.example.org", "aud": "ax", "sub": "ada", "exp": NOW_SECONDS + 600,
        "org": {"tenant": "acme"}, "groups": ["readers", "devs", "others"],
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

async fn check(tokens: &Tokens, token: &str) -> Result<Subject, Refused> {
    tokens.check(token, NOW).await
}

#[tokio::test]
async fn claims_say_who_where_and_what() {
    let provider = Provider::new();
    let tokens = provider.tokens();
    let subject = check(&tokens, &provider.token("one", &claims())).await.unwrap();
    let namespace = Namespace::new("acme").unwrap();
    let until = Timestamp { millis: (NOW_SECONDS + 660) * 1_000 };
    let name = "ada".into();
    assert_eq!(subject, Subject { name, namespace, role: Role::Operator, until });
    for nothing in [
        with("groups", json!("nobody")),
        with("groups", json!(7)),
        with("org", json!({"tenant": "No Name"})),
        with("org", json!({"tenant": 7})),
        with("org", json!({})),
        with("sub", json!("a\nb")),
        with("sub", json!("")),
        with("sub", json!("x".repeat(201))),
    ] {
        let refused = check(&tokens, &provider.token("one", &nothing)).await;
        assert_eq!(refused, Err(Refused::Nothing), "{nothing}");
    }
}

#[tokio::test]
async fn a_token_for_others_or_for_another_time_is_not_believed() {
    let provider = Provider::new();
    let tokens = provider.tokens();
    for (wrong, expected) in [
        (with("iss", json!("https://evil.example.org")), Refused::Unknown),
        (with("iss", json!(["https://id.example.org", "x"])), Refused::Unknown),
        (with("iss", Value::Null), Refused::Unknown),
        (with("aud", json!("other")), Refused::Unknown),
        (with("aud", json!(["other", "more"])), Refused::Unknown),
        (with("aud", Value::Null), Refused::Unknown),
        (with("exp", json!(NOW_SECONDS - 60)), Refused::Expired),
        (with("exp", json!("never")), Refused::Unknown),
        (with("exp", Value::Null), Refused::Unknown),
        (with("nbf", json!(NOW_SECONDS + 61)), Refused::Unknown),
        (with("nbf", json!("soon")), Refused::Unknown),
        (with("iat", json!(NOW_SECONDS + 61)), Refused::Unknown),
    ] {
        let refused = check(&tokens, &provider.token("one", &wrong)).await;
        assert_eq!(refused, Err(expected), "{wrong}");
    }
    for right in [
        with("exp", json!(NOW_SECONDS - 59)),
        with("exp", json!(NOW_SECONDS as f64 + 0.5)),
        with("nbf", json!(NOW_SECONDS + 60)),
        with("aud", json!(["other", "ax"])),
    ] {
        assert!(check(&tokens, &provider.token("one", &right)).await.is_ok(), "{right}");
    }
}

#[tokio::test]
async fn no_header_widens_what_is_believed() {
    let provider = Provider::new();
    let tokens = provider.tokens();
    let (id, own) = &provider.pairs[0];
    let evil = pair();
    let public = own.public_key().as_ref().to_vec();
    let secret = hmac::Key::new(hmac::HMAC_SHA256, &public);
    let by_secret = |text: &[u8]| hmac::sign(&secret, text).as_ref().to_vec();
    let by_own = |text: &[u8]| own.sign(text).as_ref().to_vec();
    let by_evil = |text: &[u8]| evil.sign(text).as_ref().to_vec();
    let header = |header: Value| {
        let mut header = header;
        header["kid"] = json!(id);
        header
    };
    let forged = [
        signed(&header(json!({"alg": "none"})), &claims(), |_| Vec::new()),
        signed(&header(json!({"alg": "None"})), &claims(), |_| Vec::new()),
        signed(&header(json!({"alg": "HS256"})), &claims(), by_secret),
        signed(&header(json!({"alg": "RS256"})), &claims(), by_own),
        signed(&header(json!({"alg": "ES384"})), &claims(), by_own),
        signed(&header(json!({"alg": "EdDSA"})), &claims(), by_evil),
        signed(&header(json!({"alg": "EdDSA", "jwk": jwk("one", &evil)})), &claims(), by_evil),
        signed(&header(json!({"alg": "EdDSA", "crit": ["b64"], "b64": false})), &claims(), by_own),
        signed(
            &header(json!({"alg": "EdDSA", "jku": "https://evil.example.org"})),
            &claims(),
            by_evil,
        ),
        signed(&json!({"alg": "EdDSA", "kid": "../../etc/passwd"}), &claims(), by_own),
    ];
    for token in forged {
        assert_eq!(check(&tokens, &token).await, Err(Refused::Unknown), "{token}");
    }
    let good = provider.token("one", &claims());
    for (at, _) in good.char_indices().step_by(7) {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'E' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert!(check(&tokens, &changed).await.is_err(), "{at}");
    }
    for nonsense in ["", ".", "..", "a.b.c", "....", &format!("{good}.x"), &"a.".repeat(9_000)] {
        assert_eq!(check(&tokens, nonsense).await, Err(Refused::Unknown), "{nonsense}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_key_of_the_issuer_is_fetched_but_not_for_every_stranger() {
    let mut provider = Provider::new();
    let tokens = provider.tokens();
    assert!(check(&tokens, &provider.token("one", &claims())).await.is_ok());
    provider.add("two");
    let token = provider.token("two", &claims());
    assert_eq!(check(&tokens, &token).await, Err(Refused::Unknown), "too soon to look again");
    tokio::time::advance(jwks::PAUSE).await;
    assert!(check(&tokens, &token).await.is_ok());
    // What cannot be fetched does no harm for a while.
    std::fs::remove_file(provider.path()).unwrap();
    tokio::time::advance(std::time::Duration::from_secs(3_600)).await;
    assert!(check(&tokens, &token).await.is_ok());
    tokio::time::advance(std::time::Duration::from_secs(24 * 3_600)).await;
    assert_eq!(check(&tokens, &token).await, Err(Refused::Unknown));
}

#[test]
fn keys_are_fetched_safely_or_not_at_all() {
    let provider = Provider::new();
    let with = |jwks: &str| Settings { jwks: Some(jwks.into()), ..provider.settings() };
    for wrong in
        ["http://id.example.org/keys", "ftp://id.example.org", "https://a:b@id.example.org", "://"]
    {
        assert!(matches!(Tokens::new(with(wrong)), Err(SettingsError::Jwks(_))), "{wrong}");
    }
    for right in ["https://id.example.org/keys", "http://127.0.0.1:1/keys", "/etc/keys.json"] {
        assert!(Tokens::new(with(right)).is_ok(), "{right}");
    }
    assert!(Tokens::new(Settings { audience: Vec::new(), ..provider.settings() }).is_err());
}
