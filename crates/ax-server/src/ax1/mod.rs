//! The AX wire, generation 1: its clients work with our sessions as they are.
//!
//! A conversation is a session of that name, a step is a seq, a harness is an agent. Three names
//! of one method run an agent and follow it; what a client that names the last step it has seen
//! gets is every later output once, then what comes. Described in `docs/formats/ax1.md`.

mod exec;
mod files;
mod fork;
mod inputs;
mod outputs;
mod steps;
mod who;

use crate::REQUEST_BYTES_MAX;
use crate::router::grpc;
use crate::status::status;
use ax_engine::Engine;
use ax_proto::ax1;
use axum::Router;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use prost::Message as _;
use tonic::{Request, Response, Status};

type Answered<T> = Result<Response<T>, Status>;
type Streamed<T> = BoxStream<'static, Result<T, Status>>;

/// Under which name clients ask for its health.
pub(crate) const HEALTH_NAME: &str = "AX";

/// Mounts all its services.
pub(crate) fn routes(router: Router, engine: &Engine) -> Router {
    use ax1::controller_service_server::ControllerServiceServer;
    use ax1::conversation_service_server::ConversationServiceServer;
    use ax1::event_log_service_server::EventLogServiceServer;
    use ax1::execution_service_server::ExecutionServiceServer;
    use ax1::file_service_server::FileServiceServer;
    use ax1::interactions_service_server::InteractionsServiceServer;
    let ax1 = Ax1 { engine: engine.clone() };
    let execution = ExecutionServiceServer::new(ax1.clone());
    let router = grpc(router, execution.max_decoding_message_size(REQUEST_BYTES_MAX));
    let controller = ControllerServiceServer::new(ax1.clone());
    let router = grpc(router, controller.max_decoding_message_size(REQUEST_BYTES_MAX));
    let interactions = InteractionsServiceServer::new(ax1.clone());
    let router = grpc(router, interactions.max_decoding_message_size(REQUEST_BYTES_MAX));
    let router = grpc(router, ConversationServiceServer::new(ax1.clone()));
    let router = grpc(router, EventLogServiceServer::new(ax1.clone()));
    grpc(router, FileServiceServer::new(ax1))
}

/// Reads a request as each of the kinds that it may be, and says the same again under one key; for
/// `ax-fuzz`.
pub(crate) fn decodes(bytes: &[u8]) -> Result<(), String> {
    let exec = ax1::ExecRequest::decode(bytes).map_err(|error| error.to_string());
    let exec = exec.and_then(|request| {
        let seen = steps::seq(request.last_step).map_err(|error| error.message)?;
        let key = inputs::key(seen, 1, &request.inputs);
        assert_eq!(key, inputs::key(seen, 1, &request.inputs), "the same has one key");
        inputs::read(request.inputs).map(drop).map_err(|error| error.message)
    });
    let file = ax1::ReadFileRequest::decode(bytes).map_err(|error| error.to_string());
    let file = file.and_then(|file| files::check(&file.path).map_err(|error| error.message));
    let fork = ax1::ForkConversationRequest::decode(bytes).map_err(|error| error.to_string());
    let fork = fork.and_then(|fork| {
        let _place = fork::checkpoint(&fork.src_conversation_id);
        steps::seq(fork.src_seq).map(drop).map_err(|error| error.message)
    });
    exec.or(file).or(fork)
}

/// All its services.
#[derive(Clone, Debug)]
struct Ax1 {
    engine: Engine,
}

#[tonic::async_trait]
impl ax1::execution_service_server::ExecutionService for Ax1 {
    type ExecStream = Streamed<ax1::ExecResponse>;

    async fn exec(&self, request: Request<ax1::ExecRequest>) -> Answered<Self::ExecStream> {
        exec::exec(&self.engine, request).await.map(Response::new)
    }
}

#[tonic::async_trait]
impl ax1::controller_service_server::ControllerService for Ax1 {
    type ExecStream = Streamed<ax1::ExecResponse>;

    async fn exec(&self, request: Request<ax1::ExecRequest>) -> Answered<Self::ExecStream> {
        exec::exec(&self.engine, request).await.map(Response::new)
    }
}

#[tonic::async_trait]
impl ax1::interactions_service_server::InteractionsService for Ax1 {
    type CreateInteractionStream = Streamed<ax1::CreateInteractionResponse>;

    async fn create_interaction(
        &self,
        request: Request<ax1::CreateInteractionRequest>,
    ) -> Answered<Self::CreateInteractionStream> {
        let (metadata, extensions, request) = request.into_parts();
        let ax1::CreateInteractionRequest {
            conversation_id,
            inputs,
            last_step,
            harness_id,
            harness_config,
        } = request;
        let request =
            ax1::ExecRequest { conversation_id, inputs, last_step, harness_id, harness_config };
        let request = Request::from_parts(metadata, extensions, request);
        let responses = exec::exec(&self.engine, request).await?;
        let responses = responses.map(|response| {
            let ax1::ExecResponse { outputs, step } = response?;
            Ok(ax1::CreateInteractionResponse { outputs, step })
        });
        Ok(Response::new(responses.boxed()))
    }
}

#[tonic::async_trait]
impl ax1::conversation_service_server::ConversationService for Ax1 {
    async fn delete_conversation(
        &self,
        request: Request<ax1::DeleteConversationRequest>,
    ) -> Answered<ax1::DeleteConversationResponse> {
        fork::delete(&self.engine, request).await.map_err(status)
    }

    async fn fork_conversation(
        &self,
        request: Request<ax1::ForkConversationRequest>,
    ) -> Answered<ax1::ForkConversationResponse> {
        fork::fork(&self.engine, request).await.map_err(status)
    }
}

#[tonic::async_trait]
impl ax1::event_log_service_server::EventLogService for Ax1 {
    async fn delete(
        &self,
        request: Request<ax1::DeleteConversationRequest>,
    ) -> Answered<ax1::DeleteConversationResponse> {
        fork::delete(&self.engine, request).await.map_err(status)
    }

    async fn delete_conversation(
        &self,
        request: Request<ax1::DeleteConversationRequest>,
    ) -> Answered<ax1::DeleteConversationResponse> {
        fork::delete(&self.engine, request).await.map_err(status)
    }

    async fn fork(
        &self,
        request: Request<ax1::ForkConversationRequest>,
    ) -> Answered<ax1::ForkConversationResponse> {
        fork::fork(&self.engine, request).await.map_err(status)
    }

    async fn fork_conversation(
        &self,
        request: Request<ax1::ForkConversationRequest>,
    ) -> Answered<ax1::ForkConversationResponse> {
        fork::fork(&self.engine, request).await.map_err(status)
    }
}

#[tonic::async_trait]
impl ax1::file_service_server::FileService for Ax1 {
    async fn read_file(
        &self,
        request: Request<ax1::ReadFileRequest>,
    ) -> Answered<ax1::ReadFileResponse> {
        files::read(&self.engine, request).await.map_err(status)
    }
}
