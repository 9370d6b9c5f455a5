//! Where an agent keeps its state, and what its command is told of that.
//!
//! ```text
//! WORKSPACE/.ax/acp/live/session.json   which of the agent's sessions is ours
//!                       /state/         what the agent keeps: `{state}` in the manifest
//!                  /turn-EXECUTION/     a copy of `live` from when that execution began
//! ```
//!
//! The two are copied and put back as one, so that the name of the session and what the agent knows
//! of it belong together. A copy is complete when it has its name: it is made under another one.
//! Power that is lost may spoil a copy; what an agent writes is as durable as the agent makes it.

use super::config::{AfterCrash, Config};
use super::failure;
use crate::environment;
use crate::launch::Launch;
use crate::own::{Held, own_dir};
use crate::programs::Programs;
use crate::turn::copies::{forget_turns, hide, is_small, put};
use ax_core::session::Failure;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The file that says which of the agent's sessions is ours.
const MARKER: &str = "session.json";
/// Its largest size, in bytes.
const MARKER_BYTES_MAX: u64 = 64 * 1024;
/// The version of that file.
const VERSION: u32 = 1;

/// Which of the agent's sessions is ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    version: u32,
    /// The agent's name for its session.
    pub(super) session: String,
}

impl Marker {
    pub(super) fn new(session: &str) -> Self {
        Self { version: VERSION, session: session.to_owned() }
    }
}

/// The directories of a session.
#[derive(Debug)]
pub(super) struct Place {
    /// What the agent works on, as an absolute path.
    pub(super) workspace: PathBuf,
    live: PathBuf,
    /// The same directory.
    held: Held,
    /// What it belongs to that is filled in, in braces, and what is put there.
    words: Vec<(String, String)>,
}

impl Place {
    /// Makes the directories ready for an attempt: as they were when the execution began, unless
    /// the agent shall go on with what it has.
    pub(super) fn of(config: &Config, launch: &Launch) -> Result<Self, Failure> {
        let no_place = |error: io::Error| {
            failure("state", format!("the agent's state is out of reach: {error}"))
        };
        let workspace = std::path::absolute(&launch.workspace).map_err(no_place)?;
        let root = own_dir(&workspace, ".ax/acp".as_ref()).map_err(no_place)?;
        let live = root.join("live");
        hide(&workspace.join(".ax")).map_err(no_place)?;
        let turn = root.join(format!("turn-{}", launch.exec));
        let begun = fs::symlink_metadata(&turn).is_ok_and(|found| found.is_dir());
        if begun && config.after_crash == AfterCrash::Replay {
            put_back(&turn, &live).map_err(no_place)?;
        }
        let state = own_dir(&root, "live/state".as_ref()).map_err(no_place)?;
        if !begun {
            forget_turns(&root).map_err(no_place)?;
            if is_small(&live).map_err(no_place)? {
                put(&live, &turn).map_err(no_place)?;
            }
        }
        let held = Held::open(&live).map_err(no_place)?;
        let mut words = vec![
            ("{state}".to_owned(), state.display().to_string()),
            ("{workspace}".to_owned(), workspace.display().to_string()),
        ];
        let dir = config.dir.as_deref().unwrap_or(&workspace);
        words.push(("{dir}".to_owned(), dir.display().to_string()));
        words.extend(launch.env.iter().map(|(name, value)| (format!("{{{name}}}"), value.clone())));
        let place = Self { workspace, live, held, words };
        place.seed(config).map_err(no_place)?;
        Ok(place)
    }

    /// Writes the files of the manifest.
    fn seed(&self, config: &Config) -> io::Result<()> {
        for (path, text) in &config.files {
            let path = Path::new("state").join(path);
            let dir = own_dir(&self.live, path.parent().unwrap_or(&path))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            Held::open(&dir)?.write(&name, self.fill(text).as_bytes())?;
        }
        Ok(())
    }

    /// Returns which of the agent's sessions is ours, if it has one.
    pub(super) fn marker(&self) -> Option<Marker> {
        let text = self.held.read(MARKER, MARKER_BYTES_MAX).ok()?;
        serde_json::from_slice(&text).ok().filter(|marker: &Marker| marker.version == VERSION)
    }

    /// Remembers which of the agent's sessions is ours.
    pub(super) fn mark(&self, marker: &Marker) -> Result<(), Failure> {
        let text = serde_json::to_vec(marker).expect("a marker can always be written");
        let written = self.held.write(MARKER, &text);
        written.map_err(|error| failure("state", format!("the session cannot be kept: {error}")))
    }

    /// Returns the command with everything filled in.
    pub(super) fn command(&self, config: &Config) -> Vec<OsString> {
        let mut words: Vec<OsString> =
            config.command.iter().map(|word| self.fill(word).into()).collect();
        // A path is taken from where the manifest is; a name is looked up.
        if let (Some(program), Some(dir)) = (words.first_mut(), &config.dir)
            && program.to_string_lossy().contains('/')
        {
            *program = dir.join(&*program).into();
        }
        words
    }

