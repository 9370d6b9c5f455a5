//! What a tool server says of its own accord: how far a call is, what it logs, and that what it
//! offers has changed.

#![expect(deprecated, reason = "logging, subscriptions: earlier versions have them")]

use rmcp::ClientHandler;
use rmcp::model::{
    ClientCapabilities, ClientConfig, Implementation, LoggingMessageNotificationParam,
    ProgressNotificationParam, ProgressToken, ResourceUpdatedNotificationParam,
};
use rmcp::service::{NotificationContext, RoleClient};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{Mutex, broadcast};

/// How much of what was said can wait for a listener; what is older is lost to it.
const SAID_AHEAD: usize = 64;

/// What a tool server says without being asked.
#[derive(Clone, Debug)]
pub(super) enum Said {
    /// It logs something.
    Log(LoggingMessageNotificationParam),
    /// The list of its tools is another.
    Tools,
    /// The list of its prompts is.
    Prompts,
    /// The list of its resources is.
    Resources,
    /// A resource is.
    Resource(ResourceUpdatedNotificationParam),
}

/// Who hears how far calls are, by the token of the call.
type Routes = Arc<Mutex<HashMap<ProgressToken, broadcast::Sender<ProgressNotificationParam>>>>;

/// Listens to a tool server. Nothing that it asks for is granted: what it wants from a person or a
/// model is no part of a call that can be made again.
#[derive(Clone, Debug)]
pub(super) struct Listener {
    pub(super) said: broadcast::Sender<Said>,
    routes: Routes,
}

/// Tells how far one call is, as long as it is there.
#[derive(Debug)]
pub(super) struct Route {
    routes: Routes,
    token: ProgressToken,
}

impl Listener {
    pub(super) fn new() -> Self {
        Self { said: broadcast::Sender::new(SAID_AHEAD), routes: Routes::default() }
    }

    /// Asks something, and tells how far it is. Nothing that is said is missed: it is looked up
    /// only after the token is known.
    pub(super) async fn route<T, E>(
        &self,
        progress: broadcast::Sender<ProgressNotificationParam>,
        ask: impl Future<Output = Result<(ProgressToken, T), E>>,
    ) -> Result<(Route, T), E> {
        let mut routes = self.routes.lock().await;
        let (token, asked) = ask.await?;
        routes.insert(token.clone(), progress);
        Ok((Route { routes: Arc::clone(&self.routes), token }, asked))
    }

    fn say(&self, said: Said) {
        // It may be that nobody listens.
        let _nobody = self.said.send(said);
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        let (routes, token) = (Arc::clone(&self.routes), self.token.clone());
        drop(tokio::spawn(async move { routes.lock().await.remove(&token) }));
    }
}

/// Returns channels for what is told of one call.
pub(super) fn progress() -> broadcast::Sender<ProgressNotificationParam> {
    broadcast::Sender::new(SAID_AHEAD)
}

impl ClientHandler for Listener {
    fn get_info(&self) -> ClientConfig {
        let this = Implementation::new("agent-executor", env!("CARGO_PKG_VERSION"));
        ClientConfig::new(ClientCapabilities::default(), this)
    }

    async fn on_progress(
        &self,
        params: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        if let Some(progress) = self.routes.lock().await.get(&params.progress_token) {
            let _nobody = progress.send(params);
        }
    }

    async fn on_logging_message(
        &self,
        params: LoggingMessageNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.say(Said::Log(params));
    }

    async fn on_resource_updated(
        &self,
        params: ResourceUpdatedNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.say(Said::Resource(params));
    }

    async fn on_resource_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.say(Said::Resources);
    }

    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.say(Said::Tools);
    }

    async fn on_prompt_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.say(Said::Prompts);
    }
}
