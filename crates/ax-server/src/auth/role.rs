//! Who may do what: one table from the methods of the interface to what they need.
//!
//! What is not in the table does not exist for anybody who comes from afar and is no
//! administrator of the whole server: a method that somebody forgets to enter is closed, not open.

use crate::rest::ROUTES;
use http::Method;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What somebody may do; each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Submits, answers, signals, cancels, branches.
    Operator,
    /// Deletes sessions and, without a namespace, changes agents and stops the server.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        })
    }
}

/// A word that is no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a role is viewer, operator or admin")]
pub struct NoRole;

impl FromStr for Role {
    type Err = NoRole;

    fn from_str(text: &str) -> Result<Self, NoRole> {
        match text {
            "viewer" => Ok(Self::Viewer),
            "operator" => Ok(Self::Operator),
            "admin" => Ok(Self::Admin),
            _ => Err(NoRole),
        }
    }
}

/// What a method needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: it says nothing of anybody.
    Nothing,
    /// A role in the namespace that the request is about.
    Role(Role),
    /// A role, and not bound to a namespace: it concerns all of them.
    Everywhere(Role),
}

/// How long a request takes, as far as limits are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Soon over, and small.
    Call,
    /// Brings content, as much as it likes.
    Upload,
    /// Stays open for as long as the client likes.
    Follow,
}

/// A method and what it needs.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Whether a share token may do it, for its session.
    pub shared: bool,
    /// What it needs.
    pub need: Need,
    /// How long it takes.
    pub shape: Shape,
    /// Whether its request, too, goes on for as long as the client likes.
    pub goes_on: bool,
    /// The path of the gRPC method; the routes of the HTTP side follow it. A few paths have none.
    pub path: &'static str,
}

impl Rule {
    const fn new(path: &'static str, need: Need) -> Self {
        Self { path, need, shape: Shape::Call, goes_on: false, shared: false }
    }

    const fn shared(self) -> Self {
        Self { shared: true, ..self }
    }

    const fn shape(self, shape: Shape) -> Self {
        Self { shape, ..self }
    }

    /// Request and answer go on for as long as the client likes.
    const fn both_ways(self) -> Self {
        Self { goes_on: true, shape: Shape::Follow, ..self }
    }

    /// Whether it is put into the audit log even if all goes well.
    pub const fn administrative(&self) -> bool {
        matches!(self.need, Need::Role(Role::Admin) | Need::Everywhere(Role::Admin))
    }
}

/// Whether a path has the form of a template.
fn covers(template: &str, path: &str) -> bool {
    let mut given = path.split('/');
    for wanted in template.split('/') {
        let Some(segment) = given.next() else { return false };
        let hole = wanted.starts_with('{') && wanted.ends_with('}');
        if !(hole && !segment.is_empty() || wanted == segment) {
            return false;
        }
    }
    given.next().is_none()
}

/// What holds for a request; `None` for what is not in the table.
pub fn rule(method: &Method, path: &str) -> Option<&'static Rule> {
    // Whoever may GET may ask for the head.
    let asked = if *method == Method::HEAD { "GET" } else { method.as_str() };
    let route = ROUTES.iter().find(|route| route.method == asked && covers(route.path, path));
    if let Some(route) = route {
        return of_rpc(route.rpc);
    }
    let found = RULES.iter().find(|rule| rule.path == path);
    found.filter(|rule| asked == if PLAIN.contains(&rule.path) { "GET" } else { "POST" })
}

/// What holds for a method of the API.
fn of_rpc(name: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| {
        let method = rule.path.strip_prefix("/agentexecutor.v1.");
        method.and_then(|method| method.split_once('/')).is_some_and(|method| method.1 == name)
    })
}

const VIEWER: Need = Need::Role(Role::Viewer);
const OPERATOR: Need = Need::Role(Role::Operator);
const ADMIN: Need = Need::Role(Role::Admin);
const SERVER: Need = Need::Everywhere(Role::Admin);

const fn rpc(path: &'static str, need: Need) -> Rule {
    Rule::new(path, need)
}

