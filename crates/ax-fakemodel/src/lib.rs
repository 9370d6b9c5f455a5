//! A model server that does what it is told: a test tool, and the model of the demo.
//!
//! It speaks the wire formats of Anthropic Messages, OpenAI Chat Completions and Responses, and
//! Gemini `generateContent` and Interactions, so that real clients of these vendors talk to it
//! without knowing. What it answers is decided by the prompt (`CALL tool {…}` becomes a tool
//! call, a tool's result a final text, anything else an echo) or by a [`Script`]; faults come on
//! demand; and every request is in a [ledger], so that a test can count what was paid.
//!
//! It is not a model, and not a mock of a vendor's whole API: what a harness needs in order to
//! work is here, and nothing is checked that a vendor would check (keys, quotas, schemas).
//!
//! Start with [`FakeModel::start`]; the script is described in `docs/formats/fakemodel-script.md`.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use ax_fakemodel::{FakeModel, Options, Script};
//!
//! let script = r#"{"version": 1, "turns": [{"when": {"text": "weather"}, "text": "rain"}]}"#;
//! let options = Options { script: Script::from_json(script).unwrap(), ..Options::default() };
//! let model = FakeModel::start(options).await.unwrap();
//! println!("point a client at {}", model.base_url());
//! assert_eq!(model.ledger().len(), 0);
//! model.shutdown().await;
//! # });
//! ```

mod answer;
mod ask;
mod body;
mod canonical;
mod deliver;
mod fault;
mod handle;
pub mod ledger;
mod plan;
mod prompt;
pub mod script;
mod server;
mod stored;
mod wire;

pub use fault::Fault;
pub use ledger::Entry;
pub use script::Script;
pub use server::{FakeModel, Options, StartError, serve};
pub use wire::Format;
