//! What a follower does, without doing it: no socket, no clock.
//!
//! The driver does what [`Machine::want`] says and tells the machine what came of it. What does not
//! fit the state, such as an event of a connection that was given up, changes nothing.
//!
//! | state | waits for | then |
//! |---|---|---|
//! | apart | `Opened` | streaming |
//! | streaming | `Event`, `CaughtUp`, `Alive` | streaming |
//! | apart, streaming | `Failed` | pausing, or over if the error says that nothing will help |
//! | pausing | `Due` | apart |
//! | streaming | `End` | pausing if the server stops, else over |

use crate::error::Error;
use crate::follow::Item;
use crate::outage::{Chance, Outage, Patience, given_up};
use ax_proto::v1;
use ax_proto::v1::follow_end::Reason;

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// The pause is over.
    Due,
    /// The server has taken the request.
    Opened,
    /// An event came.
    Event(Box<v1::Event>),
    /// Everything up to this position, which was recorded at the time of the request, has come.
    CaughtUp(u64),
    /// Nothing has happened for a while, and the stream is this far.
    Alive(u64),
    /// The server says that nothing more comes.
    End(Box<v1::FollowEnd>),
    /// There is no connection, it broke, or what came over it makes no sense; or a refusal.
    Failed(Error),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// Ask the server for what comes after this position.
    Open { after: u64 },
    /// Wait until then, in milliseconds by the clock of the driver.
    Wait { until_millis: u64 },
    /// Read what the server sends.
    Read,
    /// Nothing: it is over.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not connected.
    Apart,
    /// Not connected, and not to be until then.
    Pausing { until_millis: u64 },
    /// Connected.
    Streaming,
    /// Nothing more comes.
    Over,
}

/// A follower: where it is, and what it does.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    state: State,
    /// The position of the last event that was handed out.
    last: u64,
    /// Positions may be missing, because events were left out.
    holes: bool,
    outage: Outage,
    patience: Patience,
}

impl Machine {
    pub(crate) const fn new(after: u64, holes: bool, patience: Patience, chance: Chance) -> Self {
        let outage = Outage::none(chance);
        Self { state: State::Apart, last: after, holes, outage, patience }
    }

    /// The position of the last event that was handed out.
    pub(crate) const fn last(&self) -> u64 {
        self.last
    }

    /// What the driver is to do.
    pub(crate) const fn want(&self) -> Want {
        match self.state {
            State::Apart => Want::Open { after: self.last },
            State::Pausing { until_millis } => Want::Wait { until_millis },
            State::Streaming => Want::Read,
            State::Over => Want::Nothing,
        }
    }

    /// Takes in what happened; returns what the caller is to see of it.
    ///
    /// # Errors
    ///
    /// Returns the error that ends it.
    pub(crate) fn handle(&mut self, now_millis: u64, input: Input) -> Result<Option<Item>, Error> {
        match (self.state, input) {
            (State::Apart, Input::Opened) => {
                self.state = State::Streaming;
                Ok(None)
            }
            (State::Pausing { .. }, Input::Due) => {
                self.state = State::Apart;
                Ok(None)
            }
            (State::Streaming, Input::Event(event)) => self.see(now_millis, event),
            (State::Streaming, Input::CaughtUp(last)) => {
                self.outage.end();
                Ok(Some(Item::CaughtUp(last)))
            }
            (State::Streaming, Input::Alive(last)) => {
                self.outage.end();
                if self.holes {
                    self.last = self.last.max(last);
                }
                Ok(None)
            }
            (State::Streaming, Input::End(end)) if end.reason() == Reason::Shutdown => {
                self.fail(now_millis, Error::broken("the server is stopping"))
            }
            (State::Streaming, Input::End(end)) => {
                self.state = State::Over;
                Ok(Some(Item::End(end)))
            }
            (State::Apart | State::Streaming, Input::Failed(error)) => self.fail(now_millis, error),
            (
                State::Apart,
                Input::Due | Input::Event(_) | Input::CaughtUp(_) | Input::Alive(_) | Input::End(_),
            )
            | (
                State::Pausing { .. },
                Input::Opened
                | Input::Event(_)
                | Input::CaughtUp(_)
                | Input::Alive(_)
                | Input::End(_)
                | Input::Failed(_),
            )
            | (State::Streaming, Input::Due | Input::Opened)
            | (State::Over, _) => Ok(None),
        }
    }

