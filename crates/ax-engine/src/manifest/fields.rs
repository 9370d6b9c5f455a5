//! Reading fields, and remembering what is wrong with them.

use super::yaml::{Field, Node, Value};
use super::{Place, Problem};

/// What is wrong so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) problems: Vec<Problem>,
}

/// The fields of a map whose names are all known.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    path: String,
    place: Place,
    fields: &'a [Field],
}

impl<'a> Fields<'a> {
    /// Returns a field; one that is there and empty counts as left out.
    pub(super) fn get(&self, name: &str) -> Option<&'a Node> {
        let found = self.fields.iter().find(|field| field.name == name);
        found.map(|field| &field.node).filter(|node| !matches!(node.value, Value::Null))
    }

    /// Goes through all fields.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a str, &'a Node)> {
        self.fields.iter().map(|field| (field.name.as_str(), &field.node))
    }

    /// Returns the path of a field.
    pub(super) fn path(&self, name: &str) -> String {
        join(&self.path, name)
    }

    fn place(&self, name: &str) -> Place {
        let found = self.fields.iter().find(|field| field.name == name);
        found.map_or(self.place, |field| field.node.place)
    }
}

impl Report {
    /// Whether nothing is wrong with a field and what is below it.
    pub(super) fn is_clean(&self, path: &str) -> bool {
        let below = |other: &str| {
            let rest = other.strip_prefix(path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        !self.problems.iter().any(|problem| below(&problem.path))
    }

    /// Returns what is wrong, in the order of the document.
    pub(super) fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| {
            problem.place.map_or((0, 0), |place| (place.line, place.column))
        });
        self.problems
    }

    /// Remembers what is wrong with a field.
    pub(super) fn problem(
        &mut self,
        fields: &Fields<'_>,
        name: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let problem = Problem::new(fields.path(name), message).with_hint(hint);
        self.problems.push(problem.at(fields.place(name)));
    }

    /// Reads a map with these fields only.
    pub(super) fn fields<'a>(
        &mut self,
        path: &str,
        node: &'a Node,
        known: &[&str],
    ) -> Option<Fields<'a>> {
        let fields = self.map(path, node)?;
        for field in fields.fields {
            if !known.contains(&&*field.name) {
                let problem = Problem::new(fields.path(&field.name), "there is no such field");
                let hint = suggestion(&field.name, known);
                self.problems.push(problem.at(field.place).with_hint(hint));
            }
        }
        Some(fields)
    }

    /// Reads a map with any fields.
    pub(super) fn map<'a>(&mut self, path: &str, node: &'a Node) -> Option<Fields<'a>> {
        if let Value::Map(fields) = &node.value {
            return Some(Fields { path: path.to_owned(), place: node.place, fields });
        }
        let message = format!("must be a map, not {}", node.what());
        self.problems.push(Problem::new(path, message).at(node.place));
        None
    }

    /// Reads a required map with these fields only.
    pub(super) fn section<'a>(
        &mut self,
        fields: &Fields<'a>,
        name: &str,
        known: &[&str],
    ) -> Option<Fields<'a>> {
        let path = fields.path(name);
        match fields.get(name) {
            Some(node) => self.fields(&path, node, known),
            None => {
                self.problem(fields, name, "is missing", format!("it has {}", listed(known)));
                None
            }
        }
    }

    /// Reads a required text.
    pub(super) fn text<'a>(
        &mut self,
        fields: &Fields<'a>,
        name: &str,
        hint: &str,
    ) -> Option<&'a str> {
        if fields.get(name).is_none() {
            self.problem(fields, name, "is missing", hint);
        }
        self.text_option(fields, name)
    }

    /// Reads a text that may be left out.
    pub(super) fn text_option<'a>(&mut self, fields: &Fields<'a>, name: &str) -> Option<&'a str> {
        let node = fields.get(name)?;
        if let Value::Text(text) = &node.value {
            return Some(text);
        }
        let hint = match &node.value {
            Value::Bool(value) => format!("put it in quotes: \"{value}\""),
            Value::Number(value) => format!("put it in quotes: \"{value}\""),
            _ => String::new(),
        };
        self.problem(fields, name, format!("must be a text, not {}", node.what()), hint);
        None
    }

    /// Reads a whole number from `least` to `most` that may be left out.
    pub(super) fn number(
        &mut self,
        fields: &Fields<'_>,
        name: &str,
        least: u64,
        most: u64,
    ) -> Option<u64> {
        let node = fields.get(name)?;
        let number = match &node.value {
            Value::Number(number) => number.as_u64(),
            _ => None,
        };
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            let message =
                format!("must be a whole number from {least} to {most}, not {}", node.what());
            self.problem(fields, name, message, "");
        }
        number
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Says what may have been meant, or else what there is.
pub fn suggestion(name: &str, known: &[&str]) -> String {
    match closest(name, known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("there is {}", listed(known)),
    }
}

fn closest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |text: &str| text.replace(['_', '-'], "").to_lowercase();
    let scored =
        known.iter().map(|known| (strsim::jaro_winkler(&plain(name), &plain(known)), *known));
    let best = scored.max_by(|one, other| one.0.total_cmp(&other.0));
    best.filter(|(score, _)| *score > 0.8).map(|(_, known)| known)
}

fn listed(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}
