//! Sessions.

use super::{Api, Stream};
use crate::caller::{Act, Asker, about};
use crate::convert::{
    answer, cursor, event, key, limit, part, policy, seq, states, text, wire_session,
};
use crate::{PAGE_BYTES_MAX, PAGE_EVENTS_MAX, PAGE_SESSIONS_MAX};
use ax_core::id::{AskId, ExecId, Namespace, Seq};
use ax_engine::{BranchPlan, Error, ListSessions, SessionRef, Submission, Submitted};
use ax_proto::v1;
use bytes::Bytes;

/// Reads an input that a client sent.
pub(super) fn submission(
    asker: &Asker,
    request: v1::SubmitRequest,
) -> Result<(Namespace, Submission), Error> {
    let (namespace, session) = if request.session.is_empty() {
        (asker.namespace(Act::Write, &request.namespace)?, None)
    } else {
        let named = asker.session(Act::Write, &request.namespace, &request.session)?;
        (named.0, Some(named.1))
    };
    let parts = request.parts.into_iter().enumerate();
    let submission = Submission {
        session,
        agent: text(request.agent),
        key: key(request.key)?,
        parts: parts.map(|(index, given)| part(index, given)).collect::<Result<_, _>>()?,
        policy: policy(request.policy)?,
        title: text(request.title),
    };
    Ok((namespace, submission))
}

/// Writes what became of an input.
pub(super) fn submitted(
    session: Option<&SessionRef>,
    done: Result<Submitted, Error>,
) -> Result<v1::SubmitResponse, Error> {
    let done = done.map_err(|error| match session {
        Some(session) => about(session, error),
        None => error,
    })?;
    Ok(v1::SubmitResponse {
        session: done.session.to_string(),
        seq: done.seq.0,
        duplicate: done.duplicate,
        created: done.created,
        branched: done.branched,
    })
}

impl Api {
    pub(crate) async fn submit(
        self,
        asker: Asker,
        request: v1::SubmitRequest,
    ) -> Result<v1::SubmitResponse, Error> {
        let (namespace, submission) = submission(&asker, request)?;
        let session = submission.session.clone();
        let done = self.engine().submit(asker.caller(), &namespace, submission).await;
        submitted(session.as_ref(), done)
    }

    pub(crate) async fn list_events(
        self,
        asker: Asker,
        request: v1::ListEventsRequest,
    ) -> Result<v1::ListEventsResponse, Error> {
        let (namespace, session) =
            asker.session(Act::Read, &request.namespace, &request.session)?;
        let limit = limit(request.limit, PAGE_EVENTS_MAX);
        let page = self.engine().events(&namespace, &session, Seq(request.after), limit).await;
        let page = page.map_err(|error| about(&session, error))?;
        let (mut events, mut bytes) = (Vec::with_capacity(page.events.len()), 0);
        for (seq, encoded) in page.events {
            bytes += encoded.len();
            if bytes > PAGE_BYTES_MAX && !events.is_empty() {
                break;
            }
            events.push(event(seq, &encoded)?);
        }
        Ok(v1::ListEventsResponse { events, last: page.last.0 })
    }

    pub(crate) async fn get_session(
        self,
        asker: Asker,
        request: v1::GetSessionRequest,
    ) -> Result<v1::GetSessionResponse, Error> {
        let (namespace, session) =
            asker.session(Act::Read, &request.namespace, &request.session)?;
        let view = self.engine().session(&namespace, &session).await;
        let view = view.map_err(|error| about(&session, error))?;
        Ok(v1::GetSessionResponse { session: Some(wire_session(&namespace, view)) })
    }

    pub(crate) async fn list_sessions(
        self,
        asker: Asker,
        request: v1::ListSessionsRequest,
    ) -> Result<v1::ListSessionsResponse, Error> {
        let namespace = asker.namespace(Act::Read, &request.namespace)?;
        let query = ListSessions {
            cursor: cursor::session(&namespace, &request.cursor)?,
            limit: (request.limit as usize).min(PAGE_SESSIONS_MAX),
            states: states(&request.states)?,
            agent: text(request.agent),
        };
        let page = self.engine().sessions(&namespace, query).await?;
        let next = page.cursor.map(|last| cursor::of_session(&namespace, last));
        let sessions = page.sessions.into_iter().map(|view| wire_session(&namespace, view));
        Ok(v1::ListSessionsResponse {
            sessions: sessions.collect(),
            cursor: next.unwrap_or_default(),
        })
    }

    pub(crate) async fn delete_session(
        self,
        asker: Asker,
        request: v1::DeleteSessionRequest,
    ) -> Result<v1::DeleteSessionResponse, Error> {
        let (namespace, session) =
            asker.session(Act::Write, &request.namespace, &request.session)?;
        let deleted = self.engine().delete(asker.caller(), &namespace, &session).await;
        deleted.map_err(|error| about(&session, error))?;
        Ok(v1::DeleteSessionResponse {})
    }

