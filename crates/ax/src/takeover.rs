//! Who has a data directory, whether it answers, and taking its place when it does not.
//!
//! The kernel's lock on the log is the fence: nothing is opened before it is free, and it is free
//! when its holder is dead. So a holder that does not answer is ended, and nothing else is done to
//! make it let go. It is ended through a descriptor of the process, which was opened before it was
//! looked whether this process holds the lock: a number that has come to another process since is
//! never signalled.

use crate::failure::Failure;
use crate::out::Out;
use crate::paths::{DataDir, Holder, unusable};
use ax_client::{Client, Patience};
use ax_engine::Code;
use ax_proto::v1;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{major, minor};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

/// How long one question to a server may take.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// How long to wait between two of them.
const ASK_PAUSE: Duration = Duration::from_millis(100);
/// How long a process that was killed may take to die.
const DEATH_MAX: Duration = Duration::from_secs(20);

/// What is known of a data directory's lock.
#[derive(Debug)]
pub(crate) enum Lock {
    /// Nobody holds it.
    Free,
    /// A server holds it, and answers.
    Answers(Holder),
    /// A server holds it, and did not answer in time.
    Silent(Holder),
    /// A process holds it that does not say where it could be asked: it is about to serve, about
    /// to end, or no server.
    Busy(Pid),
}

impl DataDir {
    /// The file whose lock is the right to use the log.
    fn lock_file(&self) -> std::path::PathBuf {
        self.log().join("LOCK")
    }
}

/// Looks who has a data directory; a server is given so long to answer.
pub(crate) async fn look(data: &DataDir, within: Duration) -> Result<Lock, Failure> {
    let began = Instant::now();
    loop {
        let path = data.lock_file();
        let holder = lock_holder(&path).map_err(|error| unusable(&path, &error))?;
        let Some(pid) = holder else { return Ok(Lock::Free) };
        let server = data.holder().filter(|server| is_pid(server, pid));
        let Some(server) = server else { return Ok(Lock::Busy(pid)) };
        let left = within.saturating_sub(began.elapsed()).min(ANSWER_MAX);
        if answers(&server, left.max(ASK_PAUSE)).await {
            return Ok(Lock::Answers(server));
        }
        if began.elapsed() >= within {
            return Ok(Lock::Silent(server));
        }
        sleep(ASK_PAUSE).await;
    }
}

fn is_pid(server: &Holder, pid: Pid) -> bool {
    i32::try_from(server.pid).is_ok_and(|number| number == pid.as_raw_nonzero().get())
}

/// Whether a server answers a question in time.
pub(crate) async fn answers(server: &Holder, within: Duration) -> bool {
    let patience = Patience { outage_millis_max: 0, ..Patience::default() };
    let namespace = ax_core::id::Namespace::DEFAULT;
    let client = Client::unix(server.socket.clone(), namespace).patient(patience);
    matches!(timeout(within, client.get_info(v1::GetInfoRequest {})).await, Ok(Ok(_)))
}

/// Ends the holder of a data directory that does not answer, and waits until it is dead. Does
/// nothing if somebody else holds it by now, or nobody.
pub(crate) async fn end(data: &DataDir, server: &Holder, out: &Out) -> Result<(), Failure> {
    let Some(pid) = i32::try_from(server.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    let path = data.lock_file();
    let process = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(errno) => return Err(cannot_end(data, pid, &errno.into())),
    };
    // From here on the descriptor means this process, whoever gets its number.
    let mut holds = lock_holder(&path).and_then(|holder| match holder {
        Some(holder) if holder == pid => has_open(pid, &path),
        _ => Ok(false),
    });
    // A server lets nobody but root look at what it has open; that it listens says who it is.
    if holds.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
        holds = listens(pid, &server.socket).await;
    }
    if !holds.map_err(|error| cannot_end(data, pid, &error))? {
        return Ok(());
    }
    // It may have come back this very moment.
    if answers(server, ASK_PAUSE).await {
        return Ok(());
    }
    out.notice(&format!(
        "the server with pid {pid} holds {} and does not answer: it is ended",
        data.root.display(),
    ));
    match pidfd_send_signal(&process, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(errno) => return Err(cannot_end(data, pid, &errno.into())),
    }
    match timeout(DEATH_MAX, death(process)).await {
        Ok(died) => died.map_err(|error| cannot_end(data, pid, &error)),
        Err(_) => Err(cannot_end(data, pid, &io::ErrorKind::TimedOut.into())),
    }
}

/// Waits until a process is dead.
async fn death(process: OwnedFd) -> io::Result<()> {
    let wait = move || {
        let mut watched = [PollFd::new(&process, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut watched, None)).map(drop)
    };
    Ok(tokio::task::spawn_blocking(wait).await.map_err(io::Error::other)??)
}

fn cannot_end(data: &DataDir, pid: Pid, error: &io::Error) -> Failure {
    let message = format!(
        "{} is held by pid {pid}, which does not answer and cannot be ended",
        data.root.display()
    );
    Failure::new(Code::Locked, message).because(error)
}

/// The failure of a directory that another process has.
pub(crate) fn in_use(data: &DataDir, pid: u32) -> Failure {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = command.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let words: Vec<_> = words.take(2).map(String::from_utf8_lossy).collect();
    let message =
        format!("{} is in use by process {pid} ({})", data.root.display(), words.join(" "));
    Failure::new(Code::Locked, message)
}

