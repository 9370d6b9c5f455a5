//! `ax auth …` and `ax session share`: what only the owner of the data directory may do.
//!
//! Keys are files of the directory, and a running server sees at once what becomes of them.

use crate::args::{AuthArgs, AuthCommand, KeyCommand, ShareCommand};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::link::{Context, Need};
use crate::paths::{DataDir, unusable};
use crate::time::{now, rfc3339};
use crate::view::table::aligned;
use ax_core::id::Namespace;
use ax_engine::Code;
use ax_proto::v1;
use ax_server::audit::{Audit, Kind, Line};
use ax_server::auth::{KeepError, Key, Keys, Made, NewKey, Shared, Shares, share};
use serde_json::{Value, json};

pub(crate) async fn auth(cx: &Context, args: AuthArgs) -> Result<Exit, Failure> {
    let data = cx.own_data("keys")?;
    let done = match args.command {
        AuthCommand::Key(command) => key(cx, &data, command),
        AuthCommand::Share(ShareCommand::Rotate) => {
            recorded(&data, "ax auth share rotate", "", "", || {
                Shares::of(&data.root).rotate().map_err(Failure::from)
            })?;
            told(cx, &json!({"type": "rotated"}), "every share token is refused from now on")
        }
        AuthCommand::Audit { denied, limit } => audit(cx, &data, denied, limit),
    };
    done.map(|()| Exit::Done)
}

fn key(cx: &Context, data: &DataDir, command: KeyCommand) -> Result<(), Failure> {
    let keys = Keys::of(&data.root);
    match command {
        KeyCommand::Create { name, role, all_namespaces, expires } => {
            let namespace = match all_namespaces {
                true => None,
                false => Some(namespace(cx)?),
            };
            let expires_at = expires.map(|after| now().plus_millis(after));
            let text = namespace.as_ref().map_or("*", Namespace::as_str).to_owned();
            let new = NewKey { name: name.clone(), role, namespace, expires_at };
            let made = recorded(data, "ax auth key create", &name, &text, || {
                keys.create(new, now()).map_err(Failure::from)
            })?;
            show(cx, &made, "this is the key, and it is not shown again")
        }
        KeyCommand::List => list(cx, &keys.list()?),
        KeyCommand::Rotate { key, grace } => {
            let made = recorded(data, "ax auth key rotate", &key, "", || {
                keys.rotate(&key, grace, now()).map_err(Failure::from)
            })?;
            let words = match made.key.grace_until_millis() {
                Some(until) => format!("the secret before holds until {}", rfc3339(until)),
                None => "the secret before is refused from now on".into(),
            };
            show(cx, &made, &words)
        }
        KeyCommand::Revoke { key } => {
            let revoked = recorded(data, "ax auth key revoke", &key, "", || {
                keys.revoke(&key, now()).map_err(Failure::from)
            })?;
            told(cx, &facts(&revoked, "revoked"), &format!("revoked {}", revoked.name))
        }
    }
}

fn namespace(cx: &Context) -> Result<Namespace, Failure> {
    Namespace::new(cx.global.namespace())
        .map_err(|error| Failure::usage(error.to_string()).hint("name another with --namespace"))
}

/// Prints a key, the only time.
fn show(cx: &Context, made: &Made, words: &str) -> Result<(), Failure> {
    if cx.out.json {
        let mut object = facts(&made.key, "key");
        object["key"] = made.text.as_str().into();
        return cx.out.object(&object);
    }
    cx.out.progress(words);
    cx.out.line(&made.text)
}

fn facts(key: &Key, kind: &str) -> Value {
    let time = |millis: Option<u64>| millis.map(rfc3339);
    json!({
        "type": kind,
        "id": key.id,
        "name": key.name,
        "role": key.role,
        "namespace": key.namespace,
        "created_at": rfc3339(key.created_at_millis),
        "expires_at": time(key.expires_at_millis),
        "revoked_at": time(key.revoked_at_millis),
        "rotated_at": time(key.rotated_at_millis),
        "grace_until": time(key.grace_until_millis()),
        "holds": key.holds(now()),
    })
}

fn list(cx: &Context, keys: &[Key]) -> Result<(), Failure> {
    if cx.out.json {
        return keys.iter().try_for_each(|key| cx.out.object(&facts(key, "key")));
    }
    if keys.is_empty() {
        cx.out.progress("there are no keys");
        return Ok(());
    }
    let heads = ["ID", "NAME", "ROLE", "NAMESPACE", "CREATED", "EXPIRES", "STATE"];
    let mut rows = Vec::new();
    if !cx.out.quiet {
        rows.push(heads.map(str::to_owned).to_vec());
    }
    let day = |millis: u64| rfc3339(millis)[..10].to_owned();
    rows.extend(keys.iter().map(|key| {
        let state = match key {
            key if key.revoked_at_millis.is_some() => "revoked",
            key if key.holds(now()) => "holds",
            _ => "expired",
        };
        vec![
            key.id.clone(),
            key.name.clone(),
            key.role.to_string(),
            key.namespace.clone().unwrap_or_else(|| "*".into()),
            day(key.created_at_millis),
            key.expires_at_millis.map_or_else(|| "never".into(), day),
            state.to_owned(),
        ]
    }));
    aligned(&rows).iter().try_for_each(|line| cx.out.line(line))
}

