//! What the runtime tells the launcher, and how: over the launcher's standard input, a socket.
//!
//! ```text
//! runtime ─▶ launcher   0 (4 bytes), with one descriptor: fork, for orders over this socket
//!         ◀─            its process id (4 bytes, big-endian; 0 if there is none), and a descriptor
//!                       of it
//! runtime ─▶ launcher   length (4 bytes, big-endian), order (JSON), with five descriptors:
//!                       the command's stdin, stdout, stderr, the locked entry, and the door
//!         ─▶            single bytes: `T` terminate, `K` kill; the end means kill
//!         ◀─            lines: `started JSON`, `failed JSON`, `exited N`, `signaled N`, `timeout`
//! runtime ─▶ pid 1      over the door: a port (4 bytes, big-endian), with one descriptor: a
//!                       socket, to be connected with that port of the sandbox's loopback
//!         ◀─            over that socket: one byte, `+`, and then what the port says; or its end
//! ```
//! Lines come from the launcher until there is a pid 1, then from pid 1.

use crate::plan::Plan;
use crate::wall::{Standing, Wall};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// Asks the launcher to send SIGTERM to the command's process group.
pub(crate) const ASK_TERMINATE: u8 = b'T';
/// Asks the launcher to kill everything at once.
pub(crate) const ASK_KILL: u8 = b'K';
/// Says over a socket that it is connected.
pub(crate) const CONNECTED: u8 = b'+';
/// The largest order, in bytes.
const ORDER_BYTES_MAX: u32 = 16 << 20;
/// How many descriptors come with an order.
pub(crate) const DESCRIPTORS: usize = 5;

/// What to run, and in what.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Whether there are walls at all.
    pub(crate) isolated: bool,
    /// The name of this sandbox: of its entry and of its control groups.
    pub(crate) name: String,
    /// Its entry in the registry, which the launcher removes at the end.
    pub(crate) entry: PathBuf,
    /// Program and arguments.
    pub(crate) command: Vec<OsString>,
    /// The working directory, as the command sees it.
    pub(crate) dir: PathBuf,
    /// The whole environment.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// The policy.
    pub(crate) plan: Plan,
    /// What is mounted, parents before children.
    pub(crate) binds: Vec<Bind>,
    /// The tree that is the root, instead of the host's programs.
    pub(crate) image: Option<ImageRoot>,
    /// What is covered by an empty directory.
    pub(crate) covers: Vec<PathBuf>,
    /// Links that are made, and where each leads.
    pub(crate) links: Vec<(PathBuf, PathBuf)>,
    /// The way to the gateway.
    pub(crate) gateway: Option<Gateway>,
    /// The ids of a sandbox that root makes; `None` for others.
    pub(crate) ids: Option<Ids>,
    /// Walls that are left out: only the controls of the attack suite do that.
    pub(crate) without: BTreeSet<Wall>,
}

impl Order {
    /// Returns whether a wall is to be built.
    pub(crate) fn has(&self, wall: Wall) -> bool {
        !self.without.contains(&wall)
    }
}

/// Something of the host that is mounted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Bind {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) writable: bool,
    /// Whether its owner outside becomes the sandbox's user inside.
    pub(crate) mapped: bool,
}

/// The file tree of an image, as a store of images has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRoot {
    /// Its layers, the uppermost first, laid over each other read-only. A single one is not laid
    /// over anything: what is at its top is mounted, and other mounts must find their places.
    pub layers: Vec<PathBuf>,
    /// The environment it wants, as `NAME=VALUE`; what the command is given counts before it.
    pub env: Vec<String>,
    /// The user it wants. The sandbox's own user gets this name, if it is one, and never its id.
    pub user: String,
}

/// How the sandbox reaches the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// The gateway's unix socket. Its directory is mounted, so that a gateway that starts anew
    /// can make it again: the directory should hold nothing else.
    pub socket: PathBuf,
    /// The port on the sandbox's loopback that leads there.
    pub port: u16,
}

/// User ids, which are group ids too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ids {
    /// Of pid 1.
    pub(crate) init: u32,
    /// Of the command and everything that it starts.
    pub(crate) user: u32,
}

/// What the launcher says first.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Started {
    /// The walls.
    pub(crate) walls: Vec<Standing>,
    /// The control groups, to read what is consumed.
    pub(crate) cgroups: Vec<PathBuf>,
}

/// Sends an order and the descriptors that belong to it.
pub(crate) fn send(
    to: &UnixStream,
    order: &Order,
    descriptors: [BorrowedFd<'_>; DESCRIPTORS],
) -> io::Result<()> {
    let text = serde_json::to_vec(order)?;
    let length = u32::try_from(text.len()).ok().filter(|length| *length <= ORDER_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::other("the environment is too large"))?;
    send_word(to, length, &descriptors)?;
    (&*to).write_all(&text)
}

/// Sends four bytes, and descriptors.
pub(crate) fn send_word(
    to: &UnixStream,
    word: u32,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("no room for descriptors"));
    }
    let word = word.to_be_bytes();
    sendmsg(to, &[IoSlice::new(&word)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// What a launcher is asked for.
#[derive(Debug)]
pub(crate) enum Asked {
    /// To carry out an order.
    Run(Box<Order>, [OwnedFd; DESCRIPTORS]),
    /// To fork a launcher that gets its order over this socket.
    Fork(UnixStream),
}

/// Waits until something is asked for.
pub(crate) fn receive(from: &UnixStream) -> io::Result<Asked> {
    let (length, mut descriptors) = receive_word(from)?;
    if length == 0 {
        let control = descriptors.pop().filter(|_| descriptors.is_empty());
        return Ok(Asked::Fork(control.ok_or(io::ErrorKind::InvalidData)?.into()));
    }
    let descriptors = descriptors.try_into().ok().filter(|_| length <= ORDER_BYTES_MAX);
    let descriptors = descriptors.ok_or(io::ErrorKind::InvalidData)?;
    let mut text = vec![0; length as usize];
    (&*from).read_exact(&mut text)?;
    Ok(Asked::Run(serde_json::from_slice(&text)?, descriptors))
}

/// Receives four bytes, and the descriptors that come with them.
pub(crate) fn receive_word(from: impl AsFd) -> io::Result<(u32, Vec<OwnedFd>)> {
    let mut word = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        let mut buffers = [IoSliceMut::new(&mut word)];
        match recvmsg(&from, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let descriptors: Vec<OwnedFd> = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    if got.bytes != word.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((u32::from_be_bytes(word), descriptors))
}

/// Says a line. A runtime that is gone needs to know nothing.
pub(crate) fn say(to: impl AsFd, what: &str, value: &impl Serialize) {
    let value = serde_json::to_string(value).unwrap_or_default();
    let line = format!("{what} {value}\n");
    let mut rest = line.as_bytes();
    while !rest.is_empty() {
        match rustix::net::send(&to, rest, SendFlags::NOSIGNAL) {
            Ok(sent) => rest = &rest[sent..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut writable = [rustix::event::PollFd::new(&to, rustix::event::PollFlags::OUT)];
                let _interrupted = rustix::event::poll(&mut writable, None);
            }
            Err(_) => return,
        }
    }
}
