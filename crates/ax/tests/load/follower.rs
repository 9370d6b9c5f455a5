//! Followers that stay: half of them over gRPC, half over server-sent events.

use super::server;
use ax_client::Item;
use ax_proto::v1;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

/// What a follower follows, and the last event that it has.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) session: String,
    pub(crate) last: Arc<AtomicU64>,
}

/// Follows a session until it is told to stop; returns how many events came.
///
/// # Panics
///
/// Panics if one is missing, or comes twice, or if the connection breaks.
pub(crate) async fn follow(
    data: PathBuf,
    number: usize,
    place: Place,
    done: CancellationToken,
) -> u64 {
    let Place { session, last: seen } = place;
    let mut last = 0;
    if number.is_multiple_of(2) {
        let client = server::client(&data);
        let mut follow = client.follow(v1::FollowRequest { session, ..Default::default() });
        while let Some(item) = done.run_until_cancelled(follow.next()).await {
            match item.unwrap() {
                Some(Item::Event(event)) => {
                    assert_eq!(event.seq, last + 1);
                    last = event.seq;
                    seen.store(last, Ordering::Relaxed);
                }
                Some(Item::CaughtUp(_)) => {}
                other => panic!("the stream says {other:?}"),
            }
        }
    } else {
        let mut lines = open(&server::socket(&data), &session).await;
        let mut is_event = false;
        while let Some(line) = done.run_until_cancelled(lines.next_line()).await {
            let line = line.unwrap().expect("the stream goes on");
            if let Some(name) = line.strip_prefix("event: ") {
                is_event = name != "caught-up";
            } else if let Some(id) = line.strip_prefix("id: ")
                && is_event
            {
                assert_eq!(id.parse::<u64>().unwrap(), last + 1);
                (last, is_event) = (last + 1, false);
                seen.store(last, Ordering::Relaxed);
            }
        }
    }
    last
}

/// Begins a stream. The sizes of its chunks are on lines of their own.
async fn open(socket: &Path, session: &str) -> Lines<BufReader<UnixStream>> {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let request = format!("GET /v1/sessions/{session}/follow HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let status = lines.next_line().await.unwrap().unwrap();
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    lines
}
