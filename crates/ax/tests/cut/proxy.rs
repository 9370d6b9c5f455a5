//! A TCP proxy that treats its connections badly, as a seed says.
//!
//! It stands between clients and the socket of a server. It cuts connections off in the middle of
//! whatever is sent, resets them, stops to pass anything on, and lets those that come back wait,
//! so that they reach the server in another order.

use super::dice::Dice;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// What is passed on at a time, in bytes.
const CHUNK_BYTES: usize = 16 << 10;

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    /// Both sides are told that nothing more comes (FIN).
    Close,
    /// Both sides are told that the connection is gone (RST).
    Reset,
    /// Nothing is passed on any more for a while, then it is reset.
    StallAndReset(u64),
    /// Nothing is passed on for a while, then everything.
    StallAndGoOn(u64),
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug)]
struct Fate {
    /// How long it waits before it reaches the server, in milliseconds.
    delay_millis: u64,
    /// After so many bytes from the server ...
    after_bytes: u64,
    /// ... or after this time in milliseconds, whatever is first.
    after_millis: u64,
    blow: Blow,
}

impl Fate {
    fn draw(dice: &mut Dice) -> Self {
        let stall = dice.between(50, 1_200);
        Self {
            delay_millis: if dice.chance(40) { dice.between(1, 250) } else { 0 },
            after_bytes: dice.pick(&[1, 40, 400, 2_000, 8_000, 30_000]) + dice.between(0, 500),
            after_millis: dice.between(50, 2_500),
            blow: dice.pick(&[
                Blow::Close,
                Blow::Close,
                Blow::Reset,
                Blow::Reset,
                Blow::StallAndReset(stall),
                Blow::StallAndGoOn(stall),
            ]),
        }
    }
}

/// What was done to connections over which something had come from the server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Ended in the middle, of any kind.
    pub(crate) cuts: u64,
    /// Of these, reset.
    pub(crate) resets: u64,
    /// Held up, and ended or not.
    pub(crate) stalls: u64,
}

#[derive(Debug, Default)]
struct Shared {
    cuts: AtomicU64,
    resets: AtomicU64,
    stalls: AtomicU64,
}

/// A proxy. It is gone when it is dropped, and its connections with it.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Stands in front of the socket at `upstream`.
    pub(crate) async fn start(upstream: PathBuf, dice: Dice) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(accept(listener, upstream, Arc::clone(&shared), dice));
        Self { address, shared, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn counts(&self) -> Counts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            cuts: read(&self.shared.cuts),
            resets: read(&self.shared.resets),
            stalls: read(&self.shared.stalls),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, upstream: PathBuf, shared: Arc<Shared>, dice: Dice) {
    let dice = Mutex::new(dice);
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let fate = Fate::draw(&mut dice.lock().unwrap());
        let (upstream, shared) = (upstream.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            let _broken: io::Result<()> = carry(client, upstream, &shared, fate).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Passes on what either side sends, until one of them or fate ends it.
async fn carry(
    mut client: TcpStream,
    upstream: PathBuf,
    shared: &Shared,
    fate: Fate,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    sleep(Duration::from_millis(fate.delay_millis)).await;
    // The server may just be gone: then the client hears of it by a reset.
    let Ok(mut server) = UnixStream::connect(upstream).await else {
        return client.set_zero_linger();
    };
    let mut passed = 0;
    let until = Instant::now() + Duration::from_millis(fate.after_millis);
    let limit = Some((fate.after_bytes, until));
    if pass(&mut client, &mut server, &mut passed, limit).await? {
        return Ok(());
    }
    // Nobody notices that a connection ends over which nothing has come.
    let count = |count: &AtomicU64| count.fetch_add(u64::from(passed > 0), Ordering::Relaxed);
    match fate.blow {
        Blow::Close => {
            count(&shared.cuts);
            client.shutdown().await?;
        }
        Blow::Reset => {
            count(&shared.cuts);
            count(&shared.resets);
            client.set_zero_linger()?;
        }
        Blow::StallAndReset(millis) => {
            sleep(Duration::from_millis(millis)).await;
            count(&shared.stalls);
            count(&shared.cuts);
            count(&shared.resets);
            client.set_zero_linger()?;
        }
        Blow::StallAndGoOn(millis) => {
            sleep(Duration::from_millis(millis)).await;
            count(&shared.stalls);
            pass(&mut client, &mut server, &mut passed, None).await?;
        }
    }
    Ok(())
}

/// Passes on until one side closes (true), or so many bytes have come from the server or the time
/// is up (false). What was read has been written then: it may be gone on with.
async fn pass(
    client: &mut TcpStream,
    server: &mut UnixStream,
    passed: &mut u64,
    limit: Option<(u64, Instant)>,
) -> io::Result<bool> {
    let (mut up, mut down) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    let end = async {
        match limit {
            Some((_, until)) => sleep_until(until).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    loop {
        let left = limit.map_or(u64::MAX, |(bytes, _)| bytes.saturating_sub(*passed));
        if left == 0 {
            return Ok(false);
        }
        let room = down.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        tokio::select! {
            () = &mut end => return Ok(false),
            read = client.read(&mut up) => match read? {
                0 => return Ok(true),
                bytes => server.write_all(&up[..bytes]).await?,
            },
            read = server.read(&mut down[..room]) => match read? {
                0 => {
                    client.shutdown().await?;
                    return Ok(true);
                }
                bytes => {
                    client.write_all(&down[..bytes]).await?;
                    *passed += bytes as u64;
                }
            },
        }
    }
}
