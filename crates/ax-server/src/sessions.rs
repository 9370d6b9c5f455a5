//! The `Sessions` service.

use crate::caller::caller;
use crate::convert::{
    answer, cursor, event, key, namespace, part, policy, seq, session, states, wire_session,
    wire_status,
};
use crate::status::status;
use crate::{PAGE_BYTES_MAX, PAGE_EVENTS_MAX, PAGE_SESSIONS_MAX, transfer};
use ax_core::id::{AskId, ExecId, Seq};
use ax_engine::{
    BranchPlan, Code, Engine, Error, FollowItem, FollowOptions, ListSessions, SessionRef,
    Submission, Until,
};
use ax_proto::v1;
use ax_proto::v1::follow_end::Reason;
use ax_proto::v1::follow_response::Item;
use ax_proto::v1::sessions_server::Sessions as Service;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

type Answered<T> = Result<Response<T>, Status>;
type Streamed<T> = BoxStream<'static, Result<T, Status>>;

/// Submits, follows, answers, signals, cancels, branches.
#[derive(Debug)]
pub(crate) struct Sessions {
    pub(crate) engine: Engine,
}

#[tonic::async_trait]
impl Service for Sessions {
    type FollowStream = Streamed<v1::FollowResponse>;
    type ExportStream = Streamed<v1::ExportResponse>;
    type ReadBlobStream = Streamed<v1::ReadBlobResponse>;

    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Answered<v1::SubmitResponse> {
        let caller = caller(&request).map_err(status)?;
        let request = request.into_inner();
        let (namespace, session) = if !request.session.is_empty() {
            let (namespace, session) = session(&request.namespace, &request.session)?;
            (namespace, Some(session))
        } else {
            (namespace(&request.namespace)?, None)
        };
        let parts = request.parts.into_iter().enumerate();
        let named = session.clone();
        let submission = Submission {
            session,
            agent: (!request.agent.is_empty()).then_some(request.agent),
            key: key(request.key)?,
            parts: parts.map(|(index, given)| part(index, given)).collect::<Result<_, _>>()?,
            policy: policy(request.policy)?,
            title: (!request.title.is_empty()).then_some(request.title),
        };
        let done = self.engine.submit(caller, &namespace, submission).await;
        let done = done.map_err(|error| match &named {
            Some(session) => about(session)(error),
            None => status(error),
        })?;
        Ok(Response::new(v1::SubmitResponse {
            session: done.session.to_string(),
            seq: done.seq.0,
            duplicate: done.duplicate,
            created: done.created,
            branched: done.branched,
        }))
    }

    async fn follow(&self, request: Request<v1::FollowRequest>) -> Answered<Self::FollowStream> {
        let request = request.into_inner();
        let (namespace, session) = session(&request.namespace, &request.session)?;
        let until = match (request.until_idle, seq(request.until_input)) {
            (true, Some(_)) => {
                let message = "a follower waits until_idle or until_input, not for both";
                return Err(status(Error::invalid(message)));
            }
            (true, None) => Until::Idle,
            (false, Some(input)) => Until::Input(input),
            (false, None) => Until::Forever,
        };
        let options =
            FollowOptions { after: Seq(request.after), until, no_deltas: request.no_deltas };
        let items =
            self.engine.follow(&namespace, &session, options).await.map_err(about(&session))?;
        Ok(Response::new(items.map(|item| follow_response(item.map_err(status)?)).boxed()))
    }

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Answered<v1::ListEventsResponse> {
        let request = request.into_inner();
        let (namespace, session) = session(&request.namespace, &request.session)?;
        let limit = limit(request.limit, PAGE_EVENTS_MAX);
        let after = Seq(request.after);
        let page = self
            .engine
            .events(&namespace, &session, after, limit)
            .await
            .map_err(about(&session))?;
        let (mut events, mut bytes) = (Vec::with_capacity(page.events.len()), 0);
        for (seq, encoded) in page.events {
            bytes += encoded.len();
            if bytes > PAGE_BYTES_MAX && !events.is_empty() {
                break;
            }
            events.push(event(seq, &encoded)?);
        }
        Ok(Response::new(v1::ListEventsResponse { events, last: page.last.0 }))
    }

