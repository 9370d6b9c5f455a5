//! Everything that a seed decides.

use super::dice::Dice;
use serde_json::{Value, json};

/// Pieces of text, so that a cut falls into the middle of a character, too.
const WORDS: &[&str] =
    &["stream", " of ", "größer", "東京", "🙂", "\n", "\"quoted\"", "data: ", "é", "0"];

/// One session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) name: String,
    /// What its inputs are: programs of the harness.
    pub(crate) inputs: Vec<Value>,
    /// Whether the Python client sends the inputs after the first one.
    pub(crate) python_submits: bool,
    /// Whether a browser follows it.
    pub(crate) browser: bool,
}

/// A `kill -9` of the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blow {
    /// After the one before.
    pub(crate) pause_millis: u64,
    /// Until it is started again.
    pub(crate) down_millis: u64,
}

/// A round.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) sessions: Vec<Session>,
    pub(crate) blows: Vec<Blow>,
    pub(crate) dice: Dice,
}

impl Plan {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let sessions = (0..8).map(|number| Session::draw(number, &mut dice)).collect();
        let blow = |dice: &mut Dice| Blow {
            pause_millis: dice.between(300, 1_500),
            down_millis: dice.between(0, 300),
        };
        let count = dice.between(1, 4);
        let blows = (0..count).map(|_| blow(&mut dice)).collect();
        Self { sessions, blows, dice }
    }
}

impl Session {
    fn draw(number: u64, dice: &mut Dice) -> Self {
        let count = dice.between(2, 4);
        Self {
            name: format!("cut-{number}"),
            inputs: (0..count).map(|_| program(dice)).collect(),
            python_submits: number % 2 == 1,
            // A browser has at most six connections to one server.
            browser: number < 4,
        }
    }
}

fn program(dice: &mut Dice) -> Value {
    let block = |dice: &mut Dice| {
        let count = dice.between(10, 80);
        (0..count).map(|number| piece(number, dice)).collect::<Vec<_>>()
    };
    let count = dice.between(1, 4);
    let blocks: Vec<_> = (0..count).map(|_| block(dice)).collect();
    json!({"blocks": blocks, "ms": dice.between(4, 16)})
}

fn piece(number: u64, dice: &mut Dice) -> String {
    let count = dice.pick(&[1, 1, 3, 40]);
    let words = (0..count).map(|_| dice.pick(WORDS));
    format!("{number} {} ", words.collect::<String>())
}
