//! Tokens of an identity provider that answers, or does not, over HTTP on the own machine.

#![expect(clippy::unwrap_used, reason = "a test")]

#[expect(dead_code, reason = "other tests use more of it")]
mod support;

use ax_server::auth::Settings;
use axum::Router;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};
use support::guarded::{Guarded, message, submission};
use tokio::net::TcpListener;
use tokio::sync::watch;

const LIST: &str = "/agentexecutor.v1.Sessions/ListSessions";
const CANCEL: &str = "/agentexecutor.v1.Sessions/Cancel";

/// How a provider behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Right,
    OtherIssuer,
    Redirects,
    Endless,
    Silent,
}

/// An identity provider.
struct Provider {
    url: String,
    pair: Ed25519KeyPair,
    manner: Arc<Mutex<Manner>>,
    /// How often it was asked for its keys.
    asked: watch::Receiver<u32>,
}

impl Provider {
    async fn new(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let manner = Arc::new(Mutex::new(manner));
        let (count, asked) = watch::channel(0);
        let count = Arc::new(count);
        let x = URL_SAFE_NO_PAD.encode(pair.public_key());
        let key = json!({"kty": "OKP", "crv": "Ed25519", "kid": "one", "alg": "EdDSA", "x": x});
        let (of_keys, of_configuration, issuer) = (manner.clone(), manner.clone(), url.clone());
        let configuration = move || async move {
            let other = *of_configuration.lock().unwrap() == Manner::OtherIssuer;
            let named = if other { "https://other.example" } else { &issuer };
            axum::Json(json!({"issuer": named, "jwks_uri": format!("{issuer}/keys")}))
        };
        let keys = move || async move {
            count.send_modify(|count| *count += 1);
            let manner = *of_keys.lock().unwrap();
            answer(manner, &key).await
        };
        let right = {
            let x = URL_SAFE_NO_PAD.encode(pair.public_key());
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "one", "alg": "EdDSA", "x": x})
        };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(configuration))
            .route("/elsewhere", get(|| async move { axum::Json(json!({"keys": [right]})) }))
            .route("/keys", get(keys));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, pair, manner, asked }
    }

    fn settings(&self) -> Settings {
        serde_json::from_value(json!({"jwt": {
            "issuer": self.url,
            "audience": ["ax"],
            "namespace_claim": "org.tenant",
            "role_claim": "groups",
            "roles": {"readers": "viewer", "devs": "operator", "ops": "admin"},
        }}))
        .unwrap()
    }

    fn token(&self, id: &str, group: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let claims = json!({
            "iss": self.url, "aud": "ax", "sub": "ada", "exp": now + 600,
            "org": {"tenant": "theirs"}, "groups": [group],
        });
        let part = |part: Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let text = format!("{}.{}", part(json!({"alg": "EdDSA", "kid": id})), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(text.as_bytes()));
        format!("{text}.{signature}")
    }
}

async fn answer(manner: Manner, key: &Value) -> Response {
    match manner {
        Manner::Right | Manner::OtherIssuer => axum::Json(json!({"keys": [key]})).into_response(),
        Manner::Redirects => Redirect::temporary("/elsewhere").into_response(),
        Manner::Endless => {
            let key = serde_json::to_string(key).unwrap();
            format!("{{\"keys\": [{key}], \"more\": \"{}\"}}", "x".repeat(1 << 20)).into_response()
        }
        Manner::Silent => std::future::pending().await,
    }
}

#[tokio::test]
async fn a_token_has_the_role_and_the_namespace_that_its_claims_say() {
    let provider = Provider::new(Manner::Right).await;
    let guarded = Guarded::new(provider.settings()).await;
    let (body, about) = (submission(""), message("", &guarded.session));
    let path = format!("/v1/sessions/{}", guarded.session);
    for (group, reads, submits, deletes) in [
        ("strangers", false, false, false),
        ("readers", true, false, false),
        ("devs", true, true, false),
        ("ops", true, true, true),
    ] {
        let token = provider.token("one", group);
        let may = |status: u16| {
            assert!([200, 403].contains(&status), "{group} {status}");
            status == 200
        };
        let read = guarded.send(&token, "GET", &path, None).await;
        assert_eq!(may(read.status), reads, "{group}");
        let elsewhere = guarded.send(&token, "GET", "/v1/sessions?namespace=mine", None).await;
        assert_eq!(elsewhere.status, 403, "{group}");
        let sent = guarded.send(&token, "POST", "/v1/inputs", Some(&body)).await;
        assert_eq!(may(sent.status), submits, "{group}");
        let called = guarded.call(&token, LIST, &[]).await;
        assert_eq!(called.0 == "0", reads, "{group} {called:?}");
        let called = guarded.call(&token, CANCEL, &about).await;
        assert_eq!(called.0 != "7", submits, "{group} {called:?}");
        let agents = guarded.send(&token, "DELETE", "/v1/agents/done", None).await;
        assert_eq!(agents.status, 403, "{group}");
        let gone = guarded.send(&token, "DELETE", &path, None).await;
        assert_eq!(may(gone.status), deletes, "{group}");
    }
    assert_eq!(*provider.asked.borrow(), 1, "keys are kept");
}

#[tokio::test]
async fn keys_are_not_taken_from_a_provider_that_misbehaves() {
    for manner in [Manner::OtherIssuer, Manner::Redirects, Manner::Endless] {
        let provider = Provider::new(manner).await;
        let guarded = Guarded::new(provider.settings()).await;
        let token = provider.token("one", "ops");
        let refused = guarded.send(&token, "GET", "/v1/sessions", None).await.error();
        assert_eq!((refused.0, refused.1.as_str()), (401, "AX4001"), "{manner:?}");
        assert_eq!(guarded.call(&token, LIST, &[]).await.0, "16", "{manner:?}");
    }
}

#[tokio::test]
async fn a_slow_provider_holds_up_nobody_whose_key_is_known_and_a_reload_forgets_none() {
    let mut provider = Provider::new(Manner::Right).await;
    let guarded = Guarded::new(provider.settings()).await;
    let known = provider.token("one", "readers");
    assert_eq!(guarded.send(&known, "GET", "/v1/sessions", None).await.status, 200);
    // From now on it is asked again, and does not answer.
    *provider.manner.lock().unwrap() = Manner::Silent;
    guarded.auth.reload(provider.settings()).unwrap();
    let unknown = provider.token("two", "readers");
    let waits = guarded.send(&unknown, "GET", "/v1/sessions", None);
    let served = async {
        provider.asked.wait_for(|count| *count == 2).await.unwrap();
        for _ in 0..3 {
            assert_eq!(guarded.send(&known, "GET", "/v1/sessions", None).await.status, 200);
        }
    };
    tokio::select! {
        answer = waits => panic!("nobody knows the key: {answer:?}"),
        () = served => {}
    }
}
