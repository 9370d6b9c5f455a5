//! Sending a request again until it is known what became of it.

use crate::error::{Error, STOPPING};
use crate::outage::{Chance, Outage, Patience, given_up};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// When a request is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// Whenever it was not answered: carrying it out twice does no harm.
    Unanswered,
    /// When it is certain that it was not carried out.
    Refused,
    /// Never.
    Never,
}

impl Again {
    fn allows(self, error: &Error) -> bool {
        match self {
            Self::Unanswered => error.passes(),
            // A limit refuses before anything is done.
            Self::Refused => error.code == STOPPING || !error.broken && error.passes(),
            Self::Never => false,
        }
    }
}

/// Carries `call` out until it is answered.
///
/// # Errors
///
/// Returns the refusal of the server, or that none answered for as long as `patience` lasts.
pub(crate) async fn until_answered<T, Answer>(
    patience: Patience,
    again: Again,
    mut call: impl FnMut() -> Answer + Send,
) -> Result<T, Error>
where
    Answer: Future<Output = Result<T, Error>> + Send,
{
    let began = Instant::now();
    let mut outage = Outage::none(Chance::fresh());
    loop {
        match call().await {
            Err(error) if again.allows(&error) => {
                match outage.fail(&patience, millis_since(began), &error) {
                    Some(pause) => sleep(Duration::from_millis(pause)).await,
                    None => return Err(given_up(error, &patience)),
                }
            }
            other => return other,
        }
    }
}

/// Milliseconds from `began` to now.
pub(crate) fn millis_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        outage_millis_max: 50,
        pause_millis_min: 1,
        pause_millis_max: 1,
        silence_millis_max: 1_000,
    };

    #[tokio::test]
    async fn a_broken_request_is_sent_again_and_a_refused_one_is_not() {
        let mut calls = 0;
        let answer = until_answered(PATIENCE, Again::Unanswered, || {
            calls += 1;
            std::future::ready(if calls < 3 { Err(Error::broken("gone")) } else { Ok(calls) })
        });
        assert_eq!(answer.await, Ok(3));
        let mut calls = 0;
        let answer = until_answered(PATIENCE, Again::Unanswered, || {
            calls += 1;
            std::future::ready(Err::<(), _>(Error::refused("AX1002", "no")))
        });
        assert_eq!(answer.await.map_err(|error| error.code), Err("AX1002".to_owned()));
        assert_eq!(calls, 1);
    }

    #[tokio::test]
    async fn what_must_not_be_sent_twice_is_sent_again_only_if_it_was_refused() {
        let mut calls = 0;
        let answer = until_answered(PATIENCE, Again::Refused, || {
            calls += 1;
            let code = if calls == 1 { STOPPING } else { "AX3001" };
            let error = Error { code: code.into(), ..Error::broken("gone") };
            std::future::ready(Err::<(), _>(error))
        });
        assert!(answer.await.is_err());
        assert_eq!(calls, 2);
    }

    #[tokio::test]
    async fn patience_ends() {
        let answer = until_answered(PATIENCE, Again::Unanswered, || {
            std::future::ready(Err::<(), _>(Error::broken("gone")))
        });
        let error = answer.await.unwrap_err();
        assert!(error.broken && error.message.contains("gone"), "{error:?}");
    }
}
