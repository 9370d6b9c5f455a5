//! What of the host a program needs to run: itself, and what it is a link to, written for or
//! installed with.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

/// How many links a path may lead through, as for the kernel (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// How many programs one program may need, each for the one before.
const INTERPRETERS_MAX: usize = 4;
/// How much of a program is looked at, in bytes: the kernel does not read a longer first line.
const FIRST_LINE_BYTES: u64 = 256;

/// What is shown of the host, and what else a program brings along.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// What is shown in any case, with everything in it.
    dirs: Vec<PathBuf>,
    /// Where programs write: what is there says nothing of what they may see.
    written: Vec<PathBuf>,
    /// Files and directories that are shown besides.
    pub(super) programs: Vec<PathBuf>,
    /// Links on the way to them.
    pub(super) links: Vec<PathBuf>,
}

impl Shown {
    /// Begins with these; `written` are among them.
    pub(super) fn new(dirs: Vec<PathBuf>, written: Vec<PathBuf>) -> Self {
        Self { dirs, written, ..Self::default() }
    }

    pub(super) fn add(&mut self, dir: PathBuf) {
        self.dirs.push(dir);
    }

    /// Whether a path is in one of the directories.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.dirs.iter().chain(&self.programs).any(|dir| path.starts_with(dir))
    }

    /// Adds what a program brings along: the Python environment or the Node modules that it is in,
    /// else the program alone; and the same for what it is a link to and what runs it.
    pub(super) fn bring(&mut self, program: &Path, path: Option<&OsStr>) {
        let mut next = Some(program.to_owned());
        for _ in 0..INTERPRETERS_MAX {
            let Some(program) = next.take() else { return };
            let Some(real) = self.follow(&program) else { return };
            if !self.is_written(&real) {
                next = self.interpreter(&real, path);
            }
        }
    }

    /// Adds a file, and the links that lead to it; returns where it really is.
    fn follow(&mut self, path: &Path) -> Option<PathBuf> {
        let (links, real) = resolve(path)?;
        for link in links {
            // Whoever can write there chooses no more of what is shown.
            if self.is_written(&link) {
                return None;
            }
            let tree = self.tree(&link);
            if !tree && !self.has(&link) {
                self.links.push(link);
            }
        }
        let tree = self.tree(&real);
        if !tree && !self.has(&real) && real.is_file() {
            self.programs.push(installation(&real).unwrap_or_else(|| real.clone()));
        }
        Some(real)
    }

    /// Adds the Python environment or the Node modules that something is in, if it is.
    fn tree(&mut self, path: &Path) -> bool {
        let Some(tree) = tree_of(path).filter(|tree| !self.is_written(tree)) else { return false };
        if !self.has(tree) {
            self.programs.push(tree.to_owned());
        }
        if let Some(python) = base_of_python(tree)
            && let Some((links, real)) = resolve(&python)
        {
            let fresh: Vec<_> = links.into_iter().filter(|link| !self.has(link)).collect();
            self.links.extend(fresh);
            if let Some(base) = installation(&real).filter(|base| !self.has(base)) {
                self.programs.push(base);
            }
        }
        true
    }

    /// Returns a program's path, as it would be found outside. Of those that a `PATH` leads to, a
    /// script that stands alone is the last one to be taken: as a rule it needs what is beside it.
    pub(super) fn named(&self, name: &OsStr, dir: &Path, path: Option<&OsStr>) -> Option<PathBuf> {
        let is_plain =
            |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        let found = if name.as_encoded_bytes().contains(&b'/') {
            dir.join(name)
        } else {
            let found = std::env::split_paths(path?).map(|dir| dir.join(name));
            let found: Vec<_> = found.filter(|path| path.is_file()).collect();
            let whole = found.iter().find(|path| self.has(path) || !is_lone_script(path));
            whole.or_else(|| found.first())?.clone()
        };
        Some(found).filter(|path| path.is_absolute() && path.components().all(is_plain))
    }

    /// Returns the program that the first line of another one names.
    fn interpreter(&self, program: &Path, path: Option<&OsStr>) -> Option<PathBuf> {
        let words = first_line(program)?;
        let first = Path::new(words.first()?);
        if first.file_name() != Some(OsStr::new("env")) {
            return self.named(first.as_os_str(), Path::new("/"), None);
        }
        let mut rest = words.iter().skip(1);
        let name = rest.find(|word| !word.starts_with('-') && !word.contains('='))?;
        self.named(OsStr::new(name), Path::new("/"), path)
    }

    fn is_written(&self, path: &Path) -> bool {
        self.written.iter().any(|dir| path.starts_with(dir))
    }

    /// Leaves out of a `PATH` what is not there.
    pub(super) fn visible(&self, value: &OsStr) -> OsString {
        let alone = |dir: &PathBuf| {
            let real = resolve(dir).map_or_else(|| dir.clone(), |(_, real)| real);
            let mut there = self.programs.iter().chain(&self.links);
            there.any(|path| path.parent().is_some_and(|parent| *parent == *dir || parent == real))
        };
        let dirs = std::env::split_paths(value).filter(|dir| self.has(dir) || alone(dir));
        let joined = std::env::join_paths(dirs.collect::<Vec<_>>());
        joined.unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".into())
    }
}

