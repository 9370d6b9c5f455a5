//! What connections and streams may do, and what is done about those that do nothing.

#![expect(clippy::unwrap_used, reason = "a test")]

#[expect(dead_code, reason = "other tests use more of it")]
mod support;

use ax_client::{Client, Connect, Connection, Item, Patience, boxed};
use ax_proto::v1;
use ax_proto::v1::follow_response::Item as Sent;
use ax_proto::v1::sessions_client::SessionsClient;
use ax_server::Options;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use support::World;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tonic::transport::Endpoint;

const ASK: &str = "GET /v1/info HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Connects and asks for something; returns whether there was an answer.
async fn asks(world: &World) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    // A server that has hung up takes nothing.
    drop(stream.write_all(ASK.as_bytes()).await);
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.ok()?;
    assert_eq!(&status, b"HTTP/1.1 200");
    Some(stream)
}

#[tokio::test]
async fn more_connections_than_allowed_are_hung_up_on_until_one_ends() {
    let world = World::new().await;
    world.connections.limit(2);
    let (first, second) = (asks(&world).await.unwrap(), asks(&world).await.unwrap());
    for _ in 0..3 {
        assert!(asks(&world).await.is_none(), "one too many");
    }
    drop(first);
    while world.connections.count() == 2 {
        tokio::task::yield_now().await;
    }
    let third = asks(&world).await.unwrap();
    world.connections.limit(3);
    assert!(asks(&world).await.is_some(), "the limit was raised");
    drop((second, third));
}

#[tokio::test]
async fn a_body_that_stops_in_the_middle_is_not_waited_for() {
    let options = Options { body_pause_max: Duration::from_millis(50), ..Default::default() };
    let world = World::with(options, true).await;
    for (path, kind, start) in [
        ("/v1/inputs", "application/json", "{\"a\":"),
        ("/v1/blobs", "application/octet-stream", "bytes"),
        ("/v1/archives", "application/octet-stream", "AXSES"),
    ] {
        for (length, before) in
            [("content-length: 1000", ""), ("transfer-encoding: chunked", "5\r\n")]
        {
            let mut stream = TcpStream::connect(world.address).await.unwrap();
            let head =
                format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\n");
            let begun = format!("{head}{length}\r\n\r\n{before}{start}");
            stream.write_all(begun.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            // It ends, although the client has not: a reset is an end, too.
            drop(stream.read_to_end(&mut answer).await);
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(answer.starts_with("HTTP/1.1 400"), "{path} {length}: {answer:?}");
            assert!(answer.contains("too slowly"), "{path} {length}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn oversized_headers_are_refused_over_http2_too() {
    let world = World::new().await;
    for (name, count) in [("x-long", 1), ("x-many", 2_000)] {
        let stream = TcpStream::connect(world.address).await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        let mut request = http::Request::get("http://x/v1/info");
        for at in 0..count {
            let value = "x".repeat((64 << 10) / count);
            request = request.header(format!("{name}-{at}"), value);
        }
        let (answer, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
        // The stream is reset, or the answer says why.
        let status = answer.await.map(|answer| answer.status().as_u16());
        assert!(status.as_ref().map_or(true, |status| *status == 431), "{name}: {status:?}");
        driver.abort();
    }
    assert!(asks(&world).await.is_some(), "the server is as it was");
}

fn follow(session: &str) -> v1::FollowRequest {
    v1::FollowRequest { session: session.into(), ..Default::default() }
}

/// Opens connections to a server, of which the first falls silent when it is told to, as if a
/// cable had been pulled: nothing arrives any more, and nothing says so.
fn pulled(world: &World, silent: &Arc<AtomicBool>, opened: &Arc<AtomicUsize>) -> Connect {
    let (address, silent, opened) = (world.address, Arc::clone(silent), Arc::clone(opened));
    Arc::new(move || {
        let first = opened.fetch_add(1, Ordering::SeqCst) == 0;
        let silent = if first { Arc::clone(&silent) } else { Arc::default() };
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            Ok::<Box<dyn Connection>, _>(boxed(Cable { stream, silent }))
        })
    })
}

struct Cable {
    stream: TcpStream,
    silent: Arc<AtomicBool>,
}

impl AsyncRead for Cable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut own = [0; 4096];
        let mut read = ReadBuf::new(&mut own);
        let read_max = buffer.remaining();
        let mut read = read.take(read_max);
        loop {
            match Pin::new(&mut self.stream).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if self.silent.load(Ordering::SeqCst) => {
                    if read.filled().is_empty() {
                        return Poll::Pending;
                    }
                    read.clear();
                }
                Poll::Ready(Ok(())) => {
                    buffer.put_slice(read.filled());
                    return Poll::Ready(Ok(()));
                }
                other => return other,
            }
        }
    }
}

impl AsyncWrite for Cable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.silent.load(Ordering::SeqCst) {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn an_idle_follower_hears_a_sign_of_life_over_grpc() {
    assert!(Options::default().keep_alive_pause <= Duration::from_secs(15));
    let options = Options { keep_alive_pause: Duration::from_millis(20), ..Default::default() };
    let world = World::with(options, true).await;
    world.agent().await;
    world.submit("talk", "hello").await;
    let server = Endpoint::from_shared(format!("http://{}", world.address)).unwrap();
    let mut client = SessionsClient::new(server.connect().await.unwrap());
    let mut stream = client.follow(follow("talk")).await.unwrap().into_inner();
    let (mut last, mut alive) = (0, 0);
    while alive < 3 {
        match stream.message().await.unwrap().unwrap().item {
            Some(Sent::Event(event)) => last = event.seq,
            Some(Sent::KeepAlive(sign)) => {
                alive += 1;
                assert_eq!(sign.last, last, "it says how far the follower is");
            }
            _ => {}
        }
    }
}

/// Waits for an item that is an event with a seq beyond this.
async fn beyond(follow: &mut ax_client::Follow, seq: u64) -> u64 {
    loop {
        match follow.next().await.unwrap() {
            Some(Item::Event(event)) if event.seq > seq => return event.seq,
            Some(_) => {}
            None => panic!("the follower ended"),
        }
    }
}

#[tokio::test]
async fn a_client_that_hears_nothing_connects_again_and_misses_nothing() {
    let world = World::new().await;
    world.agent().await;
    world.submit("talk", "one").await;
    let (silent, opened) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let patience = Patience { silence_millis_max: 300, ..Patience::default() };
    let client = Client::with_connect(pulled(&world, &silent, &opened), "default");
    let mut follower = client.patient(patience).follow(follow("talk"));
    let mut seen = 0;
    while !matches!(follower.next().await.unwrap(), Some(Item::CaughtUp(_))) {
        seen = follower.last();
    }
    // While the other end lives, an idle stream stays what it is.
    let idle = tokio::time::timeout(Duration::from_millis(900), async {
        loop {
            match follower.next().await.unwrap() {
                Some(Item::Broken(error)) => panic!("{error:?}"),
                Some(Item::Event(event)) => seen = event.seq,
                _ => {}
            }
        }
    });
    assert!(idle.await.is_err());
    assert_eq!(opened.load(Ordering::SeqCst), 1);
    silent.store(true, Ordering::SeqCst);
    world.submit("talk", "two").await;
    let next = beyond(&mut follower, seen).await;
    assert_eq!(next, seen + 1);
    assert!(opened.load(Ordering::SeqCst) >= 2);
}