    async fn get_session(
        &self,
        request: Request<v1::GetSessionRequest>,
    ) -> Answered<v1::GetSessionResponse> {
        let request = request.into_inner();
        let (namespace, session) = session(&request.namespace, &request.session)?;
        let view = self.engine.session(&namespace, &session).await.map_err(about(&session))?;
        let session = Some(wire_session(&namespace, view));
        Ok(Response::new(v1::GetSessionResponse { session }))
    }

    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Answered<v1::ListSessionsResponse> {
        let request = request.into_inner();
        let namespace = namespace(&request.namespace)?;
        let query = ListSessions {
            cursor: cursor(&request.cursor)?,
            limit: (request.limit as usize).min(PAGE_SESSIONS_MAX),
            states: states(&request.states)?,
            agent: (!request.agent.is_empty()).then_some(request.agent),
        };
        let page = self.engine.sessions(&namespace, query).await.map_err(status)?;
        let sessions = page.sessions.into_iter().map(|view| wire_session(&namespace, view));
        Ok(Response::new(v1::ListSessionsResponse {
            sessions: sessions.collect(),
            cursor: page.cursor.map(|cursor| cursor.to_string()).unwrap_or_default(),
        }))
    }

    async fn delete_session(
        &self,
        request: Request<v1::DeleteSessionRequest>,
    ) -> Answered<v1::DeleteSessionResponse> {
        let caller = caller(&request).map_err(status)?;
        let request = request.into_inner();
        let (namespace, session) = session(&request.namespace, &request.session)?;
        self.engine.delete(caller, &namespace, &session).await.map_err(about(&session))?;
        Ok(Response::new(v1::DeleteSessionResponse {}))
    }

    async fn rename_session(
        &self,
        request: Request<v1::RenameSessionRequest>,
    ) -> Answered<v1::RenameSessionResponse> {
        let caller = caller(&request).map_err(status)?;
        let request = request.into_inner();
        let (namespace, session) = session(&request.namespace, &request.session)?;
        let renamed = self.engine.rename(caller, &namespace, &session, request.title).await;
        let seq = renamed.map_err(about(&session))?.seq.0;
        Ok(Response::new(v1::RenameSessionResponse { seq }))
    }

    async fn answer(&self, request: Request<v1::AnswerRequest>) -> Answered<v1::AnswerResponse> {
        let caller = caller(&request).map_err(status)?;
        let request = request.into_inner();
        let (namespace, session) = session(&request.namespace, &request.session)?;
        let ask = (request.ask > 0).then_some(AskId(request.ask));
        let answer = answer(request.answer)?;
        let answered =
            self.engine.answer(caller, &namespace, &session, ask, answer, request.via).await;
        let recorded = answered.map_err(about(&session))?;
        let (seq, duplicate) = (recorded.seq.0, recorded.duplicate);
        Ok(Response::new(v1::AnswerResponse { seq, duplicate }))
    }

    async fn signal(&self, request: Request<v1::SignalRequest>) -> Answered<v1::SignalResponse> {
        let caller = caller(&request).map_err(status)?;
        let request = request.into_inner();
        let (namespace, session) = session(&request.namespace, &request.session)?;
        let (key, payload) = (key(request.key)?, request.payload);
        let signaled =
            self.engine.signal(caller, &namespace, &session, request.name, key, payload).await;
        let recorded = signaled.map_err(about(&session))?;
        let (seq, duplicate) = (recorded.seq.0, recorded.duplicate);
        Ok(Response::new(v1::SignalResponse { seq, duplicate }))
    }

    async fn cancel(&self, request: Request<v1::CancelRequest>) -> Answered<v1::CancelResponse> {
        let caller = caller(&request).map_err(status)?;
        let request = request.into_inner();
        let (namespace, session) = session(&request.namespace, &request.session)?;
        let exec = (request.execution > 0).then_some(ExecId(request.execution));
        let (queued, reason) = (request.queued, request.reason);
        let canceled = self.engine.cancel(caller, &namespace, &session, exec, queued, reason).await;
        Ok(Response::new(v1::CancelResponse { seq: canceled.map_err(about(&session))?.seq.0 }))
    }

