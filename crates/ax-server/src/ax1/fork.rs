//! Conversations that are forked and deleted.

use super::steps;
use super::who::{Act, Asked};
use ax_core::id::Seq;
use ax_engine::{BranchPlan, Code, Engine, Error, SessionView, WaitState};
use ax_proto::ax1;
use tonic::{Request, Response};

/// Whether something is under way in a session, or waits to be.
pub(super) const fn is_under_way(view: &SessionView) -> bool {
    use WaitState::{Retrying, Running, WaitingAsk, WaitingCapacity, WaitingSignal, WaitingTimer};
    matches!(
        view.status.state,
        Running | Retrying | WaitingAsk | WaitingTimer | WaitingSignal | WaitingCapacity
    )
}

/// Deletes a conversation in which nothing is under way.
pub(super) async fn delete(
    engine: &Engine,
    request: Request<ax1::DeleteConversationRequest>,
) -> Result<Response<ax1::DeleteConversationResponse>, Error> {
    let asked = Asked::of(&request, Act::Write, &request.get_ref().conversation_id)?;
    let Asked { caller, namespace, session } = asked.clone();
    let view = engine.session(&namespace, &session).await;
    let view = view.map_err(|error| asked.about(error))?;
    if is_under_way(&view) {
        let state = view.status.state.word();
        return Err(Error::new(Code::Busy, format!("the conversation is {state}"))
            .with_hint("`ax cancel` ends what is under way; then it can be deleted"));
    }
    engine.delete(caller, &namespace, &session).await.map_err(|error| asked.about(error))?;
    Ok(Response::new(ax1::DeleteConversationResponse {}))
}

/// Makes a branch of a conversation.
pub(super) async fn fork(
    engine: &Engine,
    request: Request<ax1::ForkConversationRequest>,
) -> Result<Response<ax1::ForkConversationResponse>, Error> {
    let to = request.get_ref().dest_conversation_id.clone();
    if to.is_empty() || to.starts_with("ses_") {
        return Err(Error::invalid("dest_conversation_id does not name the new conversation")
            .with_hint("choose a name that is not taken and does not begin with ses_"));
    }
    // Whoever may not write there must not learn what is there either.
    drop(Asked::of(&request, Act::Write, &to)?);
    let from = &request.get_ref().src_conversation_id;
    let (mut asked, mut at) =
        (Asked::of(&request, Act::Write, from)?, steps::seq(request.get_ref().src_seq)?);
    let known = engine.session(&asked.namespace, &asked.session).await;
    if let (Err(_), Some((name, named_at)), Seq::ZERO) = (&known, checkpoint(from), at) {
        asked = Asked::of(&request, Act::Write, name)?;
        at = named_at;
    }
    let Asked { caller, namespace, session } = asked.clone();
    let plan = BranchPlan {
        at: (at > Seq::ZERO).then_some(at),
        count: 1,
        names: vec![to.clone()],
        ..BranchPlan::default()
    };
    let made = engine.branch(caller, &namespace, &session, plan).await;
    made.map_err(|error| match error.code {
        Code::Exists => {
            Error { message: format!("there is a conversation {to:?} already"), ..error }
        }
        _ => asked.about(error),
    })?;
    Ok(Response::new(ax1::ForkConversationResponse { conversation_id: to }))
}

/// Reads `CONVERSATION:STEP`, the older name of a place to fork at.
pub(super) fn checkpoint(text: &str) -> Option<(&str, Seq)> {
    let (name, step) = text.rsplit_once(':')?;
    let step: i32 = step.parse().ok()?;
    (!name.is_empty() && step > 0).then(|| (name, Seq(step.unsigned_abs().into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_name_and_a_step() {
        assert_eq!(checkpoint("talk:12"), Some(("talk", Seq(12))));
        assert_eq!(checkpoint("a:b:1"), Some(("a:b", Seq(1))));
        for not_one in ["talk", "talk:", "talk:x", "talk:0", "talk:-1", ":3"] {
            assert_eq!(checkpoint(not_one), None, "{not_one}");
        }
    }
}