/// The failure of a command that finds a server which does not answer.
pub(crate) fn silent(data: &DataDir, server: &Holder) -> Failure {
    let message =
        format!("{} is held by pid {}, which does not answer", data.root.display(), server.pid);
    Failure::new(Code::Locked, message)
        .hint("wait if it is busy; `ax serve` ends such a server and takes its place")
}

/// Returns the process that holds the lock of a file, as the kernel says; `None` if nobody does.
fn lock_holder(path: &Path) -> io::Result<Option<Pid>> {
    let about = match fs::metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let locks = fs::read_to_string("/proc/locks")?;
    Ok(holder_in(&locks, (major(about.dev()), minor(about.dev())), about.ino()))
}

/// Finds who holds the lock of a file in the kernel's list: `1: FLOCK ADVISORY WRITE 42 fd:01:7 …`.
fn holder_in(locks: &str, device: (u32, u32), inode: u64) -> Option<Pid> {
    let mut elsewhere = None;
    for line in locks.lines() {
        // `->` marks one who waits.
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, file, ..] = words[..] else { continue };
        let mut parts = file.split(':');
        let mut hex = || u32::from_str_radix(parts.next()?, 16).ok();
        let found = (hex(), hex());
        let is_inode = file.rsplit(':').next().and_then(|text| text.parse().ok()) == Some(inode);
        let Some(pid) = pid.parse().ok().and_then(Pid::from_raw).filter(|_| is_inode) else {
            continue;
        };
        if found == (Some(device.0), Some(device.1)) {
            return Some(pid);
        }
        // Some file systems show another device here than to whoever asks about the file.
        elsewhere = Some(pid);
    }
    elsewhere
}

/// Whether a process listens at a socket: the kernel takes connections while it does nothing.
async fn listens(pid: Pid, socket: &Path) -> io::Result<bool> {
    let peer = UnixStream::connect(socket).await?.peer_cred()?;
    Ok(peer.pid() == Some(pid.as_raw_pid()))
}

/// Whether a process has a file open.
fn has_open(pid: Pid, path: &Path) -> io::Result<bool> {
    let about = fs::metadata(path)?;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // A descriptor may be closed meanwhile.
        let Ok(found) = fs::metadata(entry?.path()) else { continue };
        if (found.dev(), found.ino()) == (about.dev(), about.ino()) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{FlockOperation, flock};

    #[test]
    fn the_kernel_says_who_holds_a_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        assert_eq!(lock_holder(&path).unwrap(), None, "there is no file");
        let file = fs::File::create(&path).unwrap();
        assert_eq!(lock_holder(&path).unwrap(), None, "nobody holds it");
        let me = rustix::process::getpid();
        assert!(has_open(me, &path).unwrap());
        flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert_eq!(lock_holder(&path).unwrap(), Some(me));
        drop(file);
        assert_eq!(lock_holder(&path).unwrap(), None);
        assert!(!has_open(me, &path).unwrap());
    }

    #[tokio::test]
    async fn who_listens_at_a_socket_is_known_though_it_does_not_answer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _silent = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(listens(rustix::process::getpid(), &path).await.unwrap());
        assert!(!listens(Pid::from_raw(1).unwrap(), &path).await.unwrap());
        assert!(listens(Pid::from_raw(1).unwrap(), &dir.path().join("none")).await.is_err());
    }

    #[test]
    fn locks_of_other_files_and_those_who_wait_are_passed_over() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 fd:01:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 12 fd:01:78 0 EOF\n\
                     3: FLOCK  ADVISORY  READ  13 fd:01:77 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 14 fd:02:77 0 EOF\n\
                     5: FLOCK  ADVISORY  WRITE 15 fd:01:77 0 EOF\n\
                     5: -> FLOCK  ADVISORY  WRITE 16 fd:01:77 0 EOF\n";
        assert_eq!(holder_in(locks, (0xfd, 1), 77), Pid::from_raw(15));
        assert_eq!(holder_in(locks, (0xfd, 2), 77), Pid::from_raw(14));
        assert_eq!(holder_in(locks, (0xfd, 1), 79), None);
        let other_device = holder_in(locks, (0, 5), 78);
        assert_eq!(other_device, Pid::from_raw(12), "it is a guess, and is checked");
    }

    #[tokio::test]
    async fn a_process_that_only_has_the_number_of_the_holder_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir { root: dir.path().to_owned() };
        fs::create_dir(data.log()).unwrap();
        let file = fs::File::create(data.lock_file()).unwrap();
        flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        let mut bystander = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let server = Holder {
            socket: dir.path().join("nobody.sock"),
            passing: false,
            pid: bystander.id(),
            addresses: Vec::new(),
        };
        let out = Out::new(false, true, crate::out::Color::Never);
        end(&data, &server, &out).await.unwrap();
        assert_eq!(bystander.try_wait().unwrap(), None, "it lives");
        let looked = look(&data, Duration::from_millis(1)).await.unwrap();
        assert!(matches!(looked, Lock::Busy(pid) if pid == rustix::process::getpid()));
        bystander.kill().unwrap();
        bystander.wait().unwrap();
    }
}