/// Returns the links on the way to something, and where it is without any.
fn resolve(path: &Path) -> Option<(Vec<PathBuf>, PathBuf)> {
    let mut rest: VecDeque<OsString> = VecDeque::new();
    let names = |path: &Path| -> Vec<OsString> {
        path.components().map(|part| part.as_os_str().to_owned()).collect()
    };
    rest.extend(names(path));
    let (mut links, mut at) = (Vec::new(), PathBuf::new());
    while let Some(name) = rest.pop_front() {
        match Path::new(&name).components().next()? {
            Component::ParentDir => {
                at.pop();
                continue;
            }
            Component::CurDir => continue,
            _ => at.push(&name),
        }
        let Ok(to) = fs::read_link(&at) else { continue };
        if links.len() == LINKS_MAX {
            return None;
        }
        links.push(at.clone());
        at.pop();
        for name in names(&to).into_iter().rev() {
            rest.push_front(name);
        }
    }
    Some((links, at))
}

/// Returns the words of the first line of a script.
fn first_line(program: &Path) -> Option<Vec<String>> {
    let mut line = Vec::new();
    let file = File::open(program).ok()?;
    let _as_much_as_there_is = file.take(FIRST_LINE_BYTES).read_to_end(&mut line);
    let line = line.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    Some(std::str::from_utf8(line).ok()?.split_ascii_whitespace().map(str::to_owned).collect())
}

fn is_lone_script(program: &Path) -> bool {
    let Some((links, real)) = resolve(program) else { return false };
    let mut way = links.iter().chain([&real]);
    !way.any(|path| tree_of(path).is_some()) && first_line(&real).is_some()
}

/// Returns the Python environment or the Node modules that something is in.
fn tree_of(path: &Path) -> Option<&Path> {
    path.ancestors().skip(1).find(|dir| {
        dir.join("pyvenv.cfg").is_file() || dir.file_name() == Some(OsStr::new("node_modules"))
    })
}

/// Returns the interpreter of a Python environment.
fn base_of_python(tree: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(tree.join("pyvenv.cfg")).ok()?;
    let home = text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == "home").then(|| PathBuf::from(value.trim()))
    })?;
    let programs = fs::read_dir(&home).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    let mut pythons = programs.filter(|path| is_python(path) && path.is_file());
    pythons.next().filter(|python| python.is_absolute())
}

fn is_python(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"python"))
}

/// Returns the directory in which a Python is installed with its library.
fn installation(program: &Path) -> Option<PathBuf> {
    let base = program.parent().filter(|_| is_python(program))?.parent()?;
    let libraries = fs::read_dir(base.join("lib")).ok()?.filter_map(Result::ok);
    let mut libraries = libraries.map(|entry| entry.path());
    libraries.any(|library| is_python(&library)).then(|| base.to_owned())
}
