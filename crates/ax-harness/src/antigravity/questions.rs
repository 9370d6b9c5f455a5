//! Questions of an agent to a person.

use super::wire::{MultipleChoice, Step};
use crate::launch::AskResult;
use ax_core::session::{Answer, AskKind, Frame, StepKey};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};

/// The longest question that is put, in characters.
const QUESTION_CHARS_MAX: usize = 8_000;
/// The longest prompt, with all that is named in it, in bytes.
const PROMPT_BYTES_MAX: usize = 64 * 1024;
/// The most choices of which one is taken.
const CHOICES_MAX: usize = 64;
/// The longest of them, in bytes.
const CHOICE_BYTES_MAX: usize = 256;
/// What is put when the agent does not say what it wants to know.
const NO_WORDS: &str = "The agent asks, and does not say what.";

/// Returns a text as a prompt: cut, and never empty.
pub(super) fn prompt(mut text: String) -> String {
    if text.trim().is_empty() {
        return NO_WORDS.to_owned();
    }
    let end = text.floor_char_boundary(PROMPT_BYTES_MAX);
    text.truncate(end);
    text
}

/// Whether one of these can be chosen, and is not written as text.
fn can_be_chosen(choices: &[String]) -> bool {
    let fits = |choice: &String| (1..=CHOICE_BYTES_MAX).contains(&choice.len());
    (1..=CHOICES_MAX).contains(&choices.len()) && choices.iter().all(fits)
}

/// The questions of a step, which are put one after the other.
#[derive(Clone, Debug)]
pub(super) struct Form {
    trajectory: String,
    step: u32,
    left: VecDeque<MultipleChoice>,
    answers: Vec<Value>,
}

impl Form {
    /// Reads the questions of a step; none if it has none.
    pub(super) fn of(step: &Step) -> Option<Self> {
        let asked = step.questions_request.as_ref()?.questions.iter();
        let left: VecDeque<_> = asked.map(|question| question.multiple_choice.clone()).collect();
        let trajectory = step.trajectory_id.clone();
        let form = Self { trajectory, step: step.step_index, left, answers: Vec::new() };
        (!form.left.is_empty()).then_some(form)
    }

    /// Returns the next question, and its key; none if all are answered.
    pub(super) fn next(&self, seen: &mut BTreeMap<String, u32>) -> Option<(StepKey, Frame)> {
        let asked = self.left.front()?;
        let text = json!([asked.question, asked.choices]).to_string();
        let hash = blake3::hash(text.as_bytes()).to_hex()[..32].to_owned();
        let count = seen.entry(hash.clone()).or_default();
        *count += 1;
        let key: StepKey = format!("antigravity:question:{hash}:{count}").into();
        let mut words: String = asked.question.chars().take(QUESTION_CHARS_MAX).collect();
        // Several choices, or one that is not there or does not fit, are given as text.
        let kind = if asked.is_multi_select || !can_be_chosen(&asked.choices) {
            for choice in &asked.choices {
                words.push_str("\n- ");
                words.push_str(choice);
            }
            AskKind::Text
        } else {
            AskKind::Choice
        };
        let prompt = prompt(words);
        let choices = if kind == AskKind::Choice { asked.choices.clone() } else { Vec::new() };
        let (details, expires_millis) = (None, None);
        let ask = Frame::Ask { key: key.clone(), kind, prompt, choices, details, expires_millis };
        Some((key, ask))
    }

    /// Takes in the answer to the question that was put last.
    pub(super) fn answer(&mut self, result: &AskResult) {
        let Some(asked) = self.left.pop_front() else { return };
        let chosen = |text: &str| asked.choices.iter().position(|choice| choice == text);
        let given = match result {
            AskResult::Answered(Answer::Choice(text, _) | Answer::Text(text)) => {
                Some(match chosen(text) {
                    Some(at) => json!({"selectedChoiceIndices": [at]}),
                    None => json!({"freeformResponse": text}),
                })
            }
            AskResult::Answered(Answer::Approve) => Some(json!({"freeformResponse": "yes"})),
            AskResult::Answered(Answer::Deny(_)) | AskResult::Expired => None,
        };
        self.answers.push(match given {
            Some(given) => json!({"multipleChoiceAnswer": given}),
            None => json!({"unanswered": true}),
        });
    }

