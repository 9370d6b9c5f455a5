//! `ax fakemodel`: the scripted model server, for tests and demos.

use crate::args::FakemodelArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::link::Context;
use ax_engine::Code;
use ax_fakemodel::{FakeModel, Options, Script};
use serde_json::json;

pub(crate) async fn fakemodel(cx: &Context, args: FakemodelArgs) -> Result<Exit, Failure> {
    let script = match &args.script {
        None => Script::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|error| Failure::file("read", path, &error))?;
            Script::from_json(&text).map_err(|error| {
                Failure::usage(format!("{} is not a script", path.display())).because(&error)
            })?
        }
    };
    let options = Options { script, ledger_file: args.ledger, listen: args.listen };
    let mut interrupts = Interrupts::new()?;
    let model = FakeModel::start(options).await.map_err(|error| {
        Failure::new(Code::Unavailable, "the model server cannot be started").because(&error)
    })?;
    if cx.out.json {
        cx.out.object(&json!({"type": "serving", "url": model.base_url()}))?;
    } else {
        cx.out.line(&model.base_url())?;
    }
    let _terminated = interrupts.next().await;
    model.shutdown().await;
    Ok(Exit::Done)
}
