//! The answer that the prompt itself asks for.

use crate::answer::Part;
use crate::ask::Ask;
use serde_json::Value;

/// How much of a prompt is echoed, and of a result repeated, in characters.
pub(crate) const ECHO_CHARS_MAX: usize = 2_000;

/// Decides: a call in the prompt is made; a tool's result is reported; else the prompt is echoed.
pub(crate) fn answer(ask: &Ask) -> Vec<Part> {
    let prompt = ask.prompt();
    if let Some((tool, arguments)) = find_call(&prompt) {
        return vec![Part::Call { id: None, tool, arguments }];
    }
    let text = match ask.results() {
        Some(result) => format!("The tool answered: {}", excerpt(&result, ECHO_CHARS_MAX)),
        None => format!("echo: {}", excerpt(&prompt, ECHO_CHARS_MAX)),
    };
    vec![Part::Text(text)]
}

/// Finds the first `CALL <tool> <object>` in a text. Whatever follows the object is ignored, as
/// harnesses wrap prompts in tags.
fn find_call(text: &str) -> Option<(String, Value)> {
    let starts = text.match_indices("CALL ");
    let own_word = |at: usize| !text[..at].ends_with(|before: char| before.is_alphanumeric());
    starts.filter(|(at, _)| own_word(*at)).find_map(|(at, word)| {
        let rest = text[at + word.len()..].trim_start();
        let (tool, rest) = rest.split_once(char::is_whitespace)?;
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        let arguments = values.next()?.ok()?;
        let named =
            !tool.is_empty() && tool.chars().all(|c| c.is_alphanumeric() || "_-.:/".contains(c));
        (named && arguments.is_object()).then(|| (tool.to_owned(), arguments))
    })
}

/// Returns the first characters of a text.
pub(crate) fn excerpt(text: &str, chars: usize) -> &str {
    text.char_indices().nth(chars).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_call_is_found_wherever_it_is_wrapped() {
        let found = Some(("shell".to_owned(), json!({"command": "echo {}"})));
        for text in [
            r#"CALL shell {"command": "echo {}"}"#,
            r#"<prompt>CALL shell {"command":"echo {}"}</prompt> and {more}"#,
            "please\nCALL  shell\n{\"command\": \"echo {}\"}\nthanks",
            r#"CALL is how one CALL shell {"command": "echo {}"}, then CALL other {}"#,
        ] {
            assert_eq!(find_call(text), found, "{text}");
        }
    }

    #[test]
    fn what_is_no_call_is_none() {
        for text in ["", "CALL", "CALL shell", "CALL shell {", "CALL shell [1]", "RECALL shell {}"]
        {
            assert_eq!(find_call(text), None, "{text}");
        }
    }
}
