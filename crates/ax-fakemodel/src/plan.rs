//! Which turn answers a request, and how.

use crate::answer::{Part, Usage, tokens, tokens_of};
use crate::ask::Ask;
use crate::fault::Fault;
use crate::prompt;
use crate::script::{Otherwise, Outcome, Script, Turn};
use std::collections::BTreeMap;
use std::time::Duration;

const CHUNK_CHARS: usize = 16;

/// How a request is answered.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The turn, if one fitted.
    pub(crate) turn: Option<usize>,
    /// All turns that fitted, also those that let it pass because of `skip` or `times`.
    pub(crate) fitted: Vec<usize>,
    pub(crate) parts: Vec<Part>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) usage: Usage,
    pub(crate) chunk_chars: usize,
    pub(crate) chunk_delay: Duration,
    pub(crate) latency: Duration,
    pub(crate) fault: Fault,
}

/// What of a request a script can see beside the conversation.
pub(crate) trait Headers {
    fn get(&self, name: &str) -> Option<String>;
}

/// Decides. `fitted_before` says how many requests each turn fitted so far.
pub(crate) fn plan(
    script: &Script,
    fitted_before: &BTreeMap<usize, u64>,
    ask: &Ask,
    headers: &impl Headers,
    request_text: &str,
) -> Plan {
    let mut fitted = Vec::new();
    let mut chosen = None;
    for (index, turn) in script.turns.iter().enumerate() {
        if !fits(script, index, turn, ask, headers) {
            continue;
        }
        fitted.push(index);
        let before = fitted_before.get(&index).copied().unwrap_or(0);
        let end = turn.times.map_or(u64::MAX, |times| turn.skip.saturating_add(times));
        if (turn.skip..end).contains(&before) {
            chosen = Some(index);
            break;
        }
    }
    let nothing = Turn::default();
    let turn = chosen.map_or(&nothing, |index| &script.turns[index]);
    let parts = if turn.has_answer() { scripted(turn, ask) } else { prompt::answer(ask) };
    let mut fault = turn.fault.clone();
    if chosen.is_none() && script.otherwise == Otherwise::Refuse {
        fault.status = Some(400);
        fault.message = Some("no turn of the script fits this request".to_owned());
    }
    let estimate = || Usage {
        input_tokens: tokens(request_text),
        output_tokens: tokens_of(&parts),
        cached_tokens: 0,
    };
    let (pace, defaults) = (&turn.pace, &script.defaults);
    let millis = |own: Option<u64>, default: Option<u64>| {
        Duration::from_millis(own.or(default).unwrap_or(0))
    };
    Plan {
        turn: chosen,
        fitted,
        usage: turn.usage.unwrap_or_else(estimate),
        parts,
        outcome: turn.outcome,
        chunk_chars: pace.chunk_chars.or(defaults.chunk_chars).unwrap_or(CHUNK_CHARS),
        chunk_delay: millis(pace.chunk_delay_millis, defaults.chunk_delay_millis),
        latency: millis(pace.latency_millis, defaults.latency_millis),
        fault,
    }
}

fn fits(script: &Script, index: usize, turn: &Turn, ask: &Ask, headers: &impl Headers) -> bool {
    let when = &turn.when;
    let holds = |part: &Option<String>, whole: &dyn Fn() -> String| {
        part.as_ref().is_none_or(|part| whole().contains(part.as_str()))
    };
    when.turn.is_none_or(|turn| turn == ask.turn())
        && when.format.is_none_or(|format| format == ask.format)
        && when.stream.is_none_or(|stream| stream == ask.stream)
        && when.model.as_ref().is_none_or(|model| *model == ask.model)
        && holds(&when.text, &|| ask.last_user_text())
        && holds(&when.system, &|| ask.system())
        && (when.result.is_none() || ask.results().is_some())
        && holds(&when.result, &|| ask.results().unwrap_or_default())
        && script.patterns.get(&index).is_none_or(|regex| regex.is_match(&ask.last_user_text()))
        && when.headers.iter().all(|(name, value)| headers.get(name).as_ref() == Some(value))
}