    /// Returns the environment of the command.
    pub(super) fn env(
        &self,
        programs: &Programs,
        config: &Config,
        launch: &Launch,
    ) -> Vec<(OsString, OsString)> {
        // What the manifest says comes last but for what the runtime says of itself.
        let added = config.env.iter().map(|(name, value)| (name.into(), self.fill(value).into()));
        let state = self.live.join("state").into();
        let env = programs.inherited().into_iter().chain(environment::identity(launch));
        env.chain(added).chain([("AX_HARNESS_STATE".into(), state)]).collect()
    }

    fn fill(&self, word: &str) -> String {
        self.words.iter().fold(word.to_owned(), |word, (name, value)| word.replace(name, value))
    }
}

/// Puts the state back to where a turn began. What an agent made at its first start, such as a name
/// for its installation, stays: it would be another one the next time.
fn put_back(turn: &Path, live: &Path) -> io::Result<()> {
    if turn.join(MARKER).exists() {
        return put(turn, live);
    }
    match fs::remove_file(live.join(MARKER)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ax_core::id::{AttemptId, ExecId, Namespace, Seq, SessionId, SessionKey};
    use serde_json::{Value, json};

    fn launch(workspace: &Path, exec: u32) -> Launch {
        Launch {
            key: SessionKey::new(Namespace::default(), SessionId(1)),
            agent: crate::AgentInfo {
                name: "test".into(),
                version: 1,
                harness: Value::Null,
                gateway: Value::Null,
                sandbox: "process".into(),
            },
            exec: ExecId(exec),
            attempt: AttemptId(1),
            workspace: workspace.to_owned(),
            history: Vec::new(),
            kept: None,
            input_seq: Seq(2),
            input: Vec::new(),
            journal: Vec::new(),
            sent: Vec::new(),
            used: ax_gateway::Used::default(),
            doubts: Default::default(),
            env: vec![("OPENAI_BASE_URL".into(), "http://gateway/v1".into())],
        }
    }

    fn config(after_crash: &str) -> Config {
        let command = ["agent", "-c", "url=\"{OPENAI_BASE_URL}\"", "{state}/x"];
        let files = json!({"a/settings": "at {OPENAI_BASE_URL}"});
        Config::parse(&json!({
            "type": "acp", "command": command, "afterCrash": after_crash, "files": files,
        }))
        .unwrap()
    }

    fn kept(place: &Place) -> String {
        fs::read_to_string(place.live.join("state/kept")).unwrap_or_default()
    }

    fn keep(place: &Place, text: &str) {
        fs::write(place.live.join("state/kept"), text).unwrap();
        place.mark(&Marker::new(text)).unwrap();
    }

    #[test]
    fn a_new_attempt_finds_the_state_as_it_was_when_the_execution_began() {
        let dir = tempfile::tempdir().unwrap();
        let place = |after_crash: &str, exec| {
            Place::of(&config(after_crash), &launch(dir.path(), exec)).unwrap()
        };
        let first = place("replay", 1);
        assert_eq!((first.marker(), kept(&first)), (None, String::new()));
        keep(&first, "half a turn");
        let again = place("replay", 1);
        let first_start = "half a turn".to_owned();
        assert_eq!((again.marker(), kept(&again)), (None, first_start), "a new session");
        keep(&again, "a turn");
        let second = place("replay", 2);
        assert_eq!(kept(&second), "a turn");
        keep(&second, "half of another");
        let again = place("replay", 2);
        assert_eq!((again.marker(), kept(&again)), (Some(Marker::new("a turn")), "a turn".into()));
        keep(&again, "half of another");
        assert_eq!(kept(&place("continue", 2)), "half of another");
        let turns = fs::read_dir(dir.path().join(".ax/acp")).unwrap().count();
        assert_eq!(turns, 2, "one copy is kept");
    }

    #[test]
    fn a_copy_that_was_cut_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let first = Place::of(&config("replay"), &launch(dir.path(), 1)).unwrap();
        keep(&first, "a turn");
        let cut = dir.path().join(".ax/acp").join(format!("turn-{}.new", ExecId(2)));
        fs::create_dir_all(cut.join("state")).unwrap();
        let second = Place::of(&config("replay"), &launch(dir.path(), 2)).unwrap();
        assert_eq!(kept(&second), "a turn");
        let again = Place::of(&config("replay"), &launch(dir.path(), 2)).unwrap();
        assert_eq!(kept(&again), "a turn");
    }

    #[test]
    fn what_the_runtime_knows_is_filled_in() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::of(&config("replay"), &launch(dir.path(), 1)).unwrap();
        let command = place.command(&config("replay"));
        assert_eq!(command[2], "url=\"http://gateway/v1\"");
        let state = place.live.join("state/x");
        assert_eq!(command[3], state.as_os_str());
        let settings = fs::read_to_string(place.live.join("state/a/settings")).unwrap();
        assert_eq!(settings, "at http://gateway/v1");
    }
}
