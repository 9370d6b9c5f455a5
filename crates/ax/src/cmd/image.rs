//! `ax image …`: the images of the data directory.
//!
//! The store has a lock of its own, so these commands work beside a server.

use crate::args::{ImageArgs, ImageCommand};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::link::Context;
use crate::time::rfc3339;
use crate::view::describe::bytes;
use crate::view::table::aligned;
use ax_engine::Code;
use ax_image::{Digest, Error, Image, Import, Progress, Pull, Reference, Store};
use serde_json::{Value, json};
use std::io;
use std::path::Path;

/// How many digits of a digest people are shown.
const DIGITS: usize = 12;

pub(crate) async fn image(cx: &Context, args: ImageArgs) -> Result<Exit, Failure> {
    let store = Store::open(&cx.own_data("images")?.images())?;
    match args.command {
        ImageCommand::Import { path, name, tag } => import(cx, &store, &path, name, tag),
        ImageCommand::Pull { reference, name, username, password_env } => {
            let credentials = credentials(username, password_env)?;
            let reference = Reference::parse(&reference)?;
            let pull = Pull { name, credentials };
            let image = store.pull(&reference, &pull, &mut |progress| tell(cx, progress)).await?;
            taken(cx, &image)
        }
        ImageCommand::List => list(cx, &store),
        ImageCommand::Show { image } => show(cx, &store.find(&image)?),
        ImageCommand::Delete { image } => {
            let image = store.delete(&image)?;
            let object = json!({"type": "deleted", "image": image.name});
            told(cx, &object, &format!("deleted {}", image.name))
        }
    }?;
    Ok(Exit::Done)
}

fn import(
    cx: &Context,
    store: &Store,
    path: &Path,
    name: Option<String>,
    tag: Option<String>,
) -> Result<(), Failure> {
    let import = Import { name, tag, ..Import::default() };
    let image = store.import(path, &import, &mut |progress| tell(cx, progress))?;
    taken(cx, &image)
}

/// Reads the password from the environment, so that it is on no command line and in no history.
fn credentials(
    username: Option<String>,
    variable: Option<String>,
) -> Result<Option<(String, String)>, Failure> {
    let (Some(username), Some(variable)) = (username, variable) else { return Ok(None) };
    let password = std::env::var(&variable).unwrap_or_default();
    if password.is_empty() {
        let message = format!("the environment variable {variable} is not set");
        return Err(Failure::usage(message).hint("it has the password or token for the registry"));
    }
    Ok(Some((username, password)))
}

/// Tells that an image was taken in.
fn taken(cx: &Context, image: &Image) -> Result<(), Failure> {
    let left_out: u64 = image.layers.iter().map(|layer| layer.left_out).sum();
    if left_out > 0 {
        cx.out.notice(&format!("{left_out} devices and pipes of it are left out"));
    }
    told(cx, &typed(image, "imported"), &format!("{} {}", image.name, image.digest))
}

fn tell(cx: &Context, progress: Progress) {
    cx.out.progress(&match progress {
        Progress::Known(digest) => format!("{} is here already", short(&digest)),
        // Only at its end: a line for each piece would be thousands.
        Progress::Fetched { bytes: here, of, .. } if here < of => return,
        Progress::Fetched { digest, of, .. } => {
            format!("{} is fetched, {}", short(&digest), bytes(of))
        }
        Progress::Unpacking(digest) => format!("{} is being unpacked", short(&digest)),
    });
}

fn list(cx: &Context, store: &Store) -> Result<(), Failure> {
    let images = store.list()?;
    if cx.out.json {
        return images.iter().try_for_each(|image| cx.out.object(&typed(image, "image")));
    }
    if images.is_empty() {
        cx.out.progress(
            "there are no images; `ax image pull` fetches one, `ax image import` takes one in",
        );
        return Ok(());
    }
    let mut rows = Vec::with_capacity(images.len() + 1);
    if !cx.out.quiet {
        rows.push(["IMAGE", "DIGEST", "SIZE", "IMPORTED"].map(str::to_owned).to_vec());
    }
    rows.extend(images.iter().map(|image| {
        let imported = rfc3339(image.imported_at_millis);
        vec![image.name.clone(), short(&image.digest), bytes(image.bytes()), imported]
    }));
    aligned(&rows).iter().try_for_each(|line| cx.out.line(line))
}

fn show(cx: &Context, image: &Image) -> Result<(), Failure> {
    if cx.out.json {
        return cx.out.object(&typed(image, "image"));
    }
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row("name", image.name.clone()),
        row("digest", image.digest.to_string()),
        row("platform", image.platform.to_string()),
        row("source", image.source.clone()),
        row("imported", rfc3339(image.imported_at_millis)),
        row("size", bytes(image.bytes())),
    ];
    let words = [
        ("user", image.user.clone()),
        ("directory", image.working_dir.clone()),
        ("entrypoint", image.entrypoint.join(" ")),
        ("command", image.command.join(" ")),
    ];
    rows.extend(words.into_iter().filter(|(_, value)| !value.is_empty()).map(|(n, v)| row(n, v)));
    rows.extend(image.env.iter().map(|one| row("env", one.clone())));
    rows.extend(image.layers.iter().map(|layer| {
        let text = format!("{} {}, {} entries", layer.digest, bytes(layer.bytes), layer.entries);
        row("layer", text)
    }));
    let plain = |row: &Vec<String>| row.iter().map(|cell| printable(cell)).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(plain).collect();
    aligned(&rows).iter().try_for_each(|line| cx.out.line(line))
}

/// What an image says of itself, without what a terminal would take for a command.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn short(digest: &Digest) -> String {
    digest.hex()[..DIGITS].to_owned()
}

fn typed(image: &Image, kind: &str) -> Value {
    let mut object = serde_json::to_value(image).unwrap_or_default();
    if let Some(fields) = object.as_object_mut() {
        fields.insert("type".into(), kind.into());
    }
    object
}

fn told(cx: &Context, object: &Value, words: &str) -> Result<(), Failure> {
    if cx.out.json { cx.out.object(object) } else { cx.out.line(words) }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::NotFound { .. } | Error::Ambiguous { .. } => Code::NoImage,
            Error::Name { .. } => Code::Invalid,
            Error::Version { .. } => Code::Version,
            Error::Registry { .. } => Code::Registry,
            Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => Code::Full,
            Error::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
                return Self::file("read", path, source);
            }
            Error::Io { .. } => Code::Directory,
            _ => Code::Image,
        };
        let failure = Self::new(code, error.to_string());
        let failure = match error.hint() {
            "" => failure,
            hint => failure.hint(hint),
        };
        match std::error::Error::source(&error) {
            Some(source) => failure.because(source),
            None => failure,
        }
    }
}