/// The parts that a turn says.
fn scripted(turn: &Turn, ask: &Ask) -> Vec<Part> {
    let fill = |text: &String| {
        let text = text.replace("{{prompt}}", &ask.last_user_text());
        text.replace("{{result}}", &ask.results().unwrap_or_default())
    };
    let thought = turn.thought.iter().map(|text| Part::Thought(fill(text)));
    let text = turn.text.iter().map(|text| Part::Text(fill(text)));
    let calls = turn.calls.iter().map(|call| Part::Call {
        id: call.id.clone(),
        tool: call.tool.clone(),
        arguments: call.arguments.clone(),
    });
    thought.chain(text).chain(calls).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::{Item, Role};
    use crate::wire::Format;

    impl Headers for BTreeMap<&str, &str> {
        fn get(&self, name: &str) -> Option<String> {
            BTreeMap::get(self, name).map(|value| (*value).to_owned())
        }
    }

    /// Asks a script the same thing several times; returns the turns that answered.
    #[track_caller]
    fn check(turns: &str, items: &[(Role, &str)], expect: &[Option<usize>]) {
        let script = Script::from_json(&format!(r#"{{"version": 1, "turns": {turns}}}"#)).unwrap();
        let items = items.iter().map(|(role, text)| Item::new(*role, *text)).collect();
        let model = "m-1".to_owned();
        let ask = Ask { format: Format::Gemini, model, stream: true, items };
        let headers = BTreeMap::from([("x-run", "7")]);
        let mut fitted = BTreeMap::new();
        let mut answered = Vec::new();
        for _ in expect {
            let plan = plan(&script, &fitted, &ask, &headers, "request");
            for index in plan.fitted {
                *fitted.entry(index).or_insert(0) += 1;
            }
            answered.push(plan.turn);
        }
        assert_eq!(answered, expect);
    }

    #[test]
    fn the_first_turn_that_fits_answers() {
        let user = &[(Role::User, "the weather in Rome")][..];
        check(r#"[{"when": {"text": "snow"}}, {"when": {"text": "Rome"}}, {}]"#, user, &[Some(1)]);
        check(r#"[{"when": {"regex": "^the .* Rome$"}}]"#, user, &[Some(0)]);
        check(r#"[{"when": {"regex": "^Rome"}}]"#, user, &[None]);
        check(r#"[{"when": {"model": "m-2"}}, {"when": {"model": "m-1"}}]"#, user, &[Some(1)]);
        check(r#"[{"when": {"stream": false}}, {"when": {"format": "gemini"}}]"#, user, &[Some(1)]);
        check(r#"[{"when": {"headers": {"x-run": "7"}}}]"#, user, &[Some(0)]);
        check(r#"[{"when": {"headers": {"x-run": "8"}}}]"#, user, &[None]);
        check(r#"[{"when": {"result": ""}}, {"when": {"turn": 0}}]"#, user, &[Some(1)]);
        let later = &[
            (Role::System, "be kind"),
            (Role::User, "q"),
            (Role::Assistant, "a"),
            (Role::Tool, "r1"),
        ];
        check(
            r#"[{"when": {"turn": 0}}, {"when": {"turn": 1, "result": "r"}}]"#,
            later,
            &[Some(1)],
        );
        check(r#"[{"when": {"system": "kind", "text": "q"}}]"#, later, &[Some(0)]);
    }

    #[test]
    fn a_turn_answers_the_requests_it_is_told_to() {
        let user = &[(Role::User, "hi")][..];
        let turns = r#"[{"skip": 1, "times": 2, "fault": {"status": 500}}, {"text": "fine"}]"#;
        check(turns, user, &[Some(1), Some(0), Some(0), Some(1), Some(1)]);
    }
}
