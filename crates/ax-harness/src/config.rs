//! Reading the `harness` section of a manifest.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// What is wrong with a `harness` section.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {cause}")]
pub struct ConfigError {
    /// The field, from the manifest's root, such as `harness.model.name`.
    pub path: String,
    /// What is wrong with it.
    pub cause: String,
    /// What may be meant instead.
    pub suggestion: Option<String>,
}

impl ConfigError {
    /// Says what is wrong with a field below `harness`.
    pub(crate) fn new(field: &str, cause: impl Into<String>) -> Self {
        let path = if field.is_empty() || field == "." {
            "harness".to_owned()
        } else {
            format!("harness.{field}")
        };
        Self { path, cause: cause.into(), suggestion: None }
    }

    /// Adds what may be meant instead.
    #[must_use]
    pub(crate) fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }
}

/// Reads a section; says which field is wrong if one is.
pub(crate) fn parse<T: DeserializeOwned>(section: &Value) -> Result<T, ConfigError> {
    serde_path_to_error::deserialize(section).map_err(|error| {
        let cause = error.inner().to_string();
        let wrong = ConfigError::new(&error.path().to_string(), cause.clone());
        match closest_in(&cause) {
            Some(name) => wrong.suggest(format!("did you mean `{name}`?")),
            None => wrong,
        }
    })
}

/// Checks what a manifest adds to the environment.
pub(crate) fn check_variable(name: &str, value: &str) -> Result<(), ConfigError> {
    let field = format!("env.{name}");
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(ConfigError::new(&field, "is not the name of an environment variable"));
    }
    if name.starts_with("AX_") {
        return Err(ConfigError::new(&field, "names that begin with AX_ are set by the runtime")
            .suggest("choose another name, or hand the value over in `config`"));
    }
    if value.contains('\0') {
        return Err(ConfigError::new(&field, "contains a NUL character"));
    }
    Ok(())
}

/// Returns which of `candidates` a misspelt name is closest to, if one is close.
pub(crate) fn closest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let scored = candidates.into_iter().map(|known| (strsim::jaro_winkler(name, known), known));
    let best = scored.max_by(|one, other| one.0.total_cmp(&other.0));
    best.filter(|(score, _)| *score > 0.7).map(|(_, known)| known)
}

/// A message about an unknown name puts it in backticks, and after it all that are known.
pub(crate) fn closest_in(cause: &str) -> Option<&str> {
    if !cause.starts_with("unknown ") {
        return None;
    }
    let mut names = cause.split('`').skip(1).step_by(2);
    closest(names.next()?, names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[expect(dead_code, reason = "only its place in the section matters")]
        model: Inner,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only its place in the section matters")]
        name: String,
    }

    #[test]
    fn a_misspelt_field_is_named_with_what_may_be_meant() {
        let error = parse::<Outer>(&json!({"model": {"nam": "x"}})).unwrap_err();
        assert_eq!(error.path, "harness.model.nam");
        assert_eq!(error.suggestion.as_deref(), Some("did you mean `name`?"));
    }

    #[test]
    fn a_wrong_type_is_named() {
        let error = parse::<Outer>(&json!({"model": {"name": 3}})).unwrap_err();
        assert_eq!(
            error.to_string(),
            "harness.model.name: invalid type: integer `3`, expected a string"
        );
        assert_eq!(error.suggestion, None);
    }
}
