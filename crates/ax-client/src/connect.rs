//! How a server is reached, and reached again.

use crate::error::Error;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// Opens a connection; called again whenever the one before broke.
pub type Connect = Arc<dyn Fn() -> BoxFuture<'static, io::Result<UnixStream>> + Send + Sync>;

/// How long a server that does not answer is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// From when the connection broke until it is given up, in milliseconds.
    pub outage_millis_max: u64,
    /// The pause before the second try, in milliseconds; it doubles with every failure.
    pub pause_millis_min: u64,
    /// The longest pause, in milliseconds.
    pub pause_millis_max: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { outage_millis_max: 60_000, pause_millis_min: 20, pause_millis_max: 1_000 }
    }
}

/// Connects to the socket at `path`.
pub(crate) fn unix(path: PathBuf) -> Connect {
    Arc::new(move || {
        let path = path.clone();
        Box::pin(UnixStream::connect(path))
    })
}

/// Makes a channel that connects when it is first used, and again after it broke.
pub(crate) fn channel(connect: Connect) -> Channel {
    // The address is never resolved: the connector knows where to go.
    Endpoint::from_static("http://localhost")
        .http2_adaptive_window(true)
        .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let stream = connect();
            async move { stream.await.map(TokioIo::new) }
        }))
}

/// An outage: since when, and how often it was tried to end it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outage {
    failures: u32,
    /// Milliseconds, by the clock of the caller, of the first failure.
    since_millis: Option<u64>,
}

impl Outage {
    /// Whether there is one.
    pub(crate) const fn is_on(&self) -> bool {
        self.since_millis.is_some()
    }

    /// Says how long to wait before the next try, or that it has lasted too long.
    pub(crate) fn fail(&mut self, patience: &Patience, now_millis: u64) -> Option<Duration> {
        let since = *self.since_millis.get_or_insert(now_millis);
        if now_millis.saturating_sub(since) >= patience.outage_millis_max {
            return None;
        }
        let doubled = patience.pause_millis_min.checked_shl(self.failures.min(32));
        self.failures += 1;
        let pause = doubled.unwrap_or(u64::MAX).min(patience.pause_millis_max);
        Some(Duration::from_millis(pause))
    }

    /// Ends it.
    pub(crate) const fn end(&mut self) {
        *self = Self { failures: 0, since_millis: None };
    }
}

/// Adds to the error of an outage that was not waited for any longer.
pub(crate) fn given_up(error: Error, patience: &Patience) -> Error {
    let seconds = patience.outage_millis_max / 1000;
    let message = match seconds {
        0 => error.message,
        _ => format!("{}, and has not for {seconds} s", error.message),
    };
    Error { message, ..error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_double_up_to_the_longest_until_patience_ends() {
        let patience =
            Patience { outage_millis_max: 1_000, pause_millis_min: 10, pause_millis_max: 50 };
        let mut outage = Outage::default();
        let pauses: Vec<_> = [0, 10, 30, 70, 999, 1_000]
            .into_iter()
            .map(|now| outage.fail(&patience, now).map(|pause| pause.as_millis()))
            .collect();
        assert_eq!(pauses, [Some(10), Some(20), Some(40), Some(50), Some(50), None]);
        outage.end();
        assert!(!outage.is_on());
        assert_eq!(outage.fail(&patience, 5_000), Some(Duration::from_millis(10)));
    }

    #[test]
    fn many_failures_do_not_overflow() {
        let patience = Patience { outage_millis_max: u64::MAX, ..Patience::default() };
        let mut outage = Outage::default();
        for _ in 0..100 {
            let pause = outage.fail(&patience, 1).unwrap();
            assert!(pause <= Duration::from_millis(patience.pause_millis_max));
        }
    }
}
