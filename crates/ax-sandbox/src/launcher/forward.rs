//! The way to the gateway: each connection to a port of the sandbox's loopback becomes one to the
//! gateway's unix socket. Bytes are passed on and not looked at.

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

/// The most connections at a time; more have to wait.
const CONNECTIONS_MAX: usize = 256;

/// Returns what forwards for ever.
pub(super) fn run(
    listener: TcpListener,
    gateway: PathBuf,
) -> io::Result<impl Future<Output = ()> + Send> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    Ok(async move {
        loop {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
            // A connection that ended before it was taken, or no descriptor left: the next one.
            let Ok((mut from, _)) = listener.accept().await else {
                tokio::task::yield_now().await;
                continue;
            };
            let gateway = gateway.clone();
            drop(tokio::spawn(async move {
                // Where there is no gateway, the connection ends without a word.
                if let Ok(mut to) = UnixStream::connect(gateway).await {
                    let _either_has_gone = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                }
                drop(place);
            }));
        }
    })
}
