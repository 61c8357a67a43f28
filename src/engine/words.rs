//! Which units have words in common with a question? What attention finds goes by meaning, and at times
//! passes by the one place that has the question's rarest word. Units are scored by BM25 (Robertson and
//! Zaragoza, 2009), with tokens for words, case and spaces aside, and two in a row for what only makes
//! a word together: so every language, and every number, has them.

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

/// What units share with a question.
#[derive(Debug, Default)]
pub(super) struct SharedWords {
    /// `[unit]`: how much; 0 where it shares none.
    pub scores: Vec<f32>,
    /// `[unit]`: where in the unit that stands on average, rare words counting more, from 0 (its first
    /// token) to 1; 0.5 where it shares none.
    pub places: Vec<f32>,
}

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

    /// How much each unit, of tokens `units`, shares with `question`: words that are none of
    /// `neutral`, and two of them in a row.
    ///
    /// # Errors
    /// When the tokens cannot be read back.
    pub fn shared(
        &self,
        (question, neutral): (&[TokenId], &[TokenId]),
        sources: &Sources,
        units: &[Range<usize>],
    ) -> Result<SharedWords, StoreError> {
        let terms = Terms::new(self, question, neutral);
        let found = if terms.n == 0 { Vec::new() } else { count(&terms, sources, units)? };
        let mut n_with = vec![0u32; terms.n];
        found.iter().for_each(|found| n_with[found.term] += 1);
        // The logarithm of how rare it is.
        let rarity = |n_with: &u32| {
            let n_with = *n_with as f32;
            (1.0 + (units.len() as f32 - n_with + 0.5) / (n_with + 0.5)).ln()
        };
        let rarities: Vec<f32> = n_with.iter().map(rarity).collect();
        let mut scores = vec![0.0; units.len()];
        let mut stand = vec![(0.0, 0.0); units.len()]; // [unit]: weighted places, and weights
        for Found { unit, term, count, places } in found {
            let (rarity, count) = (rarities[term], count as f32);
            scores[unit] += rarity * count * (SATURATION + 1.0) / (count + SATURATION);
            stand[unit].0 += rarity * places as f32 / units[unit].len() as f32;
            stand[unit].1 += rarity * count;
        }
        let mean =
            |(places, weights): (f32, f32)| if weights > 0.0 { places / weights } else { 0.5 };
        Ok(SharedWords { scores, places: stand.into_iter().map(mean).collect() })
    }
}

/// What is looked for: words, then pairs of words.
struct Terms {
    word_of: Vec<u32>,      // [token]: which of the words; none from `n_words` on
    pairs: Vec<(u32, u32)>, // sorted
    n_words: usize,
    n: usize,
}

impl Terms {
    fn new(words: &Words, question: &[TokenId], neutral: &[TokenId]) -> Self {
        let word = |id: &TokenId| words.word_of.get(id.0 as usize).copied().unwrap_or(NONE);
        let mut sought: Vec<u32> = question.iter().map(word).collect();
        sought.sort_unstable();
        sought.dedup();
        sought.retain(|sought| *sought != NONE && !neutral.iter().any(|id| word(id) == *sought));
        let n_words = sought.len();
        let which = |word: &u32| sought.binary_search(word).unwrap_or(n_words) as u32;
        let word_of: Vec<u32> = words.word_of.iter().map(which).collect();
        let is_word = |which: u32| (which as usize) < n_words;
        let in_question = |id: &TokenId| which(&word(id));
        let pairs = question.windows(2).map(|two| (in_question(&two[0]), in_question(&two[1])));
        let mut pairs: Vec<_> = pairs.filter(|pair| is_word(pair.0) && is_word(pair.1)).collect();
        pairs.sort_unstable();
        pairs.dedup();
        Self { n: n_words + pairs.len(), word_of, pairs, n_words }
    }

    /// The word that a token is, if it is looked for.
    fn word(&self, id: TokenId) -> Option<u32> {
        let which = self.word_of.get(id.0 as usize).copied();
        which.filter(|which| (*which as usize) < self.n_words)
    }

    /// The term that two words in a row are.
    fn pair(&self, first: u32, second: u32) -> Option<usize> {
        self.pairs.binary_search(&(first, second)).ok().map(|at| self.n_words + at)
    }
}

/// A term that a unit has.
struct Found {
    unit: usize,
    term: usize,
    count: u32,
    places: usize, // the sum of its tokens' places in the unit
}

