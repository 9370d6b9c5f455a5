//! From what is asked for to what the launcher is told.

use crate::backend::Spec;
use crate::order::{Bind, Order};
use crate::plan::{Mount, Root};
use crate::registry::Entry;
use crate::wall::Refusal;
use std::fs;
use std::path::{Path, PathBuf};

/// Puts together what the launcher needs to know.
pub(super) fn order(
    private: &[PathBuf],
    spec: &Spec,
    entry: &Entry,
    isolated: bool,
) -> Result<Order, Refusal> {
    let mut env = spec.env.clone();
    let of_plan = |(name, value): (&String, &String)| (name.into(), value.into());
    env.extend(spec.plan.env.iter().map(of_plan));
    let image = match (&spec.plan.root, &spec.image) {
        (Root::Host, _) => None,
        (Root::Image(_), Some(image)) if !image.layers.is_empty() => Some(image.clone()),
        (Root::Image(name), _) => {
            let cause = format!("sandbox.root: there is no image {name} at hand");
            return Err(Refusal::new(cause, "`ax image list` shows the images there are"));
        }
    };
    let dir = real("the workspace", &spec.dir)?;
    let spec = &Spec { dir, ..spec.clone() };
    Ok(Order {
        isolated,
        name: entry.name.clone(),
        entry: entry.path.clone(),
        command: spec.command.clone(),
        dir: spec.cwd.clone().unwrap_or_else(|| spec.dir.clone()),
        env,
        plan: spec.plan.clone(),
        binds: binds(spec),
        covers: covers(private, spec),
        links: spec.links.iter().filter_map(link).collect(),
        image,
        gateway: spec.gateway.clone(),
        ids: is_root().then_some(entry.ids),
        without: spec.without.clone(),
    })
}

/// Returns a link, and where it leads.
fn link(path: &PathBuf) -> Option<(PathBuf, PathBuf)> {
    Some((path.clone(), fs::read_link(path).ok()?))
}

/// Refuses mounts that would show what the runtime keeps for itself. Of a working directory, the
/// part is covered that would: see [`covers`].
pub(super) fn check_private(private: &[PathBuf], spec: &Spec) -> Result<(), Refusal> {
    let cwd = hidden_cwd(spec);
    if let Some(cwd) = cwd {
        crate::plan::check_shown(cwd).map_err(|(cause, hint)| {
            Refusal::new(format!("the working directory {} {cause}", cwd.display()), hint)
        })?;
    }
    let mounts = spec.plan.mounts.iter().map(|mount| ("sandbox.mounts", &*mount.source, true));
    for (what, path, all) in mounts.chain(cwd.map(|cwd| ("the working directory", cwd, false))) {
        let source = real(what, path)?;
        let shows = |path: &PathBuf| {
            source.starts_with(path) || (path.starts_with(&source) && (all || *path == source))
        };
        if private.iter().filter_map(|path| fs::canonicalize(path).ok()).any(|path| shows(&path)) {
            let cause = format!("{what}: {} would show the runtime's own files", path.display());
            return Err(Refusal::new(cause, "use a directory beside the data directory"));
        }
    }
    Ok(())
}

/// Returns what of the working directory, programs and mounts is covered, as it is the runtime's
/// own or nobody's to see.
fn covers(private: &[PathBuf], spec: &Spec) -> Vec<PathBuf> {
    let hidden = private.iter().chain(&spec.covers).filter_map(|path| fs::canonicalize(path).ok());
    let hidden: Vec<_> = hidden.collect();
    let own = hidden_cwd(spec).into_iter().chain(spec.programs.iter().map(PathBuf::as_path));
    let mounts = spec.plan.mounts.iter().map(|mount| (&*mount.source, mount.target()));
    let mut covers = Vec::new();
    for (source, target) in own.map(|path| (path, path)).chain(mounts) {
        let Ok(source) = fs::canonicalize(source) else { continue };
        let within = hidden.iter().filter_map(|path| path.strip_prefix(&source).ok());
        let within = within.filter(|rest| !rest.as_os_str().is_empty());
        covers.extend(within.map(|rest| target.join(rest)));
    }
    covers.sort();
    covers.dedup();
    covers
}

/// Returns the working directory if nothing else shows it.
fn hidden_cwd(spec: &Spec) -> Option<&Path> {
    let cwd = spec.cwd.as_deref()?;
    let mounts = spec.plan.mounts.iter().map(Mount::target);
    let others = spec.programs.iter().chain(&spec.files).map(PathBuf::as_path);
    // An image has a `/usr` of its own, and directories that the host may not have.
    let is_image = matches!(spec.plan.root, Root::Image(_));
    if is_image && fs::symlink_metadata(cwd).is_err() {
        return None;
    }
    let usr = Some(Path::new("/usr")).filter(|_| !is_image);
    let mut shown = mounts.chain(others).chain(usr).chain([&*spec.dir, Path::new("/tmp")]);
    // What the sandbox has below /tmp is not what the host has there.
    let own = |shown: &Path| shown != Path::new("/tmp") || cwd == shown;
    let hidden = !shown.any(|shown| cwd.starts_with(shown) && own(shown));
    hidden.then_some(cwd)
}

fn real(what: &str, path: &Path) -> Result<PathBuf, Refusal> {
    fs::canonicalize(path).map_err(|error| {
        let cause = format!("{what}: {}: {error}", path.display());
        Refusal::new(cause, "the path has to exist where the runtime runs")
    })
}

/// Returns everything to mount, parents before children.
fn binds(spec: &Spec) -> Vec<Bind> {
    let same = |path: &Path, writable| Bind {
        source: path.to_path_buf(),
        target: path.to_path_buf(),
        writable,
        mapped: writable,
    };
    let mut binds: Vec<Bind> = spec.programs.iter().map(|path| same(path, false)).collect();
    binds.extend(spec.files.iter().map(|path| Bind { mapped: true, ..same(path, false) }));
    binds.extend(spec.plan.mounts.iter().map(|mount| Bind {
        source: mount.source.clone(),
        target: mount.target().to_path_buf(),
        writable: mount.writable,
        mapped: mount.writable,
    }));
    binds.extend(hidden_cwd(spec).map(|cwd| Bind { mapped: true, ..same(cwd, false) }));
    binds.push(same(&spec.dir, true));
    binds.sort_by_key(|bind| bind.target.components().count());
    binds
}

/// Returns whether this process may make sandboxes with ids of their own.
fn is_root() -> bool {
    use rustix::thread::CapabilitySet;
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::SETUID | CapabilitySet::SETGID;
    let capabilities = rustix::thread::capabilities(None);
    rustix::process::geteuid().is_root()
        && capabilities.is_ok_and(|sets| sets.effective.contains(needed))
}
