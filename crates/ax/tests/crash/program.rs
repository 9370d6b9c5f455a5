//! What sessions are told to do.

use super::dice::Dice;
use serde_json::{Value, json};

/// How many inputs a session gets at most.
const INPUTS_MAX: u64 = 3;

/// Who carries a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// A program that speaks the protocol itself.
    Raw,
    /// A program on the Python SDK.
    Sdk,
    /// The built-in harness.
    Builtin,
}

impl Carrier {
    pub(crate) const ALL: [Self; 3] = [Self::Raw, Self::Sdk, Self::Builtin];

    /// The name of its agent.
    pub(crate) const fn agent(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Sdk => "sdk",
            Self::Builtin => "builtin",
        }
    }
}

/// An effect class, in the words of the protocol.
pub(crate) type Effect = &'static str;

/// A thing that an input makes happen, and that must show in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// A step, which leaves a line in a file unless it only reads.
    Step {
        key: String,
        effect: Effect,
    },
    /// A call of the model, by a prompt of its own.
    Model {
        key: String,
    },
    /// An output.
    Say {
        key: String,
        text: String,
    },
    /// A sleep, a wait for a signal, a question, a note, a checkpoint.
    Sleep {
        key: String,
    },
    Signal {
        key: String,
        name: String,
    },
    Ask {
        key: String,
    },
    Emit {
        key: String,
    },
    Checkpoint {
        key: String,
    },
}

/// An input.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    /// Unique within the round; effects and prompts carry it.
    pub(crate) tag: String,
    /// The client's idempotency key.
    pub(crate) key: String,
    pub(crate) text: String,
    pub(crate) ops: Vec<Op>,
    /// How long the client waits before it sends it, in milliseconds.
    pub(crate) pause_millis: u64,
    /// The client gives up on the first answer after so long, and sends it again.
    pub(crate) hang_up_millis: Option<u64>,
    /// It cancels whatever is under way.
    pub(crate) interrupts: bool,
}

/// A session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) name: String,
    pub(crate) carrier: Carrier,
    pub(crate) inputs: Vec<Input>,
}

impl Session {
    pub(crate) fn draw(number: usize, effects: &str, dice: &mut Dice) -> Self {
        let carrier = match number % 10 {
            0..=4 => Carrier::Raw,
            5..=7 => Carrier::Sdk,
            _ => Carrier::Builtin,
        };
        let count = dice.between(1, INPUTS_MAX + 1);
        let inputs = (0..count).map(|at| {
            let tag = format!("s{number}.{at}");
            let (text, ops) = match carrier {
                Carrier::Builtin => builtin(&tag, effects, dice),
                _ => scripted(&tag, carrier, dice),
            };
            Input {
                key: format!("key-{tag}"),
                tag,
                text,
                ops,
                pause_millis: dice.between(0, 800),
                hang_up_millis: dice.chance(30).then(|| dice.between(0, 30)),
                // To the model of the built-in harness an interrupted input is still to be done.
                interrupts: at > 0 && dice.chance(10) && carrier != Carrier::Builtin,
            }
        });
        let inputs = inputs.collect();
        Self { name: format!("session-{number}"), carrier, inputs }
    }
}

/// An input for the built-in harness: a tool call that leaves a line in the session's file.
fn builtin(tag: &str, effects: &str, dice: &mut Dice) -> (String, Vec<Op>) {
    if dice.chance(25) {
        return (format!("{tag} hello"), vec![Op::Model { key: "model:1".into() }]);
    }
    let pause = dice.between(0, 6);
    let command = format!(
        "sleep 0.0{pause}; echo {tag} tool:1:1 $AX_ATTEMPT | \
         dd of={effects}/$AX_SESSION oflag=append conv=notrunc,fsync status=none"
    );
    let text = format!("{tag} CALL shell {}", json!({"command": command}));
    let ops = vec![
        Op::Model { key: "model:1".into() },
        Op::Step { key: "tool:1:1".into(), effect: "once" },
        Op::Model { key: "model:2".into() },
    ];
    (text, ops)
}

/// An input for our own harnesses: a list of operations.
fn scripted(tag: &str, carrier: Carrier, dice: &mut Dice) -> (String, Vec<Op>) {
    let (mut program, mut ops) = (Vec::new(), Vec::new());
    for number in 1..=dice.between(2, 9) {
        let key = format!("k{number}");
        program.push(operation(key, tag, carrier, dice, &mut ops));
    }
    (json!({"tag": tag, "ops": program}).to_string(), ops)
}

fn operation(
    key: String,
    tag: &str,
    carrier: Carrier,
    dice: &mut Dice,
    ops: &mut Vec<Op>,
) -> Value {
    match dice.between(0, 20) {
        0..=6 => step(key, dice, ops),
        7..=8 if carrier == Carrier::Raw => {
            let (one, two) = (format!("{key}a"), format!("{key}b"));
            json!({"op": "pair", "steps": [step(one, dice, ops), step(two, dice, ops)]})
        }
        7..=10 => {
            ops.push(Op::Model { key: key.clone() });
            json!({"op": "model", "key": key})
        }
        11..=12 => {
            let pieces: Vec<_> = (0..dice.between(1, 8)).map(|at| format!("{key}-{at} ")).collect();
            let text = pieces.concat();
            let value = json!({
                "op": "say", "key": key, "pieces": pieces, "ms": dice.between(0, 12),
            });
            ops.push(Op::Say { key, text });
            value
        }
        13 => {
            ops.push(Op::Sleep { key: key.clone() });
            json!({"op": "sleep", "key": key, "ms": dice.between(1, 400)})
        }
        14 => {
            let name = format!("{tag}-{key}");
            ops.push(Op::Signal { key: key.clone(), name: name.clone() });
            json!({"op": "signal", "key": key, "name": name})
        }
        15 => {
            ops.push(Op::Ask { key: key.clone() });
            json!({"op": "ask", "key": key})
        }
        16 => {
            ops.push(Op::Emit { key: key.clone() });
            json!({"op": "emit", "key": key})
        }
        17 => {
            ops.push(Op::Checkpoint { key: key.clone() });
            json!({"op": "checkpoint", "key": key})
        }
        18 => json!({"op": "die", "attempts": dice.between(1, 3)}),
        _ => json!({"op": "fail", "attempts": dice.between(1, 3)}),
    }
}

fn step(key: String, dice: &mut Dice, ops: &mut Vec<Op>) -> Value {
    let effect = dice.pick(&["once", "once", "once", "idempotent", "idempotent", "read"]);
    let value = json!({"op": "step", "key": key, "effect": effect, "ms": dice.between(0, 50)});
    ops.push(Op::Step { key, effect });
    value
}
