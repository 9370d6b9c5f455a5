//! The lanes that need Python: environments that are kept, and the tests in them.

use crate::command::Program;
use crate::test::{self, Tally};
use crate::tree;
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::time::Duration;

const HINT: &str = "install Python 3.10 or later with venv and pip \
    (Debian and Ubuntu: apt install python3 python3-venv), or name one by AX_PYTHON";
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// A lane's environment: an interpreter with what the lane needs.
#[derive(Debug)]
pub(crate) struct Venv {
    python: PathBuf,
    report: PathBuf,
}

/// Tests the Python SDK, its types and its style.
pub(crate) fn sdk() -> Result<Tally> {
    let venv = sdk_venv()?;
    let dir = tree::root().join("sdk/python");
    let mut tally = venv.pytest(&dir, &[], &[])?;
    tally.add(&venv.types_and_style(&dir)?);
    Ok(tally)
}

/// Lets the vendors' own clients talk to the scripted model server, directly and through the
/// gateway.
pub(crate) fn fakemodel() -> Result<Tally> {
    let venv = Venv::get("fakemodel", &["tests/python/fakemodel/requirements.txt"])?;
    let built = test::programs()?;
    let env = [("AX", built.join("ax")), ("FAKEMODEL", built.join("examples/fakemodel"))];
    venv.pytest(&tree::root().join("tests/python/fakemodel"), &[], &env)
}

/// Kills a real LangGraph agent in the middle of its work and lets it finish.
pub(crate) fn langgraph(seed: u64) -> Result<Tally> {
    let cargo = Program::new("cargo")
        .env("AX_LANGGRAPH_PYTHON", sdk_venv()?.python)
        .env("AX_SEED", seed.to_string())
        .limit(LIMIT);
    test::nextest(
        cargo,
        &["--workspace", "-E", "package(ax) and (binary(langgraph) or test(/^light::/))"],
    )
}

/// Lets LangGraph keep its threads in a real server: its own conformance suite, graphs and servers
/// that are killed, and graphs as agents.
pub(crate) fn langgraph_threads() -> Result<Tally> {
    package("langgraph")
}

/// Lets ADK keep its sessions, artifacts and memory in a real server, and carries its agents on.
pub(crate) fn adk() -> Result<Tally> {
    package("adk")
}

/// Lets the Claude Agent SDK keep its sessions in a real server: its own conformance suite, and the
/// program itself, killed.
pub(crate) fn claude() -> Result<Tally> {
    package("claude")
}

/// Lets the OpenAI Agents SDK keep run states and conversations in a real server.
pub(crate) fn openai() -> Result<Tally> {
    package("openai")
}

/// Tests a package of `sdk` that keeps a framework's state in a server, its types and its style.
fn package(name: &str) -> Result<Tally> {
    let dir = tree::root().join("sdk").join(name);
    let requirements = format!("sdk/{name}/tests/requirements.txt");
    let venv = Venv::get(&format!("sdk-{name}"), &["xtask/python/sdk.txt", &requirements])?;
    let sources = [tree::root().join("sdk/python/src"), dir.join("src")];
    let path = std::env::join_paths(sources).context("name the sources")?;
    let env = [("AX", test::programs()?.join("ax")), ("PYTHONPATH", PathBuf::from(path))];
    let mut tally = venv.pytest(&dir, &[], &env)?;
    tally.add(&venv.types_and_style(&dir)?);
    Ok(tally)
}

/// Lets clients and harnesses of the AX wire, the Antigravity SDK among them, talk to a server.
pub(crate) fn ax1() -> Result<Tally> {
    let requirements =
        ["tests/python/ax1/requirements.txt", "examples/antigravity/requirements.txt"];
    let venv = Venv::get("ax1", &requirements)?;
    let ax = test::programs()?.join("ax");
    let cache = tree::target()?.join("venvs/ax1-stubs");
    let env = [("AX", ax), ("XDG_CACHE_HOME", cache)];
    venv.pytest(&tree::root().join("tests/python/ax1"), &[], &env)
}

/// What the SDK is tested with, the frameworks that it helps included.
fn sdk_venv() -> Result<Venv> {
    let examples = ["examples/langgraph/requirements.txt", "examples/unmodified/requirements.txt"];
    Venv::get("sdk", &["xtask/python/sdk.txt", examples[0], examples[1]])
}

