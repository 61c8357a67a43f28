//! Who is calling? Keys are kept as hashes, each with its tenant; whose request it is is decided here
//! and nowhere else.

use std::fmt;

use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Whose requests are without keys.
pub const LOCAL_TENANT: &str = "local";

/// A tenant: its contexts, its quota, its measures.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(pub String);

/// The keys that are known; without any, everybody on this machine is the local tenant.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    hash: [u8; 32],
    tenant: Tenant,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.tenant.0)
    }
}

/// The file of keys: `[[key]]` tables.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    #[serde(default)]
    key: Vec<KeyEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    tenant: String,
    /// SHA-256 of the key, in hexadecimal digits.
    sha256: String,
}

impl Keys {
    /// The keys of a file's text.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: KeyFile = toml::from_str(text).map_err(|error| error.to_string())?;
        let keys = file.key.into_iter().enumerate().map(|(i, entry)| {
            let wrong = |what: &str| format!("key {}: {what}", i + 1);
            if !is_tenant(&entry.tenant) {
                return Err(wrong("tenant must be 1 to 64 letters, digits, '-', '_' or '.'"));
            }
            let hash = from_hex(&entry.sha256)
                .ok_or_else(|| wrong("sha256 must be 64 hexadecimal digits; see mneme key"))?;
            Ok(Key { hash, tenant: Tenant(entry.tenant) })
        });
        Ok(Self { keys: keys.collect::<Result<_, _>>()? })
    }

    /// These, and a key in clear for the local tenant, as the environment gives it.
    #[must_use]
    pub fn with_local(mut self, key: &str) -> Self {
        self.keys.push(Key { hash: hash(key), tenant: Tenant(LOCAL_TENANT.to_owned()) });
        self
    }

    /// Whether nobody needs one.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whose key it is. Takes as long for any key: all are compared, each byte of them.
    pub fn tenant_of(&self, key: &str) -> Option<&Tenant> {
        let hash = hash(key);
        let mut found = None;
        for known in &self.keys {
            let differing = known.hash.iter().zip(&hash).fold(0, |all, (a, b)| all | (a ^ b));
            // The optimiser must not leave the comparison early.
            if std::hint::black_box(differing) == 0 {
                found = Some(&known.tenant);
            }
        }
        found
    }
}

/// Whether it can name a tenant.
pub fn is_tenant(name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=64).contains(&name.len()) && name.chars().all(is_letter)
}

/// What the file keeps of a key, in hexadecimal digits.
pub fn hash_in_hex(key: &str) -> String {
    hash(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_its_tenant_and_no_other_key_has() {
        let text = format!(
            "[[key]]\ntenant = \"a\"\nsha256 = \"{}\"\n[[key]]\ntenant = \"b\"\nsha256 = \"{}\"\n",
            hash_in_hex("mn-one"),
            hash_in_hex("mn-two")
        );
        let keys = Keys::parse(&text).unwrap().with_local("mn-three");
        let tenant = |key| keys.tenant_of(key).map(|tenant| tenant.0.as_str());
        assert_eq!(tenant("mn-one"), Some("a"));
        assert_eq!(tenant("mn-two"), Some("b"));
        assert_eq!(tenant("mn-three"), Some(LOCAL_TENANT));
        for wrong in ["", "mn-on", "mn-one ", &hash_in_hex("mn-one")] {
            assert_eq!(tenant(wrong), None, "{wrong:?}");
        }
        assert!(!format!("{keys:?}").contains("mn-three"));
    }

    #[test]
    fn a_file_with_a_mistake_says_which_key() {
        let good = hash_in_hex("x");
        for (text, word) in [
            ("[[key]]\ntenant = \"a\"\nsha256 = \"12\"\n".to_owned(), "key 1"),
            (format!("[[key]]\ntenant = \"a/b\"\nsha256 = \"{good}\"\n"), "tenant"),
            ("[[key]]\ntenant = \"a\"\nkey = \"12\"\n".to_owned(), "line 3"),
        ] {
            let error = Keys::parse(&text).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        assert!(Keys::parse("").unwrap().is_empty());
    }
}