    /// Returns what the agent is told when all are answered.
    pub(super) fn response(&self) -> Value {
        json!({
            "trajectoryId": self.trajectory,
            "stepIndex": self.step,
            "response": {"answers": self.answers},
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::antigravity::wire::{Heard, heard};

    fn form(questions: &Value) -> Option<Form> {
        let step = json!({"stepUpdate": {"trajectoryId": "t", "stepIndex": 4,
            "questionsRequest": {"questions": questions}}});
        let Heard::Step(step) = heard(step.to_string().as_bytes()).unwrap() else { panic!() };
        Form::of(&step)
    }

    fn question(text: &str, choices: &[&str], several: bool) -> Value {
        json!({"multipleChoice":
            {"question": text, "choices": choices, "isMultiSelect": several}})
    }

    #[test]
    fn questions_are_put_one_after_the_other() {
        let questions = json!([
            question("Which?", &["a", "b"], false),
            question("Which ones?", &["c", "d"], true),
            question("Why?", &[], false),
        ]);
        let mut form = form(&questions).unwrap();
        let mut seen = BTreeMap::new();
        let mut kinds = Vec::new();
        let answers = [
            Answer::Choice("b".into(), String::new()),
            Answer::Text("c and d".into()),
            Answer::Deny(String::new()),
        ];
        for answer in answers {
            let (_, frame) = form.next(&mut seen).unwrap();
            let Frame::Ask { kind, prompt, choices, .. } = frame else { panic!("a question") };
            kinds.push((kind, prompt, choices.len()));
            form.answer(&AskResult::Answered(answer));
        }
        assert!(form.next(&mut seen).is_none());
        let expect = [
            (AskKind::Choice, "Which?".to_owned(), 2),
            (AskKind::Text, "Which ones?\n- c\n- d".to_owned(), 0),
            (AskKind::Text, "Why?".to_owned(), 0),
        ];
        assert_eq!(kinds, expect);
        let answers = json!([
            {"multipleChoiceAnswer": {"selectedChoiceIndices": [1]}},
            {"multipleChoiceAnswer": {"freeformResponse": "c and d"}},
            {"unanswered": true},
        ]);
        let response =
            json!({"trajectoryId": "t", "stepIndex": 4, "response": {"answers": answers}});
        assert_eq!(form.response(), response);
    }

    #[test]
    fn choices_that_do_not_fit_are_named_in_the_prompt() {
        let put = |text: &str, choices: &[&str]| {
            let form = form(&json!([question(text, choices, false)])).unwrap();
            let (_, frame) = form.next(&mut BTreeMap::new()).unwrap();
            let Frame::Ask { kind, prompt, choices, .. } = frame else { panic!("a question") };
            (kind, prompt, choices.len())
        };
        assert_eq!(put("", &["a"]), (AskKind::Choice, NO_WORDS.to_owned(), 1));
        assert_eq!(put("Which?", &["a", ""]), (AskKind::Text, "Which?\n- a\n- ".to_owned(), 0));
        assert_eq!(put("Which?", &["a"; 64]).0, AskKind::Choice);
        assert_eq!(put("Which?", &["a"; 65]).0, AskKind::Text);
        let long = "ä".repeat(129);
        let (kind, prompt, _) = put("Which?", &[long.as_str(); 500]);
        assert_eq!(kind, AskKind::Text);
        assert!((PROMPT_BYTES_MAX - 1..=PROMPT_BYTES_MAX).contains(&prompt.len()));
    }

    #[test]
    fn the_same_question_has_the_same_key_in_each_attempt() {
        let form = form(&json!([question("Which?", &["a"], false)])).unwrap();
        let key = |seen: &mut BTreeMap<_, _>| form.next(seen).unwrap().0;
        let mut seen = BTreeMap::new();
        let first = key(&mut seen);
        assert_eq!(first, key(&mut BTreeMap::new()));
        assert_ne!(first, key(&mut seen), "it is put twice");
    }

    #[test]
    fn a_step_without_questions_has_no_form() {
        assert!(form(&json!([])).is_none());
    }
}
