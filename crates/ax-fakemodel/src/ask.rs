//! What a request asks, whichever format it came in.

use crate::wire::Format;
use serde_json::Value;

/// Who an item of a conversation is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    System,
    User,
    Assistant,
    Tool,
}

/// An item of a conversation, reduced to its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) role: Role,
    pub(crate) text: String,
}

impl Item {
    pub(crate) fn new(role: Role, text: impl Into<String>) -> Self {
        Self { role, text: text.into() }
    }
}

/// A request for an answer.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) format: Format,
    pub(crate) model: String,
    pub(crate) stream: bool,
    pub(crate) items: Vec<Item>,
}

impl Ask {
    /// How often the assistant has spoken; what it said in a row counts as once.
    pub(crate) fn turn(&self) -> u64 {
        let mut turn = 0;
        let mut before = Role::User;
        for item in self.items.iter().filter(|item| item.role != Role::System) {
            turn += u64::from(item.role == Role::Assistant && before != Role::Assistant);
            before = item.role;
        }
        turn
    }

    /// What came after the assistant spoke last.
    fn tail(&self) -> &[Item] {
        let last = self.items.iter().rposition(|item| item.role == Role::Assistant);
        &self.items[last.map_or(0, |last| last + 1)..]
    }

    /// The text of the user in the tail: of all its items, as harnesses add reminders after the
    /// prompt; and of those after the last tool result only, if there is one.
    pub(crate) fn prompt(&self) -> String {
        let tail = self.tail();
        let last = tail.iter().rposition(|item| item.role == Role::Tool);
        let after = &tail[last.map_or(0, |last| last + 1)..];
        join(after.iter().filter(|item| item.role == Role::User))
    }

    /// The text of the tool results in the tail; `None` if there is none.
    pub(crate) fn results(&self) -> Option<String> {
        let mut results = self.tail().iter().filter(|item| item.role == Role::Tool).peekable();
        results.peek()?;
        Some(join(results))
    }

    /// The last thing the user said anywhere in the conversation.
    pub(crate) fn last_user_text(&self) -> String {
        let prompt = self.prompt();
        if !prompt.is_empty() {
            return prompt;
        }
        let last = self.items.iter().rfind(|item| item.role == Role::User);
        last.map(|item| item.text.clone()).unwrap_or_default()
    }

    /// The instructions.
    pub(crate) fn system(&self) -> String {
        join(self.items.iter().filter(|item| item.role == Role::System))
    }
}

fn join<'a>(items: impl Iterator<Item = &'a Item>) -> String {
    items.map(|item| item.text.as_str()).collect::<Vec<_>>().join("\n")
}

/// Gathers the text of a content in any of the forms that the formats use: a string, a part with
/// a text, a list of parts, a part that holds more content.
pub(crate) fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts = parts.iter().map(text_of).filter(|text| !text.is_empty());
            texts.collect::<Vec<_>>().join("\n")
        }
        Value::Object(part) => {
            let inner = ["text", "content", "parts", "output", "result", "items"];
            let inner = inner.iter().find_map(|key| part.get(*key));
            inner.map(text_of).unwrap_or_default()
        }
        _ => String::new(),
    }
}

/// Returns a field that is a string, or nothing.
pub(crate) fn str_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Returns the items of a field that is a list, or none.
pub(crate) fn list_of<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(items: &[(Role, &str)]) -> Ask {
        let items = items.iter().map(|(role, text)| Item::new(*role, *text)).collect();
        Ask { format: Format::Chat, model: String::new(), stream: false, items }
    }

    #[test]
    fn reminders_after_the_prompt_are_a_part_of_it() {
        use Role::{Assistant, Tool, User};
        let one = ask(&[(User, "old"), (Assistant, "yes"), (User, "do it"), (User, "remember")]);
        assert_eq!((one.turn(), one.prompt().as_str()), (1, "do it\nremember"));
        assert_eq!(one.results(), None);
        let two =
            ask(&[(User, "do it"), (Assistant, ""), (Assistant, ""), (Tool, "a"), (Tool, "b")]);
        assert_eq!((two.turn(), two.prompt().as_str()), (1, ""));
        assert_eq!(two.results().as_deref(), Some("a\nb"));
        assert_eq!(two.last_user_text(), "do it");
    }
}
