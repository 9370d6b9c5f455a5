//! Memory of connections and followers that are idle.

use crate::server::Server;
use crate::wire::Connection;
use crate::{Arguments, say};
use ax_client::Item;
use ax_proto::v1;
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;

const COUNT: usize = 1_000;
const STREAMS_EACH: usize = 125;
/// Until the server has settled.
const SETTLE: Duration = Duration::from_millis(500);

pub(crate) async fn measure(arguments: &Arguments) {
    let server = Server::start(&arguments.ax, &arguments.dir.join("memory"));
    let session = server.busy("memory", 1).await.remove(0);
    // Once before anything is counted, so that what is only grown once is there.
    drop(followers_sse(&server, &session).await);
    drop(followers_grpc(&server, &session).await);
    sleep(SETTLE).await;
    let base = server.memory();
    let figure = |what: &str, before: u64, after: u64| {
        let each = after.saturating_sub(before) / COUNT as u64;
        say(&json!({
            "piece": "memory", "what": what, "count": COUNT, "bytes_each": each, "bytes_all": after,
        }));
    };
    let mut connections = Vec::new();
    for _ in 0..COUNT {
        let mut connection = Connection::open(&server.address).await;
        connection.request("GET", "/v1/info", "text/plain", b"").await;
        connections.push(connection);
    }
    sleep(SETTLE).await;
    figure("connection", base, server.memory());
    drop(connections);
    sleep(SETTLE).await;
    let base = server.memory();
    let sse = followers_sse(&server, &session).await;
    sleep(SETTLE).await;
    figure("follower_sse", base, server.memory());
    drop(sse);
    sleep(SETTLE).await;
    let base = server.memory();
    let grpc = followers_grpc(&server, &session).await;
    sleep(SETTLE).await;
    figure("follower_grpc", base, server.memory());
    drop(grpc);
}

async fn followers_sse(server: &Server, session: &str) -> Vec<Connection> {
    let path = format!("/v1/sessions/{session}/follow");
    let mut all = Vec::new();
    for _ in 0..COUNT {
        let mut connection = Connection::open(&server.address).await.follow(&path).await;
        connection.next("event: caught-up").await;
        all.push(connection);
    }
    all
}

async fn followers_grpc(server: &Server, session: &str) -> Vec<ax_client::Follow> {
    let mut all = Vec::new();
    let mut client = server.client();
    for number in 0..COUNT {
        if number % STREAMS_EACH == 0 {
            client = server.client();
        }
        let request = v1::FollowRequest { session: session.to_owned(), ..Default::default() };
        let mut follow = client.follow(request);
        while !matches!(follow.next().await.unwrap().unwrap(), Item::CaughtUp(_)) {}
        all.push(follow);
    }
    all
}
