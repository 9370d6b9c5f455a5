//! Budgets, and what makes no difference.

use crate::{WIRES, World, anthropic, chat};
use serde_json::json;

#[tokio::test]
async fn what_is_over_a_budget_is_refused_in_the_words_of_the_provider() {
    let words = ["billing_error", "insufficient_quota", "insufficient_quota"];
    let words = words.into_iter().chain(["RESOURCE_EXHAUSTED"; 2]);
    let status = [402, 429, 429, 429, 429];
    for (((provider, path, _, request), word), status) in WIRES.into_iter().zip(words).zip(status) {
        let mut world = World::new(r#"{"version": 1}"#).await;
        world.section["limits"] = json!({"execution": {"calls": 1}});
        let attempt = world.attempt().await;
        assert_eq!(attempt.ask(provider, path, &request("one")).await.0, 200);
        let refused = attempt.send(provider, path, &request("two")).await;
        assert_eq!(refused.status().as_u16(), status, "{path}");
        assert_eq!(refused.headers()["x-should-retry"], "false");
        let said = refused.text().await.unwrap();
        let why = "the budget of model calls of the execution is used up: 1 of 1";
        assert!(said.contains(word) && said.contains(why), "{said}");
        assert_eq!(world.paid(), 1);
        // What is paid already is answered.
        let mut next = world.attempt().await;
        assert_eq!(next.ask(provider, path, &request("one")).await.0, 200);
        next = attempt;
        assert_eq!(next.ask(provider, path, &request("three")).await.0, status);
        world.noted("gateway.over_budget").await;
        let log = world.log.lock().unwrap();
        assert_eq!(log.begun.len(), 1, "no step begins that is not carried out");
    }
}

#[tokio::test]
async fn a_rate_that_is_used_up_says_when_to_come_back() {
    let mut world = World::new(r#"{"version": 1}"#).await;
    world.section["limits"] = json!({"rate": {"calls": 1}});
    let attempt = world.attempt().await;
    assert_eq!(attempt.text(&anthropic("one")).await.0, 200);
    let refused = attempt.send("anthropic", "/v1/messages", &anthropic("two")).await;
    assert_eq!(refused.status().as_u16(), 429);
    let after: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((30..=60).contains(&after), "{after}");
    assert!(refused.text().await.unwrap().contains("rate_limit_error"));
    assert_eq!(world.paid(), 1);
}

#[tokio::test]
async fn what_is_ignored_makes_no_divergence_and_is_sent_all_the_same() {
    let mut world = World::new(r#"{"version": 1}"#).await;
    world.section["models"][1]["ignore"] = json!(["Now: [0-9:]+"]);
    let ask = |clock: &str, what: &str| {
        let mut body = chat(&format!("Now: {clock}. {what}"));
        body["client_metadata"] = json!({"thread": clock});
        body
    };
    let path = "/v1/chat/completions";
    let first = world.attempt().await;
    let said = first.ask("openai", path, &ask("10:01", "hello")).await;
    assert_eq!(said.0, 200);
    assert!(said.1.contains("10:01"), "it is sent as it is: {}", said.1);
    let second = world.attempt().await;
    assert_eq!(second.ask("openai", path, &ask("10:02", "hello")).await, said);
    assert_eq!(world.paid(), 1);
    let third = world.attempt().await;
    assert_ne!(third.ask("openai", path, &ask("10:03", "goodbye")).await, said);
}
