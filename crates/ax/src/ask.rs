//! Questions that are asked on the terminal.

use ax_proto::v1;
use std::io::BufRead as _;
use tokio::sync::mpsc;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    kind: v1::AskKind,
    prompt: String,
    choices: Vec<String>,
}

impl Question {
    pub(crate) fn new(ask: &v1::AskRaised) -> Self {
        Self { kind: ask.kind(), prompt: ask.prompt.clone(), choices: ask.choices.clone() }
    }

    /// What is asked.
    pub(crate) fn prompt(&self) -> String {
        let wanted = self.wanted();
        match self.kind {
            v1::AskKind::Choice => {
                let choices = self.choices.iter().enumerate();
                let lines = choices.map(|(index, choice)| format!("\n  {}. {choice}", index + 1));
                format!("{}{}\n{wanted}", self.prompt, lines.collect::<String>())
            }
            _ => format!("{} {wanted}", self.prompt),
        }
    }

    fn wanted(&self) -> String {
        match self.kind {
            v1::AskKind::Approval => "[yes, or no and why]".into(),
            v1::AskKind::Choice => format!("[1-{}]", self.choices.len()),
            _ => "[text]".into(),
        }
    }

    /// Reads an answer, or says what is wanted.
    pub(crate) fn read(&self, line: &str) -> Result<v1::Answer, String> {
        use v1::answer::{Answer, Approve, Choice, Deny};
        let line = line.trim();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim().to_owned();
        let answer = match (self.kind, word.to_lowercase().as_str()) {
            (v1::AskKind::Approval, "y" | "yes") => Answer::Approve(Approve {}),
            (v1::AskKind::Approval, "n" | "no" | "no,") => Answer::Deny(Deny { reason: rest }),
            (v1::AskKind::Approval, _) => return Err(self.wanted()),
            (v1::AskKind::Choice, _) => match self.choice(line, word) {
                Some((choice, text)) => Answer::Choice(Choice { choice, text }),
                None => return Err(self.wanted()),
            },
            (_, "") => return Err(self.wanted()),
            _ => Answer::Text(line.to_owned()),
        };
        Ok(v1::Answer { answer: Some(answer) })
    }

    /// Finds the choice that is named by its number or its words.
    fn choice(&self, line: &str, word: &str) -> Option<(String, String)> {
        let number: Option<usize> = word.trim_end_matches('.').parse().ok();
        let numbered = number.and_then(|number| self.choices.get(number.checked_sub(1)?));
        if let Some(choice) = numbered {
            return Some((choice.clone(), line[word.len()..].trim().to_owned()));
        }
        let named = self.choices.iter().find(|choice| choice.eq_ignore_ascii_case(line));
        named.map(|choice| (choice.clone(), String::new()))
    }
}

/// Lines of standard input. A thread reads them from the first time one is wanted.
#[derive(Debug, Default)]
pub(crate) struct Terminal {
    lines: Option<mpsc::Receiver<String>>,
}

impl Terminal {
    /// Returns the next line; `None` when there are no more.
    pub(crate) async fn line(&mut self) -> Option<String> {
        let lines = self.lines.get_or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(1);
            // Never joined: it may wait for a line for ever, and ends with the process.
            drop(std::thread::spawn(move || {
                for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                    if sender.blocking_send(line).is_err() {
                        break;
                    }
                }
            }));
            receiver
        });
        lines.recv().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::answer::Answer;

    fn question(kind: v1::AskKind) -> Question {
        Question { kind, prompt: "Ship it?".into(), choices: vec!["now".into(), "later on".into()] }
    }

    fn check(kind: v1::AskKind, line: &str, expect: &str) {
        let read = question(kind).read(line);
        let words = match read.map(|answer| answer.answer) {
            Err(wanted) => wanted,
            Ok(Some(Answer::Approve(_))) => "approve".into(),
            Ok(Some(Answer::Deny(deny))) => format!("deny {}", deny.reason),
            Ok(Some(Answer::Choice(choice))) => format!("{}/{}", choice.choice, choice.text),
            Ok(Some(Answer::Text(text))) => text,
            Ok(None) => "nothing".into(),
        };
        assert_eq!(words, expect, "{line}");
    }

    #[test]
    fn answers_are_read_and_others_are_asked_again() {
        use v1::AskKind::{Approval, Choice, Text};
        check(Approval, "Y", "approve");
        check(Approval, "no, too early", "deny too early");
        check(Approval, "", "[yes, or no and why]");
        check(Choice, "2", "later on/");
        check(Choice, "1 please", "now/please");
        check(Choice, "Later on", "later on/");
        check(Choice, "3", "[1-2]");
        check(Text, " hello there ", "hello there");
        check(Text, "", "[text]");
    }

    #[test]
    fn choices_are_listed() {
        let prompt = question(v1::AskKind::Choice).prompt();
        assert_eq!(prompt, "Ship it?\n  1. now\n  2. later on\n[1-2]");
    }
}