/// Counts terms, unit by unit.
fn count(
    terms: &Terms,
    sources: &Sources,
    units: &[Range<usize>],
) -> Result<Vec<Found>, StoreError> {
    let mut found: Vec<Found> = Vec::new();
    let mut at = vec![usize::MAX; terms.n]; // [term]: where the unit's count of it is
    let (mut unit, mut first_of_unit) = (0, 0);
    let mut before = None;
    for first in (0..sources.n_tokens()).step_by(AT_ONCE) {
        let end = (first + AT_ONCE).min(sources.n_tokens());
        for (token, (id, _)) in (first..end).zip(sources.tokens(first..end)?) {
            while units.get(unit).is_some_and(|range| range.end <= token) {
                found[first_of_unit..].iter().for_each(|found| at[found.term] = usize::MAX);
                (unit, first_of_unit) = (unit + 1, found.len());
            }
            let Some(range) = units.get(unit) else { return Ok(found) };
            let word = terms.word(id);
            let pair = before.zip(word).and_then(|(before, word)| terms.pair(before, word));
            before = word;
            let of_token = word.map(|word| word as usize).into_iter().chain(pair);
            for term in of_token.filter(|_| token >= range.start) {
                if at[term] == usize::MAX {
                    at[term] = found.len();
                    found.push(Found { unit, term, count: 0, places: 0 });
                }
                found[at[term]].count += 1;
                found[at[term]].places += token - range.start;
            }
        }
    }
    Ok(found)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ByteSpan;

    const NOWHERE: ByteSpan = ByteSpan { start: 0, end: 0 };

    /// Tokens of ten words in two spellings, and one that is none.
    fn words() -> Words {
        Words { word_of: (0..20).map(|token| token % 10).chain([NONE]).collect() }
    }

    fn sources(ids: &[TokenId]) -> Sources {
        let mut sources = Sources::in_memory().unwrap();
        sources.add(ids.iter().map(|id| (*id, NOWHERE))).unwrap();
        sources
    }

    /// The definition, term by term and unit by unit: scores, and places.
    fn by_definition(
        (question, neutral): (&[TokenId], &[TokenId]),
        text: &[TokenId],
        units: &[Range<usize>],
    ) -> Vec<(f32, f32)> {
        let word = |id: &TokenId| (id.0 < 20).then_some(id.0 % 10);
        let sought = |id: &TokenId| {
            word(id).filter(|word_| !neutral.iter().any(|id| word(id) == Some(*word_)))
        };
        let pair = |two: &[TokenId]| sought(&two[0]).zip(sought(&two[1]));
        let mut scores = vec![0.0; units.len()];
        let mut stands: Vec<Vec<(f32, f32)>> = vec![Vec::new(); units.len()]; // where, and how rare
        let mut add = |is_it: &dyn Fn(&usize) -> bool| {
            let found: Vec<Vec<usize>> =
                units.iter().map(|unit| unit.clone().filter(is_it).collect()).collect();
            let n_with = found.iter().filter(|found| !found.is_empty()).count() as f32;
            let rarity = (1.0 + (units.len() as f32 - n_with + 0.5) / (n_with + 0.5)).ln();
            for (unit, found) in found.iter().enumerate() {
                let count = found.len() as f32;
                scores[unit] += rarity * count * 2.2 / (count + 1.2);
                let place = |at: &usize| (at - units[unit].start) as f32 / units[unit].len() as f32;
                stands[unit].extend(found.iter().map(|at| (place(at), rarity)));
            }
        };
        let mut singles: Vec<u32> = question.iter().filter_map(sought).collect();
        singles.sort_unstable();
        singles.dedup();
        for single in singles {
            add(&|at| sought(&text[*at]) == Some(single));
        }
        let mut pairs: Vec<(u32, u32)> = question.windows(2).filter_map(pair).collect();
        pairs.sort_unstable();
        pairs.dedup();
        for wanted in pairs {
            add(&|at| *at > 0 && pair(&text[at - 1..=*at]) == Some(wanted));
        }
        let place = |stands: Vec<(f32, f32)>| match stands.is_empty() {
            true => 0.5,
            false => {
                let weights: f32 = stands.iter().map(|(_, rarity)| rarity).sum();
                stands.iter().map(|(place, rarity)| place * rarity).sum::<f32>() / weights
            }
        };
        scores.into_iter().zip(stands.into_iter().map(place)).collect()
    }

    #[test]
    fn units_share_what_the_definition_says() {
        let mut rng = fastrand::Rng::with_seed(3);
        for n_tokens in [0, 7, 300, 3 * AT_ONCE + 5] {
            let mut ids = |n: usize| -> Vec<TokenId> {
                (0..n).map(|_| TokenId(rng.u32(0..25).min(20))).collect()
            };
            let (text, question, neutral) = (ids(n_tokens), ids(9), ids(2));
            // The first tokens are sinks, the last of no unit yet, and lengths differ.
            let ends = (1..).map(|unit| 5 + unit * 13 + unit % 3);
            let ends: Vec<usize> = ends.take_while(|end| *end <= n_tokens).collect();
            let starts = [5].into_iter().chain(ends.iter().copied());
            let units: Vec<Range<usize>> = starts.zip(&ends).map(|(a, b)| a..*b).collect();
            let shared = words().shared((&question, &neutral), &sources(&text), &units).unwrap();
            let expected = by_definition((&question, &neutral), &text, &units);
            assert_eq!((shared.scores.len(), shared.places.len()), (units.len(), units.len()));
            for (unit, (score, place)) in expected.iter().enumerate() {
                let found = (shared.scores[unit], shared.places[unit]);
                let is_close = (found.0 - score).abs() < 1e-3 && (found.1 - place).abs() < 1e-4;
                assert!(is_close, "{unit}: {found:?}, not {score} at {place}");
            }
            assert!(n_tokens < 300 || expected.iter().any(|(score, _)| *score > 0.0));
        }
    }

    #[test]
    fn a_question_of_no_words_shares_none() {
        let text = sources(&[TokenId(1), TokenId(20), TokenId(2)]);
        for question in [&[][..], &[TokenId(20)], &[TokenId(11)]] {
            let shared = words().shared((question, &[TokenId(1)]), &text, &[0..3, 3..3]).unwrap();
            assert_eq!((shared.scores, shared.places), (vec![0.0; 2], vec![0.5; 2]));
        }
    }
}
