//! The `Sessions` service.

use super::{Answered, Streamed, asker, call, rest, streamed};
use crate::api::{Api, chunks};
use crate::status::{of_wire, status};
use ax_proto::v1;
use ax_proto::v1::sessions_server::Sessions as Service;
use futures::{StreamExt as _, stream};
use tonic::{Request, Response, Streaming};

/// Submits, follows, answers, signals, cancels, branches.
#[derive(Debug)]
pub(crate) struct Sessions {
    pub(crate) api: Api,
}

#[tonic::async_trait]
impl Service for Sessions {
    type SubmitStreamStream = Streamed<v1::SubmitStreamResponse>;
    type FollowStream = Streamed<v1::FollowResponse>;
    type ExportStream = Streamed<v1::ExportResponse>;
    type ReadBlobStream = Streamed<v1::ReadBlobResponse>;

    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Answered<v1::SubmitResponse> {
        call(&self.api, request, Api::submit).await
    }

    async fn submit_stream(
        &self,
        request: Request<Streaming<v1::SubmitStreamRequest>>,
    ) -> Answered<Self::SubmitStreamStream> {
        let asker = asker(&request)?;
        let answers = self.api.clone().submit_stream(asker, request.into_inner());
        let answers = answers.map(|answer| answer.map_err(|refused| of_wire(&refused)));
        Ok(Response::new(answers.boxed()))
    }

    async fn follow(&self, request: Request<v1::FollowRequest>) -> Answered<Self::FollowStream> {
        let asker = asker(&request)?;
        let items = self.api.clone().follow(asker, request.into_inner()).await;
        let items = items.map_err(status)?;
        Ok(streamed(items, |item| v1::FollowResponse { item: Some(item) }))
    }

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Answered<v1::ListEventsResponse> {
        call(&self.api, request, Api::list_events).await
    }

    async fn get_session(
        &self,
        request: Request<v1::GetSessionRequest>,
    ) -> Answered<v1::GetSessionResponse> {
        call(&self.api, request, Api::get_session).await
    }

    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Answered<v1::ListSessionsResponse> {
        call(&self.api, request, Api::list_sessions).await
    }

    async fn delete_session(
        &self,
        request: Request<v1::DeleteSessionRequest>,
    ) -> Answered<v1::DeleteSessionResponse> {
        call(&self.api, request, Api::delete_session).await
    }

    async fn rename_session(
        &self,
        request: Request<v1::RenameSessionRequest>,
    ) -> Answered<v1::RenameSessionResponse> {
        call(&self.api, request, Api::rename_session).await
    }

    async fn answer(&self, request: Request<v1::AnswerRequest>) -> Answered<v1::AnswerResponse> {
        call(&self.api, request, Api::answer).await
    }

    async fn signal(&self, request: Request<v1::SignalRequest>) -> Answered<v1::SignalResponse> {
        call(&self.api, request, Api::signal).await
    }

    async fn cancel(&self, request: Request<v1::CancelRequest>) -> Answered<v1::CancelResponse> {
        call(&self.api, request, Api::cancel).await
    }

    async fn checkpoint(
        &self,
        request: Request<v1::CheckpointRequest>,
    ) -> Answered<v1::CheckpointResponse> {
        call(&self.api, request, Api::checkpoint).await
    }

    async fn branch(&self, request: Request<v1::BranchRequest>) -> Answered<v1::BranchResponse> {
        call(&self.api, request, Api::branch).await
    }

    async fn record(&self, request: Request<v1::RecordRequest>) -> Answered<v1::RecordResponse> {
        call(&self.api, request, Api::record).await
    }

    async fn list_records(
        &self,
        request: Request<v1::ListRecordsRequest>,
    ) -> Answered<v1::ListRecordsResponse> {
        call(&self.api, request, Api::list_records).await
    }

    async fn get_usage(
        &self,
        request: Request<v1::GetUsageRequest>,
    ) -> Answered<v1::GetUsageResponse> {
        call(&self.api, request, Api::get_usage).await
    }

    async fn export(&self, request: Request<v1::ExportRequest>) -> Answered<Self::ExportStream> {
        let asker = asker(&request)?;
        let archive = self.api.clone().export(asker, request.into_inner()).await;
        let archive = chunks(archive.map_err(status)?);
        Ok(streamed(archive, |chunk| v1::ExportResponse { chunk }))
    }

    async fn import(
        &self,
        request: Request<Streaming<v1::ImportRequest>>,
    ) -> Answered<v1::ImportResponse> {
        let asker = asker(&request)?;
        let mut requests = request.into_inner();
        let first = requests.message().await?.unwrap_or_default();
        let rest = rest(requests, |request: v1::ImportRequest| request.chunk);
        let archive = stream::iter([Ok(first.chunk.into())]).chain(rest).boxed();
        let imported = self.api.clone().import(asker, &first.namespace, first.name, archive).await;
        imported.map(Response::new).map_err(status)
    }

    async fn read_blob(
        &self,
        request: Request<v1::ReadBlobRequest>,
    ) -> Answered<Self::ReadBlobStream> {
        let asker = asker(&request)?;
        let read = self.api.clone().read_blob(asker, request.into_inner()).await;
        let (content, _bytes) = read.map_err(status)?;
        Ok(streamed(content, |chunk| v1::ReadBlobResponse { chunk: chunk.into() }))
    }

    async fn write_blob(
        &self,
        request: Request<Streaming<v1::WriteBlobRequest>>,
    ) -> Answered<v1::WriteBlobResponse> {
        let asker = asker(&request)?;
        let mut requests = request.into_inner();
        let first = requests.message().await?.unwrap_or_default();
        let rest = rest(requests, |request: v1::WriteBlobRequest| request.chunk);
        let content = stream::iter([Ok(first.chunk.into())]).chain(rest).boxed();
        let stored = self.api.clone().write_blob(asker, &first.namespace, content).await;
        stored.map(Response::new).map_err(status)
    }
}
