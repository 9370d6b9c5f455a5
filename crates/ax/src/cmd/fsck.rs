//! `ax fsck`: is what is stored what was written?

use crate::args::FsckArgs;
use crate::embed::log_failure;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::link::Context;
use crate::out::Style;
use crate::paths::DataDir;
use crate::view::describe::bytes;
use ax_engine::Code;
use ax_log::fsck::{self, Finding, Harm, Lost, Repaired, Report};
use ax_log::{OpenError, Options};
use ax_store::Blobs;
use serde_json::json;
use std::path::PathBuf;

/// What was found of the blobs.
#[derive(Debug, Default)]
struct Contents {
    count: u64,
    bytes: u64,
    damaged: Vec<String>,
}

pub(crate) async fn fsck(cx: &Context, args: &FsckArgs) -> Result<Exit, Failure> {
    let data = cx.data()?;
    if let (Some(_), Some(holder)) = (cx.server().await?, data.holder()) {
        let message = format!("{} is in use by pid {}", data.root.display(), holder.pid);
        return Err(Failure::new(Code::Locked, message)
            .hint("stop it first: a check needs the log at rest"));
    }
    if !data.log().exists() {
        let object = json!({"type": "fsck", "sound": true, "sessions": 0, "entries": 0});
        let words = format!("nothing is stored in {}", data.root.display());
        if cx.out.json {
            cx.out.object(&object)?
        } else {
            cx.out.line(&words)?
        }
        return Ok(Exit::Done);
    }
    let (report, quarantine) = look(&data, args.repair).await?;
    let contents = contents(&data).await?;
    for finding in &report.findings {
        tell(cx, finding)?;
    }
    for lost in &report.lost {
        tell_lost(cx, lost)?;
    }
    for damaged in &contents.damaged {
        let object = json!({"type": "finding", "what": damaged, "harm": "damage"});
        if cx.out.json { cx.out.object(&object)? } else { cx.out.line(damaged)? }
    }
    summary(cx, &report, &contents, quarantine)
}

/// Checks or repairs the log.
async fn look(data: &DataDir, repair: bool) -> Result<(Report, Option<PathBuf>), Failure> {
    let options = Options::new(data.log());
    let looked = tokio::task::spawn_blocking(move || {
        if repair {
            let Repaired { report, quarantine } = fsck::repair(&options)?;
            return Ok((report, quarantine));
        }
        fsck::check(&options).map(|report| (report, None))
    });
    let looked: Result<_, OpenError> = looked
        .await
        .map_err(|error| Failure::new(Code::Internal, "the check broke").because(&error))?;
    looked.map_err(|error| log_failure(data, &error))
}

/// Reads every blob.
async fn contents(data: &DataDir) -> Result<Contents, Failure> {
    let mut contents = Contents::default();
    if !data.blobs().exists() {
        return Ok(contents);
    }
    let failed = |error: &dyn std::error::Error| {
        Failure::new(Code::Read, "the blobs cannot be read").because(error)
    };
    let blobs = Blobs::local(&data.blobs()).map_err(|error| failed(&error))?;
    for namespace in blobs.namespaces().await.map_err(|error| failed(&error))? {
        let found = blobs.verify_all(&namespace).await.map_err(|error| failed(&error))?;
        contents.count += found.usage.count;
        contents.bytes += found.usage.bytes;
        let damaged = found.damaged.iter().map(|error| format!("{namespace}: {error}"));
        contents.damaged.extend(damaged);
    }
    Ok(contents)
}

fn tell(cx: &Context, finding: &Finding) -> Result<(), Failure> {
    let harmless = finding.harm == Harm::None;
    if cx.out.json {
        return cx.out.object(&json!({
            "type": "finding",
            "path": finding.path.to_string_lossy(),
            "offset": finding.offset,
            "what": finding.what,
            "consequence": finding.consequence,
            "harm": if harmless { "none" } else { "damage" },
        }));
    }
    let style = if harmless { Style::Dim } else { Style::Red };
    let word = if harmless { "harmless" } else { "damage" };
    let place = format!("{} at byte {}", finding.path.display(), finding.offset);
    cx.out.line(&format!("{}: {place}: {}", cx.out.style(style, word), finding.what))?;
    if finding.consequence.is_empty() {
        return Ok(());
    }
    cx.out.line(&format!("  {}", finding.consequence))
}

fn tell_lost(cx: &Context, lost: &Lost) -> Result<(), Failure> {
    let (session, first, last) = (&lost.session, lost.first.0, lost.last.0);
    if cx.out.json {
        return cx.out.object(&json!({
            "type": "lost",
            "namespace": session.namespace.as_str(),
            "session": session.session.to_string(),
            "first": first,
            "last": last,
        }));
    }
    cx.out.line(&format!("lost: events {first} to {last} of {session}"))
}

fn summary(
    cx: &Context,
    report: &Report,
    contents: &Contents,
    quarantine: Option<PathBuf>,
) -> Result<Exit, Failure> {
    let repaired = quarantine.is_some();
    let sound = (report.is_sound() || repaired) && contents.damaged.is_empty();
    let exit = if sound { Exit::Done } else { Exit::Failed };
    if cx.out.json {
        cx.out.object(&json!({
            "type": "fsck",
            "sound": sound,
            "repaired": repaired,
            "sessions": report.sessions,
            "entries": report.entries,
            "blobs": contents.count,
            "blob_bytes": contents.bytes,
            "quarantine": quarantine.map(|path| path.to_string_lossy().into_owned()),
        }))?;
        return Ok(exit);
    }
    if let Some(path) = quarantine {
        cx.out.line(&format!("repaired; what was there before is in {}", path.display()))?;
    }
    let (sessions, entries) = (report.sessions, report.entries);
    let (count, size) = (contents.count, bytes(contents.bytes));
    let verdict = if sound { "sound" } else { "damaged" };
    cx.out.line(&format!(
        "{verdict}: {sessions} sessions with {entries} events, {count} blobs with {size}"
    ))?;
    if !report.is_sound() && !repaired {
        cx.out.notice("make a copy of the data directory, then: ax fsck --repair");
    }
    Ok(exit)
}
