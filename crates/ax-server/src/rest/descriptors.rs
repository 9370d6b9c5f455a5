//! What the proto files say, as far as HTTP needs it.

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type as Wire};
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};
use std::collections::BTreeMap;
use std::sync::LazyLock;

const PACKAGE: &str = ".agentexecutor.v1.";

/// The interface as it is described.
pub(super) static DESCRIPTORS: LazyLock<Descriptors> = LazyLock::new(|| {
    let set = FileDescriptorSet::decode(ax_proto::API_DESCRIPTORS);
    Descriptors::new(set.expect("the descriptors are generated"))
});

/// Messages, enumerations and methods, by name.
#[derive(Debug, Default)]
pub(super) struct Descriptors {
    pub(super) messages: BTreeMap<String, Message>,
    pub(super) enums: BTreeMap<String, Enum>,
    pub(super) methods: BTreeMap<String, Method>,
}

/// A message. Nested ones are called after what they are in: `FollowEnd.Reason`.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) comment: String,
    pub(super) fields: Vec<Field>,
}

/// A field.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    /// Its name in JSON.
    pub(super) json: String,
    pub(super) comment: String,
    pub(super) kind: Type,
    pub(super) repeated: bool,
    /// The choice that it is one of.
    pub(super) oneof: Option<String>,
}

/// What a field holds.
#[derive(Debug)]
pub(super) enum Type {
    Bool,
    U32,
    U64,
    Text,
    Bytes,
    Enum(String),
    Message(String),
}

/// An enumeration.
#[derive(Debug)]
pub(super) struct Enum {
    pub(super) comment: String,
    pub(super) values: Vec<String>,
}

/// A method of a service.
#[derive(Debug)]
pub(super) struct Method {
    pub(super) service: String,
    pub(super) comment: String,
    pub(super) request: String,
    pub(super) response: String,
}

type Comments = BTreeMap<Vec<i32>, String>;

impl Descriptors {
    /// The request of a method.
    pub(super) fn request(&self, method: &str) -> &Message {
        &self.messages[&self.methods[method].request]
    }

    fn new(set: FileDescriptorSet) -> Self {
        let mut all = Self::default();
        for file in set.file.iter().filter(|file| file.package() == "agentexecutor.v1") {
            let comments = file.source_code_info.iter().flat_map(|info| &info.location);
            let comments = comments
                .map(|at| (at.path.clone(), at.leading_comments().trim().replace("\n ", "\n")));
            let comments: Comments = comments.filter(|(_, text)| !text.is_empty()).collect();
            for (index, message) in (0..).zip(&file.message_type) {
                all.message("", message, &comments, vec![4, index]);
            }
            for (index, one) in (0..).zip(&file.enum_type) {
                all.enumeration("", one, &comments, vec![5, index]);
            }
            for (at, service) in (0..).zip(&file.service) {
                for (index, method) in (0..).zip(&service.method) {
                    let described = Method {
                        service: service.name().into(),
                        comment: comment(&comments, &[6, at, 2, index]),
                        request: short(method.input_type()),
                        response: short(method.output_type()),
                    };
                    all.methods.insert(method.name().into(), described);
                }
            }
        }
        all
    }

    fn message(&mut self, within: &str, message: &DescriptorProto, all: &Comments, at: Vec<i32>) {
        let name = format!("{within}{}", message.name());
        let inside = format!("{name}.");
        for (index, nested) in (0..).zip(&message.nested_type) {
            self.message(&inside, nested, all, [&*at, &[3, index]].concat());
        }
        for (index, nested) in (0..).zip(&message.enum_type) {
            self.enumeration(&inside, nested, all, [&*at, &[4, index]].concat());
        }
        let fields = (0..).zip(&message.field).map(|(index, field)| {
            let oneof = field.oneof_index.and_then(|index| usize::try_from(index).ok());
            let oneof = oneof.and_then(|index| message.oneof_decl.get(index));
            Field {
                name: field.name().into(),
                json: field.json_name().into(),
                comment: comment(all, &[&*at, &[2, index]].concat()),
                kind: kind(field.r#type(), field.type_name()),
                repeated: field.label() == Label::Repeated,
                oneof: oneof.map(|oneof| oneof.name().into()),
            }
        });
        let described = Message { comment: comment(all, &at), fields: fields.collect() };
        self.messages.insert(name, described);
    }

    fn enumeration(
        &mut self,
        within: &str,
        one: &EnumDescriptorProto,
        all: &Comments,
        at: Vec<i32>,
    ) {
        let mut text = comment(all, &at);
        for (index, value) in (0..).zip(&one.value) {
            let said = comment(all, &[&*at, &[2, index]].concat());
            if !said.is_empty() {
                text.push_str(&format!("\n- `{}`: {said}", value.name()));
            }
        }
        let values = one.value.iter().map(|value| value.name().into()).collect();
        let described = Enum { comment: text.trim().into(), values };
        self.enums.insert(format!("{within}{}", one.name()), described);
    }
}

fn comment(all: &Comments, at: &[i32]) -> String {
    all.get(at).cloned().unwrap_or_default()
}

fn short(name: &str) -> String {
    name.strip_prefix(PACKAGE).unwrap_or(name).into()
}

fn kind(wire: Wire, name: &str) -> Type {
    match wire {
        Wire::Bool => Type::Bool,
        Wire::Uint32 | Wire::Fixed32 => Type::U32,
        Wire::Uint64 | Wire::Fixed64 => Type::U64,
        Wire::String => Type::Text,
        Wire::Bytes => Type::Bytes,
        Wire::Enum => Type::Enum(short(name)),
        Wire::Message => Type::Message(short(name)),
        other => unreachable!("no field is a {other:?}"),
    }
}
