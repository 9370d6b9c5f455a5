//! A launcher that stays ready and forks: one fork is always made ahead, with a network namespace
//! that no sandbox has had, where it may make one. These are what takes longest of what no order
//! has to be known for.

use crate::order::{self, Asked};
use crate::sys;
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::setsid;
use std::io;
use std::os::unix::net::UnixStream;

/// A fork that waits for its control socket.
struct Spare {
    /// Leads to it. It ends when this is closed.
    socket: UnixStream,
    pid: u32,
    process: OwnedFd,
}

/// What a fork begins with.
pub(super) struct Begun {
    pub(super) control: UnixStream,
    /// Whether it is in a network namespace of its own, with loopback.
    pub(super) network: bool,
}

/// Forks whenever the runtime asks; `asked` is what the first fork is for. Returns only in forks,
/// or when the runtime is gone.
pub(super) fn fork_for_ever(runtime: &UnixStream, mut asked: UnixStream) -> io::Result<Begun> {
    let mut ready = None;
    loop {
        let spare = match ready.take() {
            Some(spare) => Ok(spare),
            None => Spare::make(),
        };
        match spare {
            Ok(Made::Fork(socket)) => return begin(&socket),
            Ok(Made::Here(spare)) => {
                // One that has died ahead of its time is answered like one that does so later.
                let _it_has_died = order::send_word(&spare.socket, 0, &[asked.as_fd()]);
                order::send_word(runtime, spare.pid, &[spare.process.as_fd()])?;
            }
            Err(_) => order::send_word(runtime, 0, &[])?,
        }
        drop(asked);
        ready = Spare::make().ok();
        if let Some(Made::Fork(socket)) = ready {
            return begin(&socket);
        }
        asked = match order::receive(runtime)? {
            Asked::Fork(control) => control,
            Asked::Run(..) => return Err(io::ErrorKind::InvalidData.into()),
        };
    }
}

/// Which of the two processes this is.
enum Made {
    /// The one that forked.
    Here(Spare),
    /// The fork.
    Fork(UnixStream),
}

impl Spare {
    fn make() -> io::Result<Made> {
        let (socket, theirs) = UnixStream::pair()?;
        // The remains of forks are nobody's business here.
        sys::forget_children(true);
        let Some((pid, process)) = sys::clone(0, None)? else {
            sys::forget_children(false);
            return Ok(Made::Fork(theirs));
        };
        let pid = pid.as_raw_nonzero().get().cast_unsigned();
        Ok(Made::Here(Self { socket, pid, process }))
    }
}

fn begin(socket: &UnixStream) -> io::Result<Begun> {
    let _never_a_leader = setsid();
    let network = sys::new_network().and_then(|()| loopback()).is_ok();
    let (_, mut descriptors) = order::receive_word(socket)?;
    let control = descriptors.pop().ok_or(io::ErrorKind::InvalidData)?;
    Ok(Begun { control: control.into(), network })
}

/// Brings up loopback in the network namespace that this process is in.
pub(super) fn loopback() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    sys::loopback_up(socket.as_fd())
}
