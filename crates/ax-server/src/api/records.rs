//! Records of frameworks that run elsewhere.

use super::Api;
use crate::PAGE_EVENTS_MAX;
use crate::caller::{Act, Asker, about};
use crate::convert::{event, key, limit, part, text};
use ax_core::id::Seq;
use ax_engine::{Error, NewRecord};
use ax_proto::v1;

impl Api {
    pub(crate) async fn record(
        self,
        asker: Asker,
        request: v1::RecordRequest,
    ) -> Result<v1::RecordResponse, Error> {
        let (namespace, session) =
            asker.session(Act::Write, &request.namespace, &request.session)?;
        contents(&request.parts).try_for_each(|hash| asker.content(hash))?;
        let parts = request.parts.into_iter().enumerate();
        let record = NewRecord {
            agent: text(request.agent),
            collection: request.collection,
            key: key(request.key)?,
            parts: parts.map(|(index, given)| part(index, given)).collect::<Result<_, _>>()?,
            replaces: request.replaces,
            after: request.after.map(Seq),
        };
        let done = self.engine().record(asker.caller(), &namespace, &session, record).await;
        let done = done.map_err(|error| about(&session, error))?;
        Ok(v1::RecordResponse {
            session: done.session.to_string(),
            seq: done.seq.0,
            duplicate: done.duplicate,
            created: done.created,
        })
    }

    pub(crate) async fn list_records(
        self,
        asker: Asker,
        request: v1::ListRecordsRequest,
    ) -> Result<v1::ListRecordsResponse, Error> {
        let (namespace, session) =
            asker.session(Act::Read, &request.namespace, &request.session)?;
        let limit = limit(request.limit, PAGE_EVENTS_MAX);
        let (name, after) = (&request.collection, Seq(request.after));
        let page = self.engine().records(&namespace, &session, name, after, limit).await;
        let page = page.map_err(|error| about(&session, error))?;
        let events = page.events.into_iter().map(|(seq, encoded)| event(seq, &encoded));
        let events: Vec<v1::Event> = events.collect::<Result<_, _>>()?;
        for event in &events {
            if let Some(v1::event::Kind::RecordWritten(record)) = &event.kind {
                contents(&record.parts).try_for_each(|hash| asker.shown(hash))?;
            }
        }
        Ok(v1::ListRecordsResponse {
            events,
            last: page.collection.last.0,
            base: page.collection.base.0,
        })
    }
}

/// The hashes of contents that are kept apart.
fn contents(parts: &[v1::Part]) -> impl Iterator<Item = &[u8]> {
    parts.iter().filter_map(|part| match part.body.as_ref()?.body.as_ref()? {
        v1::body::Body::Blob(blob) => Some(blob.hash.as_slice()),
        v1::body::Body::Text(_) => None,
    })
}
