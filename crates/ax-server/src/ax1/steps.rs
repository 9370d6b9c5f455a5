//! Positions of our log as the wire's steps, which have 31 bits.

use ax_core::id::Seq;
use ax_engine::{Code, Error};

/// Reads the last step that a client has seen.
pub(super) fn seq(step: i32) -> Result<Seq, Error> {
    match u64::try_from(step) {
        Ok(step) => Ok(Seq(step)),
        Err(_) => Err(Error::invalid(format!("{step} is not a step: steps are counted from 1"))),
    }
}

/// Writes a position.
pub(super) fn step(seq: Seq) -> Result<i32, Error> {
    i32::try_from(seq.0).map_err(|_| {
        let message = format!("position {seq} is beyond what this wire can count");
        Error::new(Code::OutOfRange, message)
            .with_hint("follow the session over agentexecutor.v1, or fork it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_counted_is_refused() {
        assert_eq!(seq(0).unwrap(), Seq::ZERO);
        assert_eq!(seq(-1).unwrap_err().code, Code::Invalid);
        assert_eq!(step(Seq(2_147_483_647)).unwrap(), i32::MAX);
        assert_eq!(step(Seq(2_147_483_648)).unwrap_err().code, Code::OutOfRange);
    }
}
