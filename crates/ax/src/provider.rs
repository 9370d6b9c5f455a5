//! Providers of models, and whether there is a key for one.

/// A provider that the built-in harness knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Provider {
    /// Its name in a manifest.
    pub(crate) name: &'static str,
    /// A model of it that is up to the task of the demo.
    pub(crate) model: &'static str,
    /// The environment variable that its key is looked for in.
    pub(crate) key: &'static str,
}

impl Provider {
    pub(crate) const ANTHROPIC: Self =
        Self { name: "anthropic", model: "claude-haiku-4-5", key: "ANTHROPIC_API_KEY" };
    const OPENAI: Self = Self { name: "openai", model: "gpt-5-mini", key: "OPENAI_API_KEY" };
    const GEMINI: Self = Self { name: "gemini", model: "gemini-2.5-flash", key: "GEMINI_API_KEY" };

    /// Every provider.
    pub(crate) const ALL: [Self; 3] = [Self::ANTHROPIC, Self::OPENAI, Self::GEMINI];

    /// Whether a key is set. The key itself is never looked at.
    pub(crate) fn has_key(&self) -> bool {
        std::env::var_os(self.key).is_some_and(|key| !key.is_empty())
    }

    /// The first provider that there is a key for.
    pub(crate) fn find() -> Option<Self> {
        Self::ALL.into_iter().find(Self::has_key)
    }
}