    async fn checkpoint(
        &self,
        request: Request<v1::CheckpointRequest>,
    ) -> Answered<v1::CheckpointResponse> {
        let caller = caller(&request).map_err(status)?;
        let request = request.into_inner();
        let (namespace, session) = session(&request.namespace, &request.session)?;
        let made = self.engine.checkpoint(caller, &namespace, &session, request.name).await;
        Ok(Response::new(v1::CheckpointResponse { seq: made.map_err(about(&session))?.seq.0 }))
    }

    async fn branch(&self, request: Request<v1::BranchRequest>) -> Answered<v1::BranchResponse> {
        let caller = caller(&request).map_err(status)?;
        let request = request.into_inner();
        let (namespace, session) = session(&request.namespace, &request.session)?;
        if request.at > 0 && !request.checkpoint.is_empty() {
            let message = "a branch begins at a position or at a checkpoint, not at both";
            return Err(status(Error::invalid(message)));
        }
        let plan = BranchPlan {
            at: seq(request.at),
            checkpoint: (!request.checkpoint.is_empty()).then_some(request.checkpoint),
            count: request.count.max(1),
            carry_on: request.carry_on,
            names: request.names,
        };
        let made = self
            .engine
            .branch(caller, &namespace, &session, plan)
            .await
            .map_err(about(&session))?;
        let sessions = made.sessions.iter().map(ToString::to_string).collect();
        Ok(Response::new(v1::BranchResponse { sessions, at: made.at.0 }))
    }

    async fn export(&self, request: Request<v1::ExportRequest>) -> Answered<Self::ExportStream> {
        let request = request.into_inner();
        let (namespace, session) = session(&request.namespace, &request.session)?;
        let archive = self.engine.export(&namespace, &session).await.map_err(about(&session))?;
        let chunks = transfer::chunks(archive.map(|chunk| chunk.map_err(status)));
        let responses = chunks.map(|chunk| Ok(v1::ExportResponse { chunk: chunk? }));
        Ok(Response::new(responses.boxed()))
    }

    async fn import(
        &self,
        request: Request<Streaming<v1::ImportRequest>>,
    ) -> Answered<v1::ImportResponse> {
        let caller = caller(&request).map_err(status)?;
        transfer::import(&self.engine, caller, request.into_inner()).await.map(Response::new)
    }

    async fn read_blob(
        &self,
        request: Request<v1::ReadBlobRequest>,
    ) -> Answered<Self::ReadBlobStream> {
        transfer::read_blob(&self.engine, request.into_inner()).await.map(Response::new)
    }

    async fn write_blob(
        &self,
        request: Request<Streaming<v1::WriteBlobRequest>>,
    ) -> Answered<v1::WriteBlobResponse> {
        transfer::write_blob(&self.engine, request.into_inner()).await.map(Response::new)
    }
}

/// Makes the status of a refusal; a session that is not there is called as the caller called it.
fn about(session: &SessionRef) -> impl Fn(Error) -> Status {
    move |error| {
        let missing = error.code == Code::NoSession && !session.name.is_empty();
        status(match missing {
            true => Error { message: format!("there is no session {:?}", session.name), ..error },
            false => error,
        })
    }
}

/// The limit of a page; 0 means the greatest.
fn limit(asked: u32, most: usize) -> usize {
    if asked == 0 { most } else { (asked as usize).min(most) }
}

fn follow_response(item: FollowItem) -> Result<v1::FollowResponse, Status> {
    let end = |reason: Reason, last: Seq, status| {
        Item::End(v1::FollowEnd { reason: reason.into(), last: last.0, status })
    };
    let item = match item {
        FollowItem::Event(seq, encoded) => Item::Event(event(seq, &encoded)?),
        FollowItem::CaughtUp(last) => Item::CaughtUp(v1::CaughtUp { last: last.0 }),
        FollowItem::Reached(last, status) => end(Reason::Reached, last, Some(wire_status(*status))),
        FollowItem::Deleted(last) => end(Reason::Deleted, last, None),
        FollowItem::Shutdown(last) => end(Reason::Shutdown, last, None),
    };
    Ok(v1::FollowResponse { item: Some(item) })
}
