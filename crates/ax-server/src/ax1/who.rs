//! Who asks, and which session is meant.

pub(super) use crate::caller::Act;
use crate::caller::Asker;
use ax_core::id::Namespace;
use ax_core::session::Caller;
use ax_engine::{Code, Error, SessionRef};
use tonic::Request;

/// The header that names the namespace; that of the caller if it is missing.
const NAMESPACE: &str = "ax-namespace";

/// A request whose maker may make it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) caller: Caller,
    pub(super) namespace: Namespace,
    pub(super) session: SessionRef,
}

impl Asked {
    /// Finds out who makes a request about a conversation, and whether they may.
    pub(super) fn of<T>(request: &Request<T>, act: Act, conversation: &str) -> Result<Self, Error> {
        let asker = Asker::of(request.extensions(), request.metadata().as_ref())?;
        let named = request.metadata().get(NAMESPACE).map(|value| value.to_str()).transpose();
        let named = named.map_err(|_| Error::invalid("the header ax-namespace is not a text"))?;
        let (namespace, session) = asker.session(act, named.unwrap_or_default(), conversation)?;
        Ok(Self { caller: asker.caller(), namespace, session })
    }

    /// A conversation that is not there is called as the caller called it.
    pub(super) fn about(&self, error: Error) -> Error {
        if error.code == Code::NoSession && !self.session.name.is_empty() {
            let message = format!("there is no conversation {:?}", self.session.name);
            return Error { message, ..error };
        }
        error
    }
}