    /// Hands an event out once, and in order.
    fn see(&mut self, now_millis: u64, event: Box<v1::Event>) -> Result<Option<Item>, Error> {
        let (seq, last) = (event.seq, self.last);
        if seq <= last {
            return Ok(None);
        }
        if seq > last + 1 && !self.holes {
            let error = Error::broken(format!("the server sent event {seq} after {last}"));
            return self.fail(now_millis, error);
        }
        self.last = seq;
        self.outage.end();
        Ok(Some(Item::Event(event)))
    }

    /// Waits for another try, or gives up. Tells of the first failure of an outage only.
    fn fail(&mut self, now_millis: u64, error: Error) -> Result<Option<Item>, Error> {
        self.state = State::Over;
        if !error.passes() {
            return Err(error);
        }
        let first = !self.outage.is_on();
        let Some(pause) = self.outage.fail(&self.patience, now_millis, &error) else {
            return Err(given_up(error, &self.patience));
        };
        self.state = State::Pausing { until_millis: now_millis.saturating_add(pause) };
        Ok(first.then_some(Item::Broken(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        outage_millis_max: 1_000,
        pause_millis_min: 10,
        pause_millis_max: 10,
        silence_millis_max: 1_000,
    };

    fn event(seq: u64) -> Input {
        Input::Event(Box::new(v1::Event { seq, ..Default::default() }))
    }

    fn end(reason: Reason) -> Input {
        let reason = reason.into();
        Input::End(Box::new(v1::FollowEnd { reason, last: 2, status: None }))
    }

    /// A machine in this state, with event 2 behind it.
    fn in_state(state: State) -> Machine {
        Machine { state, ..Machine::new(2, false, PATIENCE, Chance::new(1)) }
    }

    fn word(state: State) -> &'static str {
        match state {
            State::Apart => "apart",
            State::Pausing { .. } => "pausing",
            State::Streaming => "streaming",
            State::Over => "over",
        }
    }

    fn said(answer: &Result<Option<Item>, Error>) -> String {
        match answer {
            Ok(None) => String::new(),
            Ok(Some(Item::Event(event))) => format!("event {}", event.seq),
            Ok(Some(Item::CaughtUp(last))) => format!("caught up {last}"),
            Ok(Some(Item::Broken(error))) => format!("broken {error}"),
            Ok(Some(Item::End(end))) => format!("end {:?}", end.reason()),
            Err(error) => format!("error {error}"),
        }
    }

    #[test]
    fn every_input_in_every_state_does_what_the_table_says() {
        let inputs = || {
            [
                ("due", Input::Due),
                ("opened", Input::Opened),
                ("old event", event(2)),
                ("next event", event(3)),
                ("later event", event(5)),
                ("caught up", Input::CaughtUp(2)),
                ("alive", Input::Alive(7)),
                ("end", end(Reason::Reached)),
                ("deleted", end(Reason::Deleted)),
                ("shutdown", end(Reason::Shutdown)),
                ("cut", Input::Failed(Error::broken("gone"))),
                ("refused", Input::Failed(Error::refused("AX1002", "no"))),
            ]
        };
        let expected = [
            ("apart", "opened", "streaming", ""),
            ("apart", "cut", "pausing", "broken gone"),
            ("apart", "refused", "over", "error no"),
            ("pausing", "due", "apart", ""),
            ("streaming", "old event", "streaming", ""),
            ("streaming", "next event", "streaming", "event 3"),
            ("streaming", "later event", "pausing", "broken the server sent event 5 after 2"),
            ("streaming", "caught up", "streaming", "caught up 2"),
            ("streaming", "end", "over", "end Reached"),
            ("streaming", "deleted", "over", "end Deleted"),
            ("streaming", "shutdown", "pausing", "broken the server is stopping"),
            ("streaming", "cut", "pausing", "broken gone"),
            ("streaming", "refused", "over", "error no"),
        ];
        for state in
            [State::Apart, State::Pausing { until_millis: 9 }, State::Streaming, State::Over]
        {
            for (name, input) in inputs() {
                let mut machine = in_state(state);
                let answer = said(&machine.handle(100, input));
                let row = expected.iter().find(|row| (row.0, row.1) == (word(state), name));
                // What the table does not name changes nothing.
                let (then, say) = row.map_or_else(|| (word(state), ""), |row| (row.2, row.3));
                assert_eq!((word(machine.state), answer.as_str()), (then, say), "{state:?} {name}");
                assert_eq!(machine.last, if say == "event 3" { 3 } else { 2 }, "{state:?} {name}");
            }
        }
    }

    #[test]
    fn each_state_wants_one_thing() {
        assert_eq!(in_state(State::Apart).want(), Want::Open { after: 2 });
        let pausing = in_state(State::Pausing { until_millis: 9 });
        assert_eq!(pausing.want(), Want::Wait { until_millis: 9 });
        assert_eq!(in_state(State::Streaming).want(), Want::Read);
        assert_eq!(in_state(State::Over).want(), Want::Nothing);
    }

    #[test]
    fn it_resumes_after_the_last_event_that_was_handed_out() {
        let mut machine = in_state(State::Streaming);
        machine.handle(0, event(3)).unwrap();
        machine.handle(0, Input::Failed(Error::broken("gone"))).unwrap();
        machine.handle(10, Input::Due).unwrap();
        assert_eq!(machine.want(), Want::Open { after: 3 });
        machine.handle(10, Input::Opened).unwrap();
        // A server that sends it once more sends it in vain.
        assert_eq!(machine.handle(10, event(3)).unwrap(), None);
        assert!(machine.handle(10, event(4)).unwrap().is_some());
    }

    #[test]
    fn an_outage_is_told_of_once_and_ends_with_what_comes() {
        let mut machine = in_state(State::Apart);
        let gone = || Input::Failed(Error::broken("gone"));
        assert!(machine.handle(0, gone()).unwrap().is_some());
        machine.handle(10, Input::Due).unwrap();
        assert_eq!(machine.handle(10, gone()).unwrap(), None);
        machine.handle(20, Input::Due).unwrap();
        machine.handle(20, Input::Opened).unwrap();
        machine.handle(20, event(3)).unwrap();
        assert!(machine.handle(30, gone()).unwrap().is_some(), "that is another outage");
    }

    #[test]
    fn an_outage_that_lasts_too_long_is_given_up() {
        let mut machine = in_state(State::Apart);
        machine.handle(0, Input::Failed(Error::broken("gone"))).unwrap();
        machine.handle(10, Input::Due).unwrap();
        let error = machine.handle(1_000, Input::Failed(Error::broken("gone"))).unwrap_err();
        assert!(error.message.contains("for 1 s"), "{error}");
        assert_eq!(machine.want(), Want::Nothing);
    }

    #[test]
    fn a_limit_that_passes_is_waited_for_as_long_as_the_server_says() {
        let mut machine = in_state(State::Apart);
        let limit = Error {
            retryable: true,
            retry_after_millis: Some(300),
            ..Error::refused("AX4004", "too many requests")
        };
        machine.handle(100, Input::Failed(limit)).unwrap();
        assert_eq!(machine.want(), Want::Wait { until_millis: 400 });
    }

    #[test]
    fn without_deltas_there_are_holes() {
        let mut machine = in_state(State::Streaming);
        machine.holes = true;
        assert!(machine.handle(0, event(7)).unwrap().is_some());
        assert_eq!(machine.handle(0, event(7)).unwrap(), None);
        // What was left out need not be looked at again.
        assert_eq!(machine.handle(0, Input::Alive(9)).unwrap(), None);
        machine.handle(0, Input::Failed(Error::broken("gone"))).unwrap();
        machine.handle(10, Input::Due).unwrap();
        assert_eq!(machine.want(), Want::Open { after: 9 });
    }
}
