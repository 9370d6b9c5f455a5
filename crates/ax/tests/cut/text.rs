//! What an agent said, put together from events.

use ax_proto::v1;
use ax_proto::v1::event::Kind;
use std::collections::BTreeMap;

/// Puts together what holds of the text after these events: the blocks in the order in which they
/// began, without those that a lost attempt left unfinished.
pub(crate) fn text(events: &[v1::Event]) -> String {
    let (mut texts, mut open) = (BTreeMap::<u64, String>::new(), BTreeMap::new());
    for event in events {
        match &event.kind {
            Some(Kind::OutputDelta(delta)) => {
                let began = *open.entry((event.execution, &delta.block)).or_insert(event.seq);
                texts.entry(began).or_default().push_str(&delta.text);
            }
            Some(Kind::OutputMessage(message)) => {
                let began = open.remove(&(event.execution, &message.block)).unwrap_or(event.seq);
                let said = texts.entry(began).or_default();
                for part in &message.parts {
                    let body = part.body.as_ref().and_then(|body| body.body.as_ref());
                    if let Some(v1::body::Body::Text(text)) = body {
                        said.push_str(text);
                    }
                }
            }
            Some(Kind::AttemptLost(_)) => {
                for began in open.extract_if(.., |block, _| block.0 == event.execution) {
                    texts.remove(&began.1);
                }
            }
            Some(
                Kind::ExecutionCompleted(_)
                | Kind::ExecutionFailed(_)
                | Kind::ExecutionCanceled(_)
                | Kind::ExecutionTimedOut(_),
            ) => open.retain(|block, _| block.0 != event.execution),
            _ => {}
        }
    }
    texts.into_values().collect()
}

/// How many executions have ended.
pub(crate) fn ends(events: &[v1::Event]) -> usize {
    let ended = |event: &&v1::Event| {
        matches!(
            event.kind,
            Some(
                Kind::ExecutionCompleted(_)
                    | Kind::ExecutionFailed(_)
                    | Kind::ExecutionCanceled(_)
                    | Kind::ExecutionTimedOut(_)
            )
        )
    };
    events.iter().filter(ended).count()
}
