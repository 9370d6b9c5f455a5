//! The conversation with the model, in no vendor's form.

use super::chain::Chain;
use crate::launch::{Content, Role, Turn};
use ax_core::session::{Digest, Failure, PartKind, Prefix};
use ax_gateway::canonical;
use serde_json::{Value, json};
use std::path::PathBuf;

/// The most text that a part may have, in bytes: no model takes more.
const PART_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A piece of a message.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    /// Text.
    Text(String),
    /// A picture or document in a file.
    File {
        /// Its media type.
        media_type: String,
        /// Its name; may be empty.
        name: String,
        /// The file.
        path: PathBuf,
        /// The hash of its content, as the blob store names it.
        id: String,
    },
    /// The model asks for a tool.
    Call(Call),
    /// What a tool returned.
    Result {
        /// The call's id.
        id: String,
        /// The tool.
        name: String,
        /// What it returned.
        text: String,
        /// Whether it failed.
        error: bool,
    },
    /// Something of the vendor's own that it wants back as it is.
    Opaque(Value),
}

/// The model asks for a tool.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    /// The model's name for it, or ours.
    pub(super) id: String,
    /// The tool.
    pub(super) name: String,
    /// What it is given; a text if the model did not write JSON.
    pub(super) input: Value,
    /// A vendor's mark that it wants back; may be empty.
    pub(super) signature: String,
}

/// A message.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Message {
    pub(super) role: Role,
    pub(super) pieces: Vec<Piece>,
}

/// Everything that the model is to know.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) system: String,
    /// What it is told about each tool: `name`, `description`, `input`.
    pub(super) tools: Vec<Value>,
    pub(super) messages: Vec<Message>,
    chain: Chain,
}

impl Talk {
    /// Begins with what was said before, and the input.
    pub(super) fn new(
        system: String,
        tools: Vec<Value>,
        history: &[Turn],
        input: &[Content],
    ) -> Result<Self, Failure> {
        let mut chain = Chain::default();
        chain.add(canonical::hash(&json!({"system": system})));
        chain.add(canonical::hash(&json!({"tools": tools})));
        let mut talk = Self { system, tools, messages: Vec::new(), chain };
        // A conversation begins with the user; what came before was left out of the history.
        for turn in history.iter().skip_while(|turn| turn.role == Role::Agent) {
            for part in &turn.parts {
                if let Some(piece) = piece(part)? {
                    talk.add(turn.role, piece);
                }
            }
            if turn.role == Role::User {
                talk.chain.sent_before();
            }
        }
        for part in input {
            if let Some(piece) = piece(part)? {
                talk.add(Role::User, piece);
            }
        }
        Ok(talk)
    }

    /// Adds something that the model does not know.
    pub(super) fn add(&mut self, role: Role, piece: Piece) {
        self.chain.add(digest(role, &piece));
        self.push(role, piece);
    }

    /// Adds what the model said.
    pub(super) fn received(&mut self, piece: Piece) {
        self.chain.received(digest(Role::Agent, &piece));
        self.push(Role::Agent, piece);
    }

    /// Returns the name of the request that sends everything so far.
    pub(super) fn request(&mut self) -> Prefix {
        self.chain.request()
    }

    fn push(&mut self, role: Role, piece: Piece) {
        match self.messages.last_mut() {
            Some(last) if last.role == role => last.pieces.push(piece),
            _ => self.messages.push(Message { role, pieces: vec![piece] }),
        }
    }
}

/// Returns what the model is told of a part; nothing of what another model thought or did.
fn piece(part: &Content) -> Result<Option<Piece>, Failure> {
    let named = |text: String| match (part.name.is_empty(), part.kind) {
        (false, PartKind::Document | PartKind::Data) => format!("{}:\n{text}", part.name),
        _ => text,
    };
    let plain = |text: String| (!text.trim().is_empty()).then_some(Piece::Text(text));
    match (part.kind, &part.file) {
        (PartKind::Thought | PartKind::ToolCall | PartKind::ToolResult, _) => Ok(None),
        (_, None) => Ok(plain(named(part.text.clone()))),
        (PartKind::Image | PartKind::Document, Some((path, id, _)))
            if part.media_type.starts_with("image/") || part.media_type == "application/pdf" =>
        {
            Ok(Some(Piece::File {
                media_type: part.media_type.clone(),
                name: part.name.clone(),
                path: path.clone(),
                id: id.clone(),
            }))
        }
        (kind, Some((path, _, bytes))) => {
            let is_text = matches!(kind, PartKind::Text | PartKind::Data)
                || part.media_type.starts_with("text/");
            if !is_text {
                let what = format!(
                    "[{} {} is in the file {}]",
                    part.media_type,
                    part.name,
                    path.display()
                );
                return Ok(Some(Piece::Text(what)));
            }
            if *bytes > PART_BYTES_MAX {
                let message = format!("a text of {bytes} bytes is more than a model takes");
                return Err(Failure { code: "input_too_large".into(), message });
            }
            let text = crate::own::read_input(path).map_err(|error| Failure {
                code: "input".into(),
                message: format!("{} cannot be read: {error}", path.display()),
            })?;
            Ok(plain(named(String::from_utf8_lossy(&text).into_owned())))
        }
    }
}

fn digest(role: Role, piece: &Piece) -> Digest {
    let role = match role {
        Role::User => "user",
        Role::Agent => "agent",
    };
    let value = match piece {
        Piece::Text(text) => json!({"text": text}),
        Piece::File { media_type, id, .. } => json!({"media_type": media_type, "blob": id}),
        Piece::Call(call) => json!({"call": call.id, "name": call.name, "input": call.input}),
        Piece::Result { id, text, error, .. } => {
            json!({"result": id, "text": text, "error": error})
        }
        Piece::Opaque(value) => json!({"opaque": value}),
    };
    canonical::hash(&json!({"role": role, "part": value}))
}