/// `ax session share`.
pub(crate) async fn session(cx: &Context, session: String, expires: u64) -> Result<(), Failure> {
    let data = cx.own_data("keys")?;
    if expires > share::SHARE_MILLIS_MAX {
        return Err(Failure::usage("a share token holds for a year at most"));
    }
    let link = cx.link(Need::Record).await?;
    let request = v1::GetSessionRequest { session, ..Default::default() };
    let shown = link.client.get_session(request).await;
    link.close().await?;
    let shown = shown?.session.unwrap_or_default();
    let wrong = |error: ax_core::id::ParseError| {
        Failure::new(Code::Internal, "the server's answer makes no sense").because(&error)
    };
    let shared = Shared {
        namespace: namespace(cx)?,
        session: shown.id.parse().map_err(wrong)?,
        expires_at: now().plus_millis(expires),
    };
    let namespace = shared.namespace.as_str();
    let token = recorded(&data, "ax session share", &shown.id, namespace, || {
        Shares::of(&data.root).make(&shared).map_err(Failure::from)
    })?;
    let address = data.holder().and_then(|holder| holder.addresses.into_iter().next());
    let link = address.map(|address| {
        let address = reachable(&address);
        format!("{address}/v1/sessions/{}/follow?share={token}", shown.id)
    });
    let expires_at = rfc3339(shared.expires_at.millis);
    if cx.out.json {
        return cx.out.object(&json!({
            "type": "share",
            "session": shown.id,
            "namespace": namespace,
            "expires_at": expires_at,
            "token": token,
            "link": link,
        }));
    }
    cx.out.progress(&format!("whoever has this may read the session until {expires_at}"));
    cx.out.line(link.as_deref().unwrap_or(&token))
}

/// Names this machine where an address is all of its addresses.
fn reachable(address: &str) -> String {
    let system = rustix::system::uname();
    let name = system.nodename().to_string_lossy();
    ["//0.0.0.0:", "//[::]:"]
        .iter()
        .fold(address.to_owned(), |address, all| address.replace(all, &format!("//{name}:")))
}

fn audit(cx: &Context, data: &DataDir, denied: bool, limit: usize) -> Result<(), Failure> {
    let lines = Audit::of(&data.root).read().map_err(|error| unusable(&data.root, &error))?;
    let wanted = lines.iter().filter(|line| !denied || line.kind == Kind::Denied);
    let wanted: Vec<_> = wanted.collect();
    let wanted = &wanted[wanted.len().saturating_sub(limit)..];
    if cx.out.json {
        return wanted.iter().try_for_each(|line| {
            let mut object = serde_json::to_value(line).unwrap_or_default();
            object["type"] = "audit".into();
            object["at"] = rfc3339(line.at_millis).into();
            cx.out.object(&object)
        });
    }
    if wanted.is_empty() {
        cx.out.progress("nothing is recorded");
        return Ok(());
    }
    let mut rows = Vec::new();
    if !cx.out.quiet {
        let heads = ["TIME", "KIND", "WHO", "FROM", "WHAT", "ABOUT", "NAMESPACE", "RESULT"];
        rows.push(heads.map(str::to_owned).to_vec());
    }
    rows.extend(wanted.iter().map(|line| {
        let kind = match line.kind {
            Kind::Asked => "asked",
            Kind::Done => "done",
            Kind::Denied => "denied",
        };
        let or_dash = |text: &str| if text.is_empty() { "-" } else { text }.to_owned();
        let texts = [&line.who, &line.from, &line.what, &line.about, &line.namespace, &line.result];
        let mut row = vec![rfc3339(line.at_millis), kind.to_owned()];
        row.extend(texts.map(|text| or_dash(text)));
        row
    }));
    aligned(&rows).iter().try_for_each(|line| cx.out.line(line))
}

/// Does something that belongs into the audit log: it is there before it is done.
fn recorded<T>(
    data: &DataDir,
    what: &str,
    about: &str,
    namespace: &str,
    act: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let log = Audit::of(&data.root);
    let line = |kind, result: &str| Line {
        about: about.into(),
        namespace: namespace.into(),
        result: result.into(),
        ..Line::of_command(kind, now(), what)
    };
    log.act(line(Kind::Asked, "")).map_err(|error| {
        let message = "the act cannot be put into the audit log, and is not carried out";
        Failure::new(Code::Unrecorded, message).because(&error)
    })?;
    let done = act();
    let result = done.as_ref().map_or_else(|failure| failure.code.as_str(), |_| "ok");
    // It is done, whether this is recorded or not; that it was asked for is.
    drop(log.act(line(Kind::Done, result)));
    done
}

fn told(cx: &Context, object: &Value, words: &str) -> Result<(), Failure> {
    if cx.out.json { cx.out.object(object) } else { cx.out.line(words) }
}

impl From<KeepError> for Failure {
    fn from(error: KeepError) -> Self {
        let (code, hint) = match &error {
            KeepError::Io { .. } => (Code::Directory, ""),
            KeepError::Damaged { .. } => {
                (Code::Damaged, "restore it, or remove it and make new keys")
            }
            KeepError::Random(_) => (Code::Internal, ""),
            KeepError::Taken { .. } => (Code::Exists, ""),
            KeepError::NoKey { .. } | KeepError::Revoked { .. } => {
                (Code::Invalid, "`ax auth key list` shows the keys there are")
            }
            KeepError::Name | KeepError::TooMany => (Code::Invalid, ""),
        };
        let failure = Self::new(code, error.to_string());
        let failure = if hint.is_empty() { failure } else { failure.hint(hint) };
        match std::error::Error::source(&error) {
            Some(source) => failure.because(source),
            None => failure,
        }
    }
}
