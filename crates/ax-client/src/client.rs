//! The requests.

use crate::address::Address;
use crate::connect::{self, Connect, Credentials};
use crate::error::Error;
use crate::follow::Follow;
use crate::outage::Patience;
use crate::retry::{Again, until_answered};
use ax_proto::v1;
use ax_proto::v1::agents_client::AgentsClient;
use ax_proto::v1::server_client::ServerClient;
use ax_proto::v1::sessions_client::SessionsClient;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

/// The largest answer that is taken, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A client of one server and one namespace. Cloning it is cheap and shares the connection.
#[derive(Clone)]
pub struct Client {
    connect: Connect,
    channel: Channel,
    namespace: Arc<str>,
    patience: Patience,
    /// The header that says who asks.
    authorization: Option<MetadataValue<Ascii>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("namespace", &self.namespace)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

macro_rules! unary {
    ($(
        $(#[$doc:meta])*
        $again:ident $client:ident . $name:ident ($request:ident) -> $response:ident;
    )*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            ///
            /// Returns what the server refused, or that none answered.
            pub async fn $name(
                &self,
                request: v1::$request,
            ) -> Result<v1::$response, Error> {
                let request = unary!(@named self, $client, request);
                until_answered(self.patience, Again::$again, || {
                    let mut client = unary!(@client self, $client);
                    let request = self.ask(request.clone());
                    async move { Ok(client.$name(request).await?.into_inner()) }
                })
                .await
            }
        )*
    };
    (@named $self:ident, server, $request:ident) => { $request };
    (@named $self:ident, plain, $request:ident) => { $request };
    (@named $self:ident, $client:ident, $request:ident) => {{
        let mut request = $request;
        $self.name_space(&mut request.namespace);
        request
    }};
    (@client $self:ident, plain) => { $self.agents() };
    (@client $self:ident, $client:ident) => { $self.$client() };
}

impl Client {
    /// Speaks to the server at this socket. Connects when it is first used.
    pub fn unix(socket: impl Into<PathBuf>, namespace: &str) -> Self {
        Self::with_connect(connect::unix(socket.into()), namespace)
    }

    /// Speaks to the server at this address, and shows it these credentials. Connects when it is
    /// first used.
    ///
    /// # Errors
    ///
    /// Returns an error if the credentials cannot be read or make no sense.
    pub fn at(
        address: &Address,
        credentials: &Credentials,
        namespace: &str,
    ) -> Result<Self, Error> {
        Self::with_connect(connect::connect(address, credentials)?, namespace)
            .with_token(&credentials.token)
    }

    /// Speaks over connections that `connect` opens.
    pub fn with_connect(connect: Connect, namespace: &str) -> Self {
        let patience = Patience::default();
        let channel = connect::channel(Arc::clone(&connect), &patience);
        Self { connect, channel, namespace: namespace.into(), patience, authorization: None }
    }