    pub(crate) async fn rename_session(
        self,
        asker: Asker,
        request: v1::RenameSessionRequest,
    ) -> Result<v1::RenameSessionResponse, Error> {
        let (namespace, session) =
            asker.session(Act::Write, &request.namespace, &request.session)?;
        let (caller, title) = (asker.caller(), request.title);
        let renamed = self.engine().rename(caller, &namespace, &session, title).await;
        let seq = renamed.map_err(|error| about(&session, error))?.seq.0;
        Ok(v1::RenameSessionResponse { seq })
    }

    pub(crate) async fn answer(
        self,
        asker: Asker,
        request: v1::AnswerRequest,
    ) -> Result<v1::AnswerResponse, Error> {
        let (namespace, session) =
            asker.session(Act::Write, &request.namespace, &request.session)?;
        let ask = (request.ask > 0).then_some(AskId(request.ask));
        let (caller, answer) = (asker.caller(), answer(request.answer)?);
        let answered =
            self.engine().answer(caller, &namespace, &session, ask, answer, request.via).await;
        let recorded = answered.map_err(|error| about(&session, error))?;
        Ok(v1::AnswerResponse { seq: recorded.seq.0, duplicate: recorded.duplicate })
    }

    pub(crate) async fn signal(
        self,
        asker: Asker,
        request: v1::SignalRequest,
    ) -> Result<v1::SignalResponse, Error> {
        let (namespace, session) =
            asker.session(Act::Write, &request.namespace, &request.session)?;
        let (caller, name) = (asker.caller(), request.name);
        let (key, payload) = (key(request.key)?, request.payload);
        let signaled = self.engine().signal(caller, &namespace, &session, name, key, payload).await;
        let recorded = signaled.map_err(|error| about(&session, error))?;
        Ok(v1::SignalResponse { seq: recorded.seq.0, duplicate: recorded.duplicate })
    }

    pub(crate) async fn cancel(
        self,
        asker: Asker,
        request: v1::CancelRequest,
    ) -> Result<v1::CancelResponse, Error> {
        let (namespace, session) =
            asker.session(Act::Write, &request.namespace, &request.session)?;
        let exec = (request.execution > 0).then_some(ExecId(request.execution));
        let (caller, queued, reason) = (asker.caller(), request.queued, request.reason);
        let canceled =
            self.engine().cancel(caller, &namespace, &session, exec, queued, reason).await;
        Ok(v1::CancelResponse { seq: canceled.map_err(|error| about(&session, error))?.seq.0 })
    }

    pub(crate) async fn checkpoint(
        self,
        asker: Asker,
        request: v1::CheckpointRequest,
    ) -> Result<v1::CheckpointResponse, Error> {
        let (namespace, session) =
            asker.session(Act::Write, &request.namespace, &request.session)?;
        let (caller, name) = (asker.caller(), request.name);
        let made = self.engine().checkpoint(caller, &namespace, &session, name).await;
        Ok(v1::CheckpointResponse { seq: made.map_err(|error| about(&session, error))?.seq.0 })
    }

    pub(crate) async fn branch(
        self,
        asker: Asker,
        request: v1::BranchRequest,
    ) -> Result<v1::BranchResponse, Error> {
        let (namespace, session) =
            asker.session(Act::Write, &request.namespace, &request.session)?;
        // A branch is a session of its own.
        asker.namespace(Act::Write, &request.namespace)?;
        if request.at > 0 && !request.checkpoint.is_empty() {
            let message = "a branch begins at a position or at a checkpoint, not at both";
            return Err(Error::invalid(message));
        }
        let plan = BranchPlan {
            at: seq(request.at),
            checkpoint: text(request.checkpoint),
            count: request.count.max(1),
            carry_on: request.carry_on,
            names: request.names,
        };
        let made = self.engine().branch(asker.caller(), &namespace, &session, plan).await;
        let made = made.map_err(|error| about(&session, error))?;
        let sessions = made.sessions.iter().map(ToString::to_string).collect();
        Ok(v1::BranchResponse { sessions, at: made.at.0 })
    }

    pub(crate) async fn export(
        self,
        asker: Asker,
        request: v1::ExportRequest,
    ) -> Result<Stream<Bytes>, Error> {
        let (namespace, session) =
            asker.session(Act::Read, &request.namespace, &request.session)?;
        let archive = self.engine().export(&namespace, &session).await;
        archive.map_err(|error| about(&session, error))
    }

    pub(crate) async fn import(
        self,
        asker: Asker,
        namespace: &str,
        name: String,
        archive: Stream<Bytes>,
    ) -> Result<v1::ImportResponse, Error> {
        let namespace = asker.namespace(Act::Write, namespace)?;
        let imported = self.engine().import(asker.caller(), &namespace, text(name), archive).await;
        let (session, last) = imported?;
        Ok(v1::ImportResponse { session: session.to_string(), last: last.0 })
    }
}
