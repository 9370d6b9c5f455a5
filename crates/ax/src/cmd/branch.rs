//! `ax branch` and `ax tree`.

use super::session::pages;
use crate::args::{BranchArgs, TreeArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::link::{Context, Link, Need};
use crate::out::Style;
use crate::view::json;
use crate::view::session::{colored, title, word};
use crate::view::table::short;
use ax_proto::v1;
use std::collections::BTreeMap;

/// How many sessions a tree is looked for in.
const SESSIONS_MAX: usize = 100_000;

pub(crate) async fn branch(cx: &Context, args: BranchArgs) -> Result<Exit, Failure> {
    if args.name.len() > args.count as usize {
        let (names, count) = (args.name.len(), args.count);
        return Err(Failure::usage(format!("{names} names are too many for --count {count}"))
            .hint("raise --count"));
    }
    let request = v1::BranchRequest {
        session: args.session,
        at: args.at.unwrap_or(0),
        checkpoint: args.checkpoint.unwrap_or_default(),
        count: args.count,
        carry_on: args.carry_on,
        names: args.name,
        ..Default::default()
    };
    let link = cx.link(Need::Record).await?;
    let done = match link.client.branch(request).await {
        Err(error) => Err(error.into()),
        Ok(made) if cx.out.json => cx.out.object(&json::typed(&made, "branched")?),
        Ok(made) => {
            cx.out.progress(&format!("branched at {}", made.at));
            made.sessions.iter().try_for_each(|session| cx.out.line(session))
        }
    };
    let closed = link.close().await;
    done.and(closed).map(|()| Exit::Done)
}

pub(crate) async fn tree(cx: &Context, args: TreeArgs) -> Result<Exit, Failure> {
    let link = cx.link(Need::Record).await?;
    let done = tree_on(cx, &link, args.session).await;
    let closed = link.close().await;
    done.and(closed).map(|()| Exit::Done)
}

async fn tree_on(cx: &Context, link: &Link, session: String) -> Result<(), Failure> {
    let request = v1::GetSessionRequest { session, ..Default::default() };
    let chosen = link.client.get_session(request).await?.session.unwrap_or_default();
    let mut all = BTreeMap::new();
    pages(link, v1::ListSessionsRequest::default(), |sessions| {
        all.extend(sessions.into_iter().map(|session| (session.id.clone(), session)));
        Ok(all.len() < SESSIONS_MAX)
    })
    .await?;
    let tree = Tree::new(all, chosen);
    if cx.out.json {
        return tree.walk(&mut |session, _, _| cx.out.object(&json::typed(session, "session")?));
    }
    tree.walk(&mut |session, stem, branched_at| {
        cx.out.line(&tree.line(cx, session, stem, branched_at))
    })
}

/// A session's root and everything that grows from it.
#[derive(Debug)]
struct Tree {
    root: String,
    chosen: String,
    sessions: BTreeMap<String, v1::Session>,
    children: BTreeMap<String, Vec<String>>,
}

type Visit<'a> = dyn FnMut(&v1::Session, &str, u64) -> Result<(), Failure> + 'a;

impl Tree {
    fn new(mut sessions: BTreeMap<String, v1::Session>, chosen: v1::Session) -> Self {
        let id = chosen.id.clone();
        sessions.insert(id.clone(), chosen);
        let mut root = id.clone();
        while let Some(parent) = sessions.get(&root).map(|session| session.parent.clone()) {
            // A parent that was deleted is no longer to be seen.
            if parent.is_empty() || !sessions.contains_key(&parent) {
                break;
            }
            root = parent;
        }
        let mut children: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for session in sessions.values().filter(|session| !session.parent.is_empty()) {
            children.entry(session.parent.clone()).or_default().push(session.id.clone());
        }
        for branches in children.values_mut() {
            branches.sort_by_key(|id| {
                let session = &sessions[id];
                (session.branched_at, session.created_at_millis, id.clone())
            });
        }
        Self { root, chosen: id, sessions, children }
    }

    /// Visits every session, parents first, each with what is drawn before it.
    fn walk(&self, visit: &mut Visit<'_>) -> Result<(), Failure> {
        let mut open = vec![(self.root.as_str(), String::new(), String::new())];
        while let Some((id, stem, below)) = open.pop() {
            let session = &self.sessions[id];
            visit(session, &stem, session.branched_at)?;
            let branches = self.children.get(id).map_or(&[][..], Vec::as_slice);
            for (index, branch) in branches.iter().enumerate().rev() {
                let last = index + 1 == branches.len();
                let (fork, rest) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
                open.push((branch, format!("{below}{fork}"), format!("{below}{rest}")));
            }
        }
        Ok(())
    }

    fn line(&self, cx: &Context, session: &v1::Session, stem: &str, branched_at: u64) -> String {
        let at = if branched_at > 0 { format!("at {branched_at}  ") } else { String::new() };
        let id = match session.id == self.chosen {
            true => cx.out.style(Style::Bold, &session.id),
            false => session.id.clone(),
        };
        let state = colored(&cx.out, word(session.status.as_ref()));
        let title = short(title(session), 60);
        let line = format!("{stem}{at}{id}  {state}  {} events  {title}", session.last);
        line.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: &str, parent: &str, branched_at: u64) -> v1::Session {
        let (id, parent) = (id.to_owned(), parent.to_owned());
        v1::Session { id, parent, branched_at, ..Default::default() }
    }

    #[test]
    fn a_tree_is_drawn_from_its_root() {
        let all = [
            session("a", "gone", 1),
            session("b", "a", 7),
            session("c", "b", 2),
            session("d", "a", 3),
            session("e", "b", 9),
            session("other", "", 0),
        ];
        let sessions = all.map(|session| (session.id.clone(), session)).into();
        let tree = Tree::new(sessions, session("c", "b", 2));
        let mut lines = Vec::new();
        let walked = tree.walk(&mut |session, stem, _| {
            lines.push(format!("{stem}{}", session.id));
            Ok(())
        });
        assert!(walked.is_ok());
        assert_eq!(lines, ["a", "├─ d", "└─ b", "   ├─ c", "   └─ e"]);
    }
}