impl Venv {
    /// Finds the environment of a lane, or makes it. A change of what it needs makes a new one.
    pub(crate) fn get(lane: &str, requirements: &[&str]) -> Result<Self> {
        let texts = requirements.iter().map(|file| tree::read(Path::new(file)));
        let wanted = texts.collect::<Result<Vec<_>>>()?.concat();
        let (python, version) = interpreter()?;
        let parent = tree::target()?.join("venvs");
        let name = format!("{lane}-{:016x}", fnv1a(&format!("{version}\n{wanted}")));
        let dir = parent.join(&name);
        let venv = Self {
            python: dir.join("bin/python"),
            report: parent.join(format!("{lane}-report.xml")),
        };
        let complete = dir.join("complete");
        if complete.exists() {
            return Ok(venv);
        }
        std::fs::create_dir_all(&parent).context("make the directory of environments")?;
        forget_others(&parent, lane)?;
        let made = Program::new(python).args(["-m", "venv"]).args([&dir]).succeed();
        made.context(HINT)?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        let files = requirements.iter().flat_map(|file| ["-r", file]);
        let install = Program::new(&venv.python).args(pip).args(files).limit(LIMIT);
        install.succeed().with_context(|| format!("install {}", requirements.join(", ")))?;
        std::fs::write(&complete, "").context("mark the environment as complete")?;
        Ok(venv)
    }

    /// The interpreter, with the SDK of this repository in reach.
    pub(crate) fn program<const N: usize>(&self, args: [&str; N]) -> Program {
        Program::new(&self.python)
            .args(args)
            .env("PYTHONPATH", tree::root().join("sdk/python/src"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .limit(LIMIT)
    }

    /// Checks the types and the style of a package.
    fn types_and_style(&self, dir: &Path) -> Result<Tally> {
        let cache = tree::target()?.join("mypy");
        let mypy = ["-m", "mypy", "--cache-dir"];
        let mut tally = Tally::one(self.program(mypy).args([cache]).dir(dir).run()?);
        let ruff = ["-m", "ruff", "check", "--quiet", "--no-cache", "."];
        tally.add(&Tally::one(self.program(ruff).dir(dir).run()?));
        Ok(tally)
    }

    /// Runs the tests of a directory and counts them.
    pub(crate) fn pytest(
        &self,
        dir: &Path,
        more: &[&str],
        env: &[(&str, PathBuf)],
    ) -> Result<Tally> {
        test::forget(&self.report)?;
        let mut pytest = self.program(["-m", "pytest", "-q", "-p", "no:cacheprovider"]);
        for (name, value) in env {
            pytest = pytest.env(name, value);
        }
        let report = format!("--junitxml={}", self.report.display());
        let finished = pytest.args([report]).args(more).dir(dir).run()?;
        test::count(finished, &self.report)
    }
}

/// Finds a Python that is new enough and can make environments; returns its version too.
pub(crate) fn interpreter() -> Result<(PathBuf, String)> {
    let named = std::env::var("AX_PYTHON").ok();
    let usual = ["python3", "python3.14", "python3.13", "python3.12", "python3.11", "python3.10"];
    let names: Vec<&str> = named.as_deref().map_or_else(|| usual.to_vec(), |name| vec![name]);
    let probe = "import sys, venv, ensurepip; \
        sys.version_info >= (3, 10) or sys.exit(1); print(sys.executable, sys.version.split()[0])";
    for name in names {
        if let Ok(answer) = Program::new(name).args(["-c", probe]).stdout() {
            let (path, version) = answer.trim().rsplit_once(' ').context("no version")?;
            return Ok((PathBuf::from(path), version.to_owned()));
        }
    }
    bail!("no usable Python was found: {HINT}")
}

/// Removes incomplete and outdated environments of a lane.
fn forget_others(parent: &Path, lane: &str) -> Result<()> {
    for entry in std::fs::read_dir(parent)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let of_lane = name.rsplit_once('-').is_some_and(|(before, _)| before == lane);
        if of_lane && path.is_dir() {
            std::fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// The 64-bit FNV-1a hash: short, and the same everywhere.
fn fnv1a(text: &str) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325;
    text.bytes().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a("a"), 0xaf63_dc4c_8601_ec8c);
    }
}
