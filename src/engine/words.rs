//! Which units have words in common with a question? What attention finds goes by meaning, and at times
//! passes by the one place that has the question's rarest word. Units are scored by BM25 (Robertson and
//! Zaragoza, 2009), with tokens for words, case and spaces aside: so every language has them.

use std::collections::HashMap;
use std::ops::Range;

use super::sources::Sources;
use crate::ids::TokenId;
use crate::memory::StoreError;
use crate::tokenizer::Tokenizer;

/// How fast repetitions of a word in a unit stop to count, `k1` of BM25.
const SATURATION: f32 = 1.2;

/// Tokens read at once.
const AT_ONCE: usize = 4096;

/// Stands for tokens that are no words.
const NONE: u32 = u32::MAX;

/// Which tokens are the same word.
pub(super) struct Words {
    word_of: Vec<u32>, // [token]
}

impl Words {
    /// The words of a vocabulary.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        let mut known: HashMap<Vec<u8>, u32> = HashMap::new();
        let mut word_of = |token: u32| {
            let Some(word) = word(tokenizer, TokenId(token)) else { return NONE };
            let next = known.len() as u32;
            *known.entry(word).or_insert(next)
        };
        Self { word_of: (0..tokenizer.vocab_size() as u32).map(&mut word_of).collect() }
    }

    /// How much each unit, of tokens `units`, shares with the words of `question` that are none of
    /// `neutral`: `[unit]`, 0 where it shares none.
    ///
    /// # Errors
    /// When the tokens cannot be read back.
    pub fn shared(
        &self,
        (question, neutral): (&[TokenId], &[TokenId]),
        sources: &Sources,
        units: &[Range<usize>],
    ) -> Result<Vec<f32>, StoreError> {
        let terms = Terms::new(self, question, neutral);
        let mut counts = vec![0u16; units.len() * terms.n];
        if terms.n > 0 {
            count(&terms, sources, (units, &mut counts))?;
        }
        let mut n_with = vec![0u32; terms.n];
        for of_unit in counts.chunks_exact(terms.n.max(1)) {
            for (n_with, count) in n_with.iter_mut().zip(of_unit) {
                *n_with += u32::from(*count > 0);
            }
        }
        // The logarithm of how rare a word is.
        let rarity = |n_with: &u32| {
            let n_with = *n_with as f32;
            (1.0 + (units.len() as f32 - n_with + 0.5) / (n_with + 0.5)).ln()
        };
        let rarities: Vec<f32> = n_with.iter().map(rarity).collect();
        let score = |of_unit: &[u16]| {
            let of_terms = of_unit.iter().zip(&rarities).map(|(count, rarity)| {
                let count = f32::from(*count);
                rarity * count * (SATURATION + 1.0) / (count + SATURATION)
            });
            of_terms.sum()
        };
        match terms.n {
            0 => Ok(vec![0.0; units.len()]),
            n => Ok(counts.chunks_exact(n).map(score).collect()),
        }
    }
}

/// The words that are looked for.
struct Terms {
    term_of: Vec<u16>, // [token]; `n` for none
    n: usize,
}

impl Terms {
    fn new(words: &Words, question: &[TokenId], neutral: &[TokenId]) -> Self {
        let word = |id: &TokenId| words.word_of.get(id.0 as usize).copied().unwrap_or(NONE);
        let mut sought: Vec<u32> = question.iter().map(word).collect();
        sought.sort_unstable();
        sought.dedup();
        sought.retain(|sought| *sought != NONE && !neutral.iter().any(|id| word(id) == *sought));
        sought.truncate(usize::from(u16::MAX));
        let n = sought.len();
        let term = |word: &u32| sought.binary_search(word).unwrap_or(n) as u16;
        Self { term_of: words.word_of.iter().map(term).collect(), n }
    }
}

/// Counts terms, `counts` being `[unit][term]`.
fn count(
    terms: &Terms,
    sources: &Sources,
    (units, counts): (&[Range<usize>], &mut [u16]),
) -> Result<(), StoreError> {
    let mut unit = 0;
    for first in (0..sources.n_tokens()).step_by(AT_ONCE) {
        let end = (first + AT_ONCE).min(sources.n_tokens());
        for (token, (id, _)) in (first..end).zip(sources.tokens(first..end)?) {
            while units.get(unit).is_some_and(|range| range.end <= token) {
                unit += 1;
            }
            let Some(range) = units.get(unit) else { return Ok(()) };
            let term = terms.term_of.get(id.0 as usize).map_or(terms.n, |term| usize::from(*term));
            if token >= range.start && term < terms.n {
                let count = &mut counts[unit * terms.n + term];
                *count = count.saturating_add(1);
            }
        }
    }
    Ok(())
}

/// What makes a token a word: its letters and digits, or the bytes of a part of a character.
fn word(tokenizer: &Tokenizer, id: TokenId) -> Option<Vec<u8>> {
    let bytes = match tokenizer.is_control(id) {
        true => return None,
        false => tokenizer.piece(id),
    };
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().any(char::is_alphanumeric) => {
            Some(text.trim().to_lowercase().into_bytes())
        }
        Ok(_) => None,
        Err(_) => Some(bytes.to_vec()),
    }
}
