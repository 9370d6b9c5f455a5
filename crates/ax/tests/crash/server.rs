//! `ax serve` as a real process, and the harnesses under it.

use ax_client::{Client, Patience};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take until it answers.
const START_MAX: Duration = Duration::from_secs(20);

/// A server on a data directory.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    data: PathBuf,
}

impl Server {
    /// Starts one; its standard error goes to the end of `server.err` beside the data directory.
    pub(crate) fn start(data: &Path, args: &[&str]) -> Self {
        let errors = data.with_extension("err");
        let errors = OpenOptions::new().create(true).append(true).open(errors).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_ax"))
            .args(["serve", "--data"])
            .arg(data)
            .args(args)
            .env_remove("AX_SERVER")
            .env_remove("AX_DATA")
            .env_remove("AX_NAMESPACE")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::from(OwnedFd::from(errors)))
            .spawn()
            .unwrap();
        Self { child, data: data.to_owned() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it (SIGKILL), and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop (SIGTERM), and waits until it has.
    pub(crate) fn stop(mut self) -> ExitStatus {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        self.child.wait().unwrap()
    }

    /// Whether it is gone, although nobody killed it.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until it answers.
    ///
    /// # Panics
    ///
    /// Panics if it ends or does not answer in time.
    pub(crate) async fn ready(&mut self) {
        let began = Instant::now();
        let client = client(&self.data);
        // It may be another server that answers still, which is about to stop.
        while client.get_info(Default::default()).await.ok().map(|info| info.pid)
            != Some(self.pid())
        {
            let ended = self.has_ended();
            assert!(ended.is_none(), "the server has ended: {ended:?}; {}", self.errors());
            assert!(began.elapsed() < START_MAX, "no answer; {}", self.errors());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What it wrote to standard error.
    pub(crate) fn errors(&self) -> String {
        fs::read_to_string(self.data.with_extension("err")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Where the server of a data directory listens.
pub(crate) fn socket(data: &Path) -> PathBuf {
    data.join("ax.sock")
}

/// A client that waits for a server that comes back.
pub(crate) fn client(data: &Path) -> Client {
    let patience = Patience {
        outage_millis_max: 60_000,
        pause_millis_min: 5,
        pause_millis_max: 100,
        ..Patience::default()
    };
    Client::unix(socket(data), "default").patient(patience)
}

/// A process that is still the one it was found to be.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) pid: i32,
    parent: i32,
    handle: OwnedFd,
}

impl Found {
    /// Kills it (SIGKILL); it may be gone already.
    pub(crate) fn kill(&self) {
        let _gone_already = pidfd_send_signal(&self.handle, Signal::KILL);
    }
}

/// Finds the processes whose command line has this text, other than supervisors and this one.
pub(crate) fn find(text: &str) -> Vec<Found> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // The handle first: what is read after that is of the process it stands for.
        let Some(pid_typed) = Pid::from_raw(pid) else { continue };
        let Ok(handle) = pidfd_open(pid_typed, PidfdFlags::empty()) else { continue };
        let Ok(command) = fs::read(entry.path().join("cmdline")) else { continue };
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let ours = pid == i32::try_from(std::process::id()).unwrap();
        if ours || !command.contains(text) || command.contains("__supervise") {
            continue;
        }
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let parent = after_name.split_whitespace().nth(1).and_then(|word| word.parse().ok());
        found.push(Found { pid, parent: parent.unwrap_or(0), handle });
    }
    found.sort_by_key(|found| found.pid);
    found
}

/// Kills the supervisor of a harness, if that is what its parent is.
pub(crate) fn kill_supervisor(of: &Found) {
    let Some(pid) = Pid::from_raw(of.parent) else { return };
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    let command = fs::read(format!("/proc/{}/cmdline", of.parent)).unwrap_or_default();
    if String::from_utf8_lossy(&command).contains("__supervise") {
        let _gone_already = pidfd_send_signal(&handle, Signal::KILL);
    }
}

/// The interpreter itself: a wrapper in the search path would be slow, and hide what is killed.
pub(crate) fn python() -> String {
    let output = Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output()
        .expect("python3 is needed for this test");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
