//! Where the program is, and where it keeps its state.
//!
//! ```text
//! WORKSPACE/.ax/antigravity/live/trajectories/ID.db   the trajectory, as the program keeps it
//!                               /app/                 what else it keeps
//!                          /turn-EXECUTION/           a copy of `live` from when that one began
//! ```
//!
//! A new attempt of an execution begins with the copy. What was there of the turn is gone then, so
//! that the program asks what it asked before. A copy is complete when it has its name: it is made
//! under another one. Power that is lost may spoil a copy; what the program writes is as durable as
//! it makes it.

use super::config::Config;
use crate::environment;
use crate::launch::Launch;
use crate::own::own_dir;
use crate::programs::Programs;
use crate::turn::copies::{forget_turns, hide, is_small, put, remove};
use crate::turn::failure;
use ax_core::id::SessionKey;
use ax_core::session::Failure;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The program's name, where it is looked for last.
const PROGRAM: &str = "localharness";
/// Where it is in the directory of a wheel's packages.
const IN_PACKAGES: &str = "google/antigravity/bin/localharness";
/// The variable that names the program; the SDK has the same.
const PROGRAM_VARIABLE: &str = "ANTIGRAVITY_HARNESS_PATH";

/// The directories of a session.
#[derive(Debug)]
pub(super) struct Place {
    /// What the agent works on, as an absolute path.
    pub(super) workspace: PathBuf,
    /// The program's name for the session, the same in each attempt.
    pub(super) id: String,
    dir: PathBuf,
    live: PathBuf,
}

impl Place {
    /// Makes the directories ready for an attempt: as they were when the execution began.
    pub(super) fn of(config: &Config, launch: &Launch) -> Result<Self, Failure> {
        Self::made(config, launch).map_err(|error| {
            failure("state", format!("the program's state is out of reach: {error}"))
        })
    }

    fn made(config: &Config, launch: &Launch) -> io::Result<Self> {
        let workspace = std::path::absolute(&launch.workspace)?;
        let root = own_dir(&workspace, ".ax/antigravity".as_ref())?;
        let live = root.join("live");
        hide(&workspace.join(".ax"))?;
        let turn = root.join(format!("turn-{}", launch.exec));
        let begun = fs::symlink_metadata(&turn).is_ok_and(|found| found.is_dir());
        if begun {
            put(&turn, &live)?;
        }
        let dir = config.dir.clone().unwrap_or_else(|| workspace.clone());
        let place = Self { workspace, id: id(&launch.key), dir, live };
        own_dir(&root, "live/trajectories".as_ref())?;
        own_dir(&root, "live/app".as_ref())?;
        if !begun {
            forget_turns(&root)?;
            if is_small(&place.live)? {
                put(&place.live, &turn)?;
            }
        }
        Ok(place)
    }

    /// The directory of trajectories.
    pub(super) fn trajectories(&self) -> PathBuf {
        self.live.join("trajectories")
    }

    /// The directory of what else the program keeps.
    pub(super) fn app(&self) -> PathBuf {
        self.live.join("app")
    }

    /// Whether the program has a trajectory of the session.
    pub(super) fn has_trajectory(&self) -> bool {
        self.trajectories().join(format!("{}.db", self.id)).exists()
    }

    /// Removes what is left of a session that the program does not know.
    pub(super) fn clear(&self) -> Result<(), Failure> {
        let cleared = [self.trajectories(), self.app()]
            .iter()
            .try_for_each(|dir| remove(dir).and_then(|()| fs::create_dir(dir)));
        cleared.map_err(|error| {
            failure("state", format!("the program's state cannot be removed: {error}"))
        })
    }

    /// Returns the program and its arguments.
    pub(super) fn command(&self, config: &Config) -> Result<Vec<OsString>, Failure> {
        let mut words: Vec<OsString> =
            config.command.iter().map(|word| self.fill(word).into()).collect();
        match words.first_mut() {
            // A path is taken from where the manifest is; a name is looked up.
            Some(program) if program.to_string_lossy().contains('/') => {
                *program = self.dir.join(&*program).into();
            }
            Some(_) => {}
            None => words.push(self.program(config)?),
        }
        Ok(words)
    }

    /// Finds the program: in the environment that the manifest names, else where the runtime's own
    /// variables point, else among the programs of the machine.
    fn program(&self, config: &Config) -> Result<OsString, Failure> {
        if let Some(venv) = &config.venv {
            let venv = self.dir.join(venv);
            return in_venv(&venv).map(Into::into).ok_or_else(|| {
                let message = format!(
                    "there is no {IN_PACKAGES} in {}; install google-antigravity there",
                    venv.display()
                );
                failure("config", message)
            });
        }
        if let Some(program) = std::env::var_os(PROGRAM_VARIABLE) {
            return Ok(program);
        }
        let active = std::env::var_os("VIRTUAL_ENV");
        let found = active.and_then(|venv| in_venv(Path::new(&venv)));
        Ok(found.map_or_else(|| PROGRAM.into(), Into::into))
    }

    /// Returns the environment of the program.
    pub(super) fn env(
        &self,
        programs: &Programs,
        config: &Config,
        launch: &Launch,
    ) -> Vec<(OsString, OsString)> {
        let added = config.env.iter().map(|(name, value)| (name.into(), self.fill(value).into()));
        let env = programs.inherited().into_iter().chain(environment::identity(launch));
        env.chain(added).collect()
    }

