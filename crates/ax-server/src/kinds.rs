//! Names of kinds of events, and filters by them.

use ax_engine::Error;
use ax_proto::v1;
use ax_proto::v1::event::Kind;
use std::collections::BTreeSet;

/// The name of events of a kind that this version does not know.
const UNKNOWN: &str = "unknown";
/// The most names in a filter.
const NAMES_MAX: usize = 64;

macro_rules! kinds {
    ($($variant:ident $name:literal)*) => {
        /// Every name.
        pub(crate) const NAMES: &[&str] = &[$($name,)*];

        /// The name of an event's kind, such as `output.message`.
        pub(crate) const fn name(event: &v1::Event) -> &'static str {
            match event.kind {
                $(Some(Kind::$variant(_)) => $name,)*
                None => UNKNOWN,
            }
        }
    };
}

kinds! {
    SessionCreated "session.created"
    SessionBranched "session.branched"
    SessionRenamed "session.renamed"
    SessionDeleted "session.deleted"
    InputReceived "input.received"
    InputCanceled "input.canceled"
    ExecutionStarted "execution.started"
    ExecutionCompleted "execution.completed"
    ExecutionFailed "execution.failed"
    ExecutionCanceled "execution.canceled"
    ExecutionTimedOut "execution.timed_out"
    AttemptStarted "attempt.started"
    AttemptLost "attempt.lost"
    OutputDelta "output.delta"
    OutputMessage "output.message"
    StepStarted "step.started"
    StepCompleted "step.completed"
    StepFailed "step.failed"
    StepUnknown "step.unknown"
    StepDiverged "step.diverged"
    AskRaised "ask.raised"
    AskAnswered "ask.answered"
    AskExpired "ask.expired"
    TimerSet "timer.set"
    TimerFired "timer.fired"
    TimerCanceled "timer.canceled"
    SignalReceived "signal.received"
    SignalAwaited "signal.awaited"
    SignalDelivered "signal.delivered"
    CheckpointCreated "checkpoint.created"
    ActorSuspended "actor.suspended"
    BudgetExceeded "budget.exceeded"
    Note "note"
    RecordWritten "record.written"
    WorkspaceSaved "workspace.saved"
    WorkspaceUnsaved "workspace.unsaved"
}

/// Which kinds of events somebody wants; all of them if it names none.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    wanted: BTreeSet<&'static str>,
}

impl Kinds {
    /// Reads names and groups of names, such as `execution`.
    ///
    /// # Errors
    ///
    /// Says which name is none.
    pub fn parse(given: &[String]) -> Result<Self, Error> {
        if given.len() > NAMES_MAX {
            return Err(Error::invalid(format!("a filter has at most {NAMES_MAX} kinds")));
        }
        let mut wanted = BTreeSet::new();
        for given in given {
            let of_group =
                |name: &str| name.split_once('.').is_some_and(|(group, _)| group == given);
            let named: Vec<&str> =
                NAMES.iter().copied().filter(|name| name == given || of_group(name)).collect();
            if named.is_empty() {
                let given: String = given.chars().take(80).collect();
                return Err(Error::invalid(format!("{given:?} is not a kind of event"))
                    .with_hint("name kinds such as output.message, or groups such as execution"));
            }
            wanted.extend(named);
        }
        Ok(Self { wanted })
    }

    /// Whether an event is wanted.
    pub fn has(&self, event: &v1::Event) -> bool {
        self.wanted.is_empty() || self.wanted.contains(name(event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note() -> v1::Event {
        v1::Event { kind: Some(Kind::Note(v1::Note::default())), ..Default::default() }
    }

    #[test]
    fn a_filter_takes_names_and_groups() {
        let parse = |names: &[&str]| {
            Kinds::parse(&names.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert!(parse(&[]).unwrap().has(&note()));
        assert!(parse(&["note"]).unwrap().has(&note()));
        assert!(!parse(&["execution", "output.delta"]).unwrap().has(&note()));
        assert_eq!(parse(&["execution"]).unwrap().wanted.len(), 5);
        assert!(parse(&["nonsense"]).unwrap_err().message.contains("nonsense"));
        assert!(parse(&["session.created", "ex"]).is_err());
    }
}
