//! Tools of tool servers, which the gateway calls and journals.

use crate::link::{Link, Stop};
use ax_core::session::Failure;
use ax_gateway::{Offered, Said, Toolbox};
use serde_json::{Value, json};

/// What stands between the names of a server and of its tool.
const BETWEEN: &str = "__";

/// The longest name that providers take.
const NAME_BYTES_MAX: usize = 64;

/// What a tool returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Returned {
    /// What the model is told.
    pub(super) text: String,
    /// Whether it failed.
    pub(super) error: bool,
}

impl Returned {
    pub(super) fn error(text: impl Into<String>) -> Self {
        Self { text: text.into(), error: true }
    }
}

impl From<Result<String, String>> for Returned {
    fn from(result: Result<String, String>) -> Self {
        match result {
            Ok(text) => Self { text, error: false },
            Err(text) => Self { text, error: true },
        }
    }
}

/// The tools of an attempt that are not the harness' own.
#[derive(Debug, Default)]
pub(super) struct Outside {
    toolbox: Option<Toolbox>,
    offered: Vec<Offered>,
}

impl Outside {
    /// Asks the tool servers what they offer.
    pub(super) async fn open(toolbox: Option<Toolbox>, link: &mut Link) -> Result<Self, Stop> {
        let Some(toolbox) = toolbox else { return Ok(Self::default()) };
        let offered = link.during(toolbox.offered()).await?.map_err(|message| Stop::Failed {
            failure: Failure { code: "tool_server".into(), message },
            retry: true,
        })?;
        Ok(Self { toolbox: Some(toolbox), offered })
    }

    /// Returns what the model is told about them.
    pub(super) fn schemas(&self) -> impl Iterator<Item = Value> {
        self.offered.iter().map(|tool| {
            json!({"name": name(tool), "description": tool.description, "input": tool.input})
        })
    }

    /// The names by which the model calls them.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.offered.iter().map(name)
    }

    /// Calls a tool; `None` if no tool server has it.
    pub(super) async fn call(
        &self,
        link: &mut Link,
        called: &str,
        input: &Value,
    ) -> Result<Option<Returned>, Stop> {
        let tool = self.offered.iter().find(|tool| name(tool) == called);
        let (Some(toolbox), Some(tool)) = (&self.toolbox, tool) else { return Ok(None) };
        let Value::Object(arguments) = input else {
            return Ok(Some(Returned::error("the input of the tool is no JSON object")));
        };
        let call = toolbox.call(&tool.server, &tool.name, arguments.clone());
        match link.during(call).await? {
            Ok(Said { text, error }) => Ok(Some(Returned { text, error })),
            // The gateway has said why the attempt ends.
            Err(message) => Err(Stop::Told(Failure { code: "gateway".into(), message })),
        }
    }
}

/// The name by which the model calls a tool: providers take letters, digits, `_` and `-`, 64 of
/// them. Of what is changed or cut a hash is added, so that no two become one.
fn name(tool: &Offered) -> String {
    let whole = format!("{}{BETWEEN}{}", tool.server, tool.name);
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if whole.len() <= NAME_BYTES_MAX && whole.chars().all(plain) {
        return whole;
    }
    let kept: String = whole.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    let hash = blake3::hash(whole.as_bytes()).to_hex();
    format!("{}_{}", &kept[..kept.len().min(NAME_BYTES_MAX - 9)], &hash[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_has_a_name_that_providers_take() {
        let named = |server: &str, tool: &str| {
            let (server, tool) = (server.to_owned(), tool.to_owned());
            name(&Offered { server, name: tool, description: String::new(), input: Value::Null })
        };
        assert_eq!(named("shop", "put-back"), "shop__put-back");
        let odd = [named("shop", "a.b"), named("shop", "a/b"), named("shop", &"ü".repeat(80))];
        for name in &odd {
            assert!(name.len() <= 64 && name.starts_with("shop__"), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)));
        }
        assert_ne!(odd[0], odd[1]);
        assert_ne!(named("shop", &"a".repeat(70)), named("shop", &"a".repeat(71)));
    }
}