/// The paths that are no method of gRPC, and are asked for with GET.
const PLAIN: &[&str] = &["/healthz", "/readyz", "/metrics", "/v1/openapi.json"];

/// Every method there is.
///
/// An agent runs as the user of the server, without isolation: whoever stores one can do what that
/// user can, in every namespace. So that is for those who have them all.
pub const RULES: &[Rule] = &[
    rpc("/agentexecutor.v1.Sessions/Submit", OPERATOR),
    rpc("/agentexecutor.v1.Sessions/SubmitStream", OPERATOR).both_ways(),
    rpc("/agentexecutor.v1.Sessions/Follow", VIEWER).shape(Shape::Follow).shared(),
    rpc("/agentexecutor.v1.Sessions/ListEvents", VIEWER).shared(),
    rpc("/agentexecutor.v1.Sessions/GetSession", VIEWER).shared(),
    rpc("/agentexecutor.v1.Sessions/ListSessions", VIEWER),
    rpc("/agentexecutor.v1.Sessions/DeleteSession", ADMIN),
    rpc("/agentexecutor.v1.Sessions/RenameSession", OPERATOR),
    rpc("/agentexecutor.v1.Sessions/Answer", OPERATOR),
    rpc("/agentexecutor.v1.Sessions/Signal", OPERATOR),
    rpc("/agentexecutor.v1.Sessions/Cancel", OPERATOR),
    rpc("/agentexecutor.v1.Sessions/Checkpoint", OPERATOR),
    rpc("/agentexecutor.v1.Sessions/Branch", OPERATOR),
    rpc("/agentexecutor.v1.Sessions/Export", VIEWER),
    rpc("/agentexecutor.v1.Sessions/Import", OPERATOR).shape(Shape::Upload),
    rpc("/agentexecutor.v1.Sessions/ReadBlob", VIEWER),
    rpc("/agentexecutor.v1.Sessions/WriteBlob", OPERATOR).shape(Shape::Upload),
    rpc("/agentexecutor.v1.Sessions/Record", OPERATOR),
    rpc("/agentexecutor.v1.Sessions/ListRecords", VIEWER),
    rpc("/agentexecutor.v1.Sessions/GetUsage", VIEWER),
    rpc("/agentexecutor.v1.Agents/ApplyAgent", SERVER),
    rpc("/agentexecutor.v1.Agents/GetAgent", VIEWER),
    rpc("/agentexecutor.v1.Agents/ListAgents", VIEWER),
    rpc("/agentexecutor.v1.Agents/DeleteAgent", SERVER),
    rpc("/agentexecutor.v1.Agents/ValidateAgent", VIEWER),
    rpc("/agentexecutor.v1.Server/GetInfo", Need::Everywhere(Role::Viewer)),
    rpc("/agentexecutor.v1.Server/Shutdown", SERVER),
    rpc("/grpc.health.v1.Health/Check", Need::Nothing),
    rpc("/grpc.health.v1.Health/Watch", VIEWER).shape(Shape::Follow),
    rpc("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", VIEWER).both_ways(),
    rpc("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", VIEWER).both_ways(),
    rpc("/ax.ExecutionService/Exec", OPERATOR).shape(Shape::Follow),
    rpc("/ax.ControllerService/Exec", OPERATOR).shape(Shape::Follow),
    rpc("/ax.InteractionsService/CreateInteraction", OPERATOR).shape(Shape::Follow),
    rpc("/ax.ConversationService/DeleteConversation", ADMIN),
    rpc("/ax.ConversationService/ForkConversation", OPERATOR),
    rpc("/ax.EventLogService/Delete", ADMIN),
    rpc("/ax.EventLogService/DeleteConversation", ADMIN),
    rpc("/ax.EventLogService/Fork", OPERATOR),
    rpc("/ax.EventLogService/ForkConversation", OPERATOR),
    rpc("/ax.FileService/ReadFile", VIEWER),
    rpc("/healthz", Need::Nothing),
    rpc("/readyz", Need::Nothing),
    rpc("/metrics", Need::Everywhere(Role::Viewer)),
    rpc("/v1/openapi.json", VIEWER),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_covers_whole_segments_only() {
        assert!(covers("/v1/sessions/{s}/events", "/v1/sessions/a/events"));
        for wrong in [
            "/v1/sessions//events",
            "/v1/sessions/a/b/events",
            "/v1/sessions/a/events/",
            "/v1/sessions/a",
            "v1/sessions/a/events",
            "//v1/sessions/a/events",
        ] {
            assert!(!covers("/v1/sessions/{s}/events", wrong), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_in_the_table_has_no_rule() {
        assert!(rule(&Method::POST, "/agentexecutor.v1.Sessions/Submit").is_some());
        assert!(rule(&Method::GET, "/agentexecutor.v1.Sessions/Submit").is_none());
        assert!(rule(&Method::POST, "/agentexecutor.v1.Sessions/Steal").is_none());
        assert!(rule(&Method::HEAD, "/healthz").is_some());
    }

    /// The methods of every service that a server has, as the descriptors have them, and whether
    /// the client sends a stream.
    fn methods() -> Vec<(String, bool)> {
        use prost::Message as _;
        let mut methods = Vec::new();
        for set in [
            ax_proto::API_DESCRIPTORS,
            ax_proto::ax1::DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ] {
            for file in prost_types::FileDescriptorSet::decode(set).unwrap().file {
                for service in &file.service {
                    methods.extend(service.method.iter().map(|method| {
                        let path =
                            format!("/{}.{}/{}", file.package(), service.name(), method.name());
                        (path, method.client_streaming())
                    }));
                }
            }
        }
        // We call it, and do not have it.
        methods.retain(|(method, _)| method != "/ax.HarnessService/Connect");
        methods
    }

    #[test]
    fn every_method_of_the_interface_is_in_the_table() {
        let methods = methods();
        assert!(methods.len() > 35);
        for (path, _) in &methods {
            assert!(rule(&Method::POST, path).is_some(), "{path} is not in the table of rights");
        }
        for rule in RULES.iter().filter(|rule| !PLAIN.contains(&rule.path)) {
            assert!(methods.iter().any(|(path, _)| path == rule.path), "{} is gone", rule.path);
        }
        let mut paths: Vec<_> = RULES.iter().map(|rule| rule.path).collect();
        paths.sort_unstable();
        assert!(paths.windows(2).all(|two| two[0] != two[1]), "a method is there twice");
    }

    /// What is not marked so must be sent in time; what is need not, and holds a place meanwhile.
    #[test]
    fn requests_that_go_on_are_those_that_clients_stream_and_that_bring_no_content() {
        let mut count = 0;
        for (path, streams) in methods() {
            let rule = rule(&Method::POST, &path).unwrap();
            assert_eq!(rule.goes_on, streams && rule.shape != Shape::Upload, "{path}");
            count += usize::from(rule.goes_on);
        }
        assert_eq!(count, 3, "inputs, and the reflection of two versions");
    }

    #[test]
    fn every_route_has_the_rights_of_its_method() {
        for route in ROUTES {
            let method = route.method.parse().unwrap();
            let path = route.path.replace('{', "x").replace('}', "");
            let rule = rule(&method, &path).unwrap_or_else(|| panic!("{}", route.path));
            assert!(rule.path.ends_with(&format!("/{}", route.rpc)), "{}", route.path);
            // What only asks needs no more than a role that reads, and the other way round.
            if route.method == "GET" {
                let reads = [VIEWER, Need::Everywhere(Role::Viewer)];
                assert!(reads.contains(&rule.need), "{}", route.path);
            } else if !route.path.ends_with("/validate") {
                assert_ne!(rule.need, VIEWER, "{}", route.path);
            }
        }
    }

    #[test]
    fn a_share_token_only_reads() {
        for rule in RULES.iter().filter(|rule| rule.shared) {
            assert_eq!(rule.need, VIEWER, "{}", rule.path);
        }
    }
}
