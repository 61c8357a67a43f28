//! How is a vocabulary checked, and turned into merges that the library runs? What every source
//! has in common: texts with ids, pairs to merge in order, and a way out for unknown letters.

use std::collections::HashMap;

use tokenizers::models::bpe::{BPE, Vocab};

use super::error::{VocabularyFault, shorten};
use super::pieces::Alphabet;

/// A byte pair encoding as a file gives it.
pub(super) struct Vocabulary<'a> {
    /// The key that holds the tokens, for messages.
    pub tokens_key: &'static str,
    /// The key that holds the merges, for messages.
    pub merges_key: &'static str,
    /// Tokens that text is cut into, with their ids. No control tokens.
    pub tokens: Vec<(&'a str, u32)>,
    /// Pairs to merge, the most urgent first, each with the entry that it came from.
    pub merges: Vec<(&'a str, &'a str)>,
    pub alphabet: Alphabet,
    /// What letters outside the vocabulary become; without it they are dropped.
    pub unknown: Option<&'a str>,
    /// Whether several unknown letters in a row become one unknown token.
    pub fuses_unknown: bool,
    /// Whether a word that is a token is taken whole, whatever the merges say.
    pub ignores_merges: bool,
}

impl<'a> Vocabulary<'a> {
    /// Checks everything and builds the library's model.
    pub fn build(self) -> Result<BPE, VocabularyFault> {
        if self.tokens.is_empty() {
            return Err(VocabularyFault::Empty { key: self.tokens_key });
        }
        let ids = self.ids()?;
        self.check_merges(&ids)?;
        self.check_fallback(&ids)?;
        let vocab = self.tokens.iter().map(|&(text, id)| (text.to_owned(), id));
        let merges = self.merges.iter().map(|&(a, b)| (a.to_owned(), b.to_owned())).collect();
        let mut builder = BPE::builder()
            .vocab_and_merges(vocab.collect::<Vocab>(), merges)
            .byte_fallback(self.alphabet == Alphabet::Metaspace)
            .fuse_unk(self.fuses_unknown)
            .ignore_merges(self.ignores_merges);
        if let Some(unknown) = self.unknown {
            builder = builder.unk_token(unknown.to_owned());
        }
        builder.build().map_err(|error| VocabularyFault::Json { message: error.to_string() })
    }

    /// The id of every text, each text once and each id once.
    fn ids(&self) -> Result<HashMap<&'a str, u32>, VocabularyFault> {
        let key = self.tokens_key;
        let mut ids = HashMap::with_capacity(self.tokens.len());
        let mut texts = HashMap::with_capacity(self.tokens.len());
        for &(text, id) in &self.tokens {
            if let Some(other) = ids.insert(text, id) {
                let (first, second) = (other.min(id), other.max(id));
                return Err(VocabularyFault::DuplicateToken {
                    key,
                    text: shorten(text),
                    first,
                    second,
                });
            }
            if let Some(other) = texts.insert(id, text) {
                let (first, second) = (shorten(other), shorten(text));
                return Err(VocabularyFault::DuplicateId { key, id, first, second });
            }
        }
        Ok(ids)
    }

    /// Every merge joins two tokens into a third.
    fn check_merges(&self, ids: &HashMap<&str, u32>) -> Result<(), VocabularyFault> {
        for (idx, &(left, right)) in self.merges.iter().enumerate() {
            let joined = format!("{left}{right}");
            for part in [left, right, &joined] {
                if !ids.contains_key(part) {
                    return Err(VocabularyFault::UnknownInMerge {
                        key: self.merges_key,
                        idx,
                        merge: shorten(&format!("{left} {right}")),
                        missing: shorten(part),
                    });
                }
            }
        }
        Ok(())
    }

    /// Ordinary letters all have a token. The library drops what has none, as other engines do:
    /// real vocabularies lack a few bytes that text hardly holds, such as 0x04.
    fn check_fallback(&self, ids: &HashMap<&str, u32>) -> Result<(), VocabularyFault> {
        if self.unknown.is_some_and(|unknown| ids.contains_key(unknown)) {
            return Ok(());
        }
        for token in (b' '..=b'~').chain([b'\n']).map(|byte| self.alphabet.token_of_byte(byte)) {
            if !ids.contains_key(token.as_str()) {
                let key = self.tokens_key;
                return Err(VocabularyFault::NoFallback { key, missing: token });
            }
        }
        Ok(())
    }
}
