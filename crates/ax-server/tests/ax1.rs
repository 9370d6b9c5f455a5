//! The AX wire, for clients that come back in the middle of things.

#![expect(clippy::unwrap_used, reason = "a test")]

#[expect(dead_code, reason = "other tests use more of it")]
mod support;

use ax_core::session::{Frame, PartKind};
use ax_proto::ax1::content::Type;
use ax_proto::ax1::execution_service_client::ExecutionServiceClient;
use ax_proto::ax1::{ExecRequest, ExecResponse};
use support::World;
use tonic::transport::Endpoint;

const PIECE_BYTES: usize = 8 << 10;
const PIECES: usize = 300;

#[tokio::test]
async fn a_long_message_is_whole_for_a_client_that_comes_back_in_the_middle_of_it() {
    let texts: Vec<String> = (0..PIECES).map(|n| format!("{n:0>PIECE_BYTES$}")).collect();
    let block = || "text".into();
    let pieces = texts.iter().map(|text| Frame::Delta {
        block: block(),
        part: PartKind::Text,
        text: text.clone(),
    });
    let closed = Frame::Output { block: Some(block()), key: None, parts: Vec::new() };
    let frames = pieces.chain([closed, Frame::End { result: None }]).collect();
    let world = World::saying(frames, ax_server::Options::default(), true).await;
    world.agent().await;
    world.submit("talk", "speak").await;
    let all = world.follow("/v1/sessions/talk/follow?untilIdle=true", "").await.rest().await;
    let deltas = all.iter().filter(|sent| sent.event == "output.delta");
    let deltas: Vec<i32> = deltas.map(|sent| sent.id.parse().unwrap()).collect();
    // More than one page of bytes, in fewer events than a page has.
    assert!(PIECES * PIECE_BYTES > 2 << 20 && deltas.len() < 1_000, "{}", deltas.len());
    let url = format!("http://{}", world.address);
    let channel = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    let mut client = ExecutionServiceClient::new(channel).max_decoding_message_size(64 << 20);
    for last_step in [deltas[deltas.len() * 9 / 10], *deltas.last().unwrap()] {
        let conversation_id = "talk".to_owned();
        let request = ExecRequest { conversation_id, last_step, ..Default::default() };
        let mut answers = client.exec(request).await.unwrap().into_inner();
        let answer = answers.message().await.unwrap().unwrap();
        assert!(text(answer) == texts.concat(), "after {last_step}");
        assert!(answers.message().await.unwrap().is_none());
    }
}

fn text(answer: ExecResponse) -> String {
    let contents = answer.outputs.into_iter().filter_map(|message| message.content?.r#type);
    let texts = contents.map(|content| match content {
        Type::Text(text) => text.text,
        other => panic!("{other:?}"),
    });
    texts.collect()
}