    /// Returns where the model is, and the key to it.
    pub(super) fn model(&self, config: &Config, launch: &Launch) -> Result<Model, Failure> {
        let of = |wanted: &str| {
            let given = config.env.iter();
            let of_gateway = launch.env.iter().map(|(name, value)| (name, value));
            let mut all = of_gateway.chain(given).filter(|(name, _)| *name == wanted);
            all.next_back().map(|(_, value)| self.fill(value))
        };
        let key = of("GEMINI_API_KEY").ok_or_else(|| {
            let message = "the agent has no model: neither has the gateway a model of the \
                provider gemini, nor is GEMINI_API_KEY in `env`";
            failure("config", message)
        })?;
        Ok(Model { base_url: of("GOOGLE_GEMINI_BASE_URL"), key })
    }

    fn fill(&self, word: &str) -> String {
        let words =
            [("{state}", &self.live), ("{workspace}", &self.workspace), ("{dir}", &self.dir)];
        words.iter().fold(word.to_owned(), |word, (name, path)| {
            word.replace(name, &path.display().to_string())
        })
    }
}

/// Where a model is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Model {
    /// The address; the provider's own if there is none.
    pub(super) base_url: Option<String>,
    pub(super) key: String,
}

/// The program's name for a session: what it takes has 32 characters at least.
fn id(key: &SessionKey) -> String {
    let name = format!("{}/{}", key.namespace.as_str(), key.session);
    let hash = blake3::hash(name.as_bytes()).to_hex();
    format!("ax-{}", &hash[..32])
}

/// Finds the program among the packages of a Python environment.
fn in_venv(venv: &Path) -> Option<PathBuf> {
    ["lib", "lib64"].iter().find_map(|lib| {
        let versions = fs::read_dir(venv.join(lib)).ok()?.flatten();
        let mut programs =
            versions.map(|version| version.path().join("site-packages").join(IN_PACKAGES));
        programs.find(|program| program.is_file())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ax_core::id::{AttemptId, ExecId, Namespace, Seq, SessionId};
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
            env: Vec::new(),
        }
    }

    fn config(more: &[(&str, Value)]) -> Config {
        let mut section = json!({"type": "antigravity", "model": "m"});
        for (name, value) in more {
            section[name] = value.clone();
        }
        Config::parse(&section).unwrap()
    }

    #[test]
    fn a_new_attempt_finds_the_state_as_it_was_when_the_execution_began() {
        let dir = tempfile::tempdir().unwrap();
        let place = |exec| Place::of(&config(&[]), &launch(dir.path(), exec)).unwrap();
        let keep = |place: &Place, text: &str| {
            fs::write(place.trajectories().join(format!("{}.db", place.id)), text).unwrap();
        };
        let kept = |place: &Place| {
            fs::read_to_string(place.trajectories().join(format!("{}.db", place.id))).ok()
        };
        let first = place(1);
        assert!(!first.has_trajectory());
        keep(&first, "half a turn");
        let again = place(1);
        assert!(!again.has_trajectory(), "it is begun anew");
        keep(&again, "a turn");
        let second = place(2);
        assert_eq!(kept(&second).as_deref(), Some("a turn"));
        keep(&second, "half of another");
        assert_eq!(kept(&place(2)).as_deref(), Some("a turn"));
        second.clear().unwrap();
        assert!(!second.has_trajectory());
        let turns = fs::read_dir(dir.path().join(".ax/antigravity")).unwrap().count();
        assert_eq!(turns, 2, "one copy is kept");
    }

    #[test]
    fn the_program_is_found_in_an_environment() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("venv/lib/python3.11/site-packages/google/antigravity/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join("localharness"), "").unwrap();
        let here = ("dir", json!(dir.path()));
        let found = |more: (&str, Value)| {
            let config = config(&[here.clone(), more]);
            Place::of(&config, &launch(dir.path(), 1)).unwrap().command(&config)
        };
        let program = found(("venv", json!("venv"))).unwrap();
        assert_eq!(program, [bin.join("localharness")]);
        assert_eq!(found(("venv", json!("none"))).unwrap_err().code, "config");
        let named = found(("command", json!(["./own", "{workspace}"]))).unwrap();
        assert_eq!(named, [dir.path().join("./own").into_os_string(), dir.path().into()]);
    }

    #[test]
    fn the_model_is_the_gateways_or_the_manifests() {
        let dir = tempfile::tempdir().unwrap();
        let model = |more: &[(&str, Value)], env: &[(&str, &str)]| {
            let config = config(more);
            let mut launch = launch(dir.path(), 1);
            launch.env =
                env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            Place::of(&config, &launch).unwrap().model(&config, &launch)
        };
        assert_eq!(model(&[], &[]).unwrap_err().code, "config");
        let gateway = [("GOOGLE_GEMINI_BASE_URL", "http://g"), ("GEMINI_API_KEY", "k")];
        let of = |base_url: Option<&str>, key: &str| Model {
            base_url: base_url.map(str::to_owned),
            key: key.into(),
        };
        assert_eq!(model(&[], &gateway).unwrap(), of(Some("http://g"), "k"));
        let own = [("env", json!({"GEMINI_API_KEY": "own"}))];
        assert_eq!(model(&own, &[]).unwrap(), of(None, "own"));
    }
}
