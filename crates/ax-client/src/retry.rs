//! Sending a request again until it is known what became of it.

use crate::connect::{Outage, Patience, given_up};
use crate::error::Error;
use tokio::time::{Instant, sleep};

/// Carries `call` out until it is answered. Only for requests that may be carried out twice.
///
/// # Errors
///
/// Returns the refusal of the server, or that none answered for as long as `patience` lasts.
pub(crate) async fn until_answered<T, Answer>(
    patience: Patience,
    mut call: impl FnMut() -> Answer + Send,
) -> Result<T, Error>
where
    Answer: Future<Output = Result<T, Error>> + Send,
{
    let began = Instant::now();
    let mut outage = Outage::default();
    loop {
        match call().await {
            Err(error) if error.broken => match outage.fail(&patience, millis_since(began)) {
                Some(pause) => sleep(pause).await,
                None => return Err(given_up(error, &patience)),
            },
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

    const PATIENCE: Patience =
        Patience { outage_millis_max: 50, pause_millis_min: 1, pause_millis_max: 1 };

    #[tokio::test]
    async fn a_broken_request_is_sent_again_and_a_refused_one_is_not() {
        let mut calls = 0;
        let answer = until_answered(PATIENCE, || {
            calls += 1;
            std::future::ready(if calls < 3 { Err(Error::broken("gone")) } else { Ok(calls) })
        });
        assert_eq!(answer.await, Ok(3));
        let mut calls = 0;
        let answer = until_answered(PATIENCE, || {
            calls += 1;
            std::future::ready(Err::<(), _>(Error::refused("AX1002", "no")))
        });
        assert_eq!(answer.await.map_err(|error| error.code), Err("AX1002".to_owned()));
        assert_eq!(calls, 1);
    }

    #[tokio::test]
    async fn patience_ends() {
        let answer =
            until_answered(PATIENCE, async || -> Result<(), Error> { Err(Error::broken("gone")) });
        let error = answer.await.unwrap_err();
        assert!(error.broken && error.message.contains("gone"), "{error:?}");
    }
}