    /// Shows the server a token with every request; none if it is empty.
    ///
    /// # Errors
    ///
    /// Returns an error if it cannot be sent: it may only consist of visible ASCII.
    pub fn with_token(mut self, token: &str) -> Result<Self, Error> {
        self.authorization = match token {
            "" => None,
            token => {
                let value = format!("Bearer {token}").parse::<MetadataValue<Ascii>>();
                // The token is not repeated: errors are shown and written down.
                let mut value = value.map_err(|_| Error::invalid("the token is malformed"))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(self)
    }

    /// Says how long a server that does not answer is waited for. Connects anew.
    #[must_use]
    pub fn patient(self, patience: Patience) -> Self {
        let channel = connect::channel(Arc::clone(&self.connect), &patience);
        Self { channel, patience, ..self }
    }

    /// Records an input, and sends it again if the connection breaks before the answer.
    ///
    /// So that it is recorded once, it is given a key if it has none, and the id of its new session
    /// if it names none either.
    ///
    /// # Errors
    ///
    /// Returns what the server refused, or that none answered for too long.
    pub async fn submit(
        &self,
        mut request: v1::SubmitRequest,
    ) -> Result<v1::SubmitResponse, Error> {
        self.name_space(&mut request.namespace);
        if request.key.is_empty() {
            request.key = format!("sent-{}", hex(&random()?));
            if request.session.is_empty() {
                request.session = new_session()?;
            }
        }
        until_answered(self.patience, Again::Unanswered, || {
            let (mut sessions, request) = (self.sessions(), self.ask(request.clone()));
            async move { Ok(sessions.submit(request).await?.into_inner()) }
        })
        .await
    }

    /// Sends a signal, and sends it again if the connection breaks before the answer.
    ///
    /// # Errors
    ///
    /// As [`Client::submit`].
    pub async fn signal(
        &self,
        mut request: v1::SignalRequest,
    ) -> Result<v1::SignalResponse, Error> {
        self.name_space(&mut request.namespace);
        if request.key.is_empty() {
            request.key = format!("sent-{}", hex(&random()?));
        }
        until_answered(self.patience, Again::Unanswered, || {
            let (mut sessions, request) = (self.sessions(), self.ask(request.clone()));
            async move { Ok(sessions.signal(request).await?.into_inner()) }
        })
        .await
    }

    /// Keeps something for a framework, and sends it again if the connection breaks before the
    /// answer.
    ///
    /// # Errors
    ///
    /// As [`Client::submit`].
    pub async fn record(
        &self,
        mut request: v1::RecordRequest,
    ) -> Result<v1::RecordResponse, Error> {
        self.name_space(&mut request.namespace);
        if request.key.is_empty() {
            request.key = format!("sent-{}", hex(&random()?));
        }
        until_answered(self.patience, Again::Unanswered, || {
            let (mut sessions, request) = (self.sessions(), self.ask(request.clone()));
            async move { Ok(sessions.record(request).await?.into_inner()) }
        })
        .await
    }

    /// Answers a question, and sends it again if the connection breaks before the answer.
    ///
    /// So that it meets no other question then, one that names none is given the one that is open.
    ///
    /// # Errors
    ///
    /// As [`Client::submit`].
    pub async fn answer(
        &self,
        mut request: v1::AnswerRequest,
    ) -> Result<v1::AnswerResponse, Error> {
        self.name_space(&mut request.namespace);
        if request.ask == 0 {
            let (namespace, session) = (request.namespace.clone(), request.session.clone());
            let found = self.get_session(v1::GetSessionRequest { namespace, session }).await?;
            let asks = found.session.and_then(|session| session.status).unwrap_or_default().asks;
            // Of none and of several the server says what is wrong.
            if let [only] = &asks[..] {
                request.ask = only.ask;
            }
        }
        let again = if request.ask == 0 { Again::Refused } else { Again::Unanswered };
        until_answered(self.patience, again, || {
            let (mut sessions, request) = (self.sessions(), self.ask(request.clone()));
            async move { Ok(sessions.answer(request).await?.into_inner()) }
        })
        .await
    }

    /// Follows a session. Nothing is sent before [`Follow::next`] is called.
    pub fn follow(&self, mut request: v1::FollowRequest) -> Follow {
        self.name_space(&mut request.namespace);
        Follow::new(self.clone(), self.patience, request)
    }

    unary! {
        /// Reads a page of events.
        Unanswered sessions.list_events(ListEventsRequest) -> ListEventsResponse;
        /// Reads records of a collection.
        Unanswered sessions.list_records(ListRecordsRequest) -> ListRecordsResponse;
        /// Returns what a session is doing.
        Unanswered sessions.get_session(GetSessionRequest) -> GetSessionResponse;
        /// Lists a page of sessions.
        Unanswered sessions.list_sessions(ListSessionsRequest) -> ListSessionsResponse;
        /// Deletes a session.
        Refused sessions.delete_session(DeleteSessionRequest) -> DeleteSessionResponse;
        /// Gives a session another title.
        Unanswered sessions.rename_session(RenameSessionRequest) -> RenameSessionResponse;
        /// Stops an execution.
        Refused sessions.cancel(CancelRequest) -> CancelResponse;
        /// Names a position.
        Refused sessions.checkpoint(CheckpointRequest) -> CheckpointResponse;
        /// Makes branches.
        Refused sessions.branch(BranchRequest) -> BranchResponse;
        /// Stores a manifest. The same manifest again is stored once.
        Unanswered agents.apply_agent(ApplyAgentRequest) -> ApplyAgentResponse;
        /// Returns an agent.
        Unanswered agents.get_agent(GetAgentRequest) -> GetAgentResponse;
        /// Lists the newest version of every agent.
        Unanswered agents.list_agents(ListAgentsRequest) -> ListAgentsResponse;
        /// Deletes an agent.
        Refused agents.delete_agent(DeleteAgentRequest) -> DeleteAgentResponse;
        /// Says what is wrong with a manifest.
        Unanswered plain.validate_agent(ValidateAgentRequest) -> ValidateAgentResponse;
        /// Returns what the server is and does.
        Never server.get_info(GetInfoRequest) -> GetInfoResponse;
        /// Asks the server to stop.
        Never server.shutdown(ShutdownRequest) -> ShutdownResponse;
    }

    pub(crate) fn sessions(&self) -> SessionsClient<Channel> {
        SessionsClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Makes a request that says who asks.
    pub(crate) fn ask<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    fn agents(&self) -> AgentsClient<Channel> {
        AgentsClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    fn server(&self) -> ServerClient<Channel> {
        ServerClient::new(self.channel.clone())
    }

    /// Fills in the namespace unless the request names one.
    fn name_space(&self, field: &mut String) {
        if field.is_empty() {
            field.push_str(&self.namespace);
        }
    }
}

fn random() -> Result<[u8; 16], Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::refused("AX9001", format!("no random number: {error}")))?;
    Ok(bytes)
}

/// Makes up the id of a session: milliseconds since the Unix epoch in the first 48 bits, so that
/// ids sort by age, then random.
fn new_session() -> Result<String, Error> {
    let mut bytes = random()?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    Ok(format!("ses_{}", hex(&bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
