//! How does plain text become tokens? The library normalises, splits and merges; here long texts
//! are cut into slices first, so that time and memory stay linear and every core can help.
//!
//! A slice begins at a space between two ASCII letters. Both known kinds of tokenizer always
//! split there: the splitting rules start a word at such a space, and SentencePiece vocabularies
//! that have no token with a space after a letter (checked when opened) cannot merge across it.
//! So slices give the very tokens that the whole text gives; where that is not known, the text
//! is not cut.

use std::ops::Range;

use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;

use crate::ids::{ByteSpan, TokenId};

/// What a slice of a long text aims to hold, in bytes.
const SLICE_BYTES: usize = 64 << 10;

/// Tokens, and where each came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// The tokens.
    pub ids: Vec<TokenId>,
    /// `[token]`, the bytes of the text that it stands for. Spans lie on character borders: tokens
    /// that share a character have the same span, and a token that stands for nothing in the text
    /// has an empty one.
    pub spans: Vec<ByteSpan>,
}

impl Encoded {
    /// Adds one token.
    pub(super) fn push(&mut self, id: TokenId, span: ByteSpan) {
        self.ids.push(id);
        self.spans.push(span);
    }

    fn append(&mut self, mut other: Self) {
        self.ids.append(&mut other.ids);
        self.spans.append(&mut other.spans);
    }
}

/// The space that some tokenizers put before a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    /// The space, as the vocabulary writes it.
    pub space: &'static str,
    pub scope: PrefixScope,
    /// Whether text that begins with a space gets none.
    pub spares_spaced: bool,
}

/// Before which texts the space is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PrefixScope {
    None,
    /// The beginning of the whole text.
    TextStart,
    /// That, and what follows each added token.
    EveryRun,
}

impl Prefix {
    /// No space before anything.
    pub const NONE: Self = Self { space: "", scope: PrefixScope::None, spares_spaced: false };

    /// What to put before `run`, which begins at `start` of the text.
    fn before(&self, run: &str, start: usize) -> &'static str {
        let applies = match self.scope {
            PrefixScope::None => false,
            PrefixScope::TextStart => start == 0,
            PrefixScope::EveryRun => true,
        };
        let is_spared = self.spares_spaced && run.starts_with([' ', super::pieces::METASPACE]);
        if applies && !is_spared { self.space } else { "" }
    }
}

/// The tokenizer of plain text: no added tokens, nothing put before or after.
#[derive(Debug)]
pub(super) struct Words {
    library: tokenizers::Tokenizer,
    prefix: Prefix,
    /// Whether it splits at the borders described above.
    is_sliceable: bool,
}

/// What [`Words`] is made of.
pub(super) struct WordRules {
    pub normalizer: Option<NormalizerWrapper>,
    pub pre_tokenizer: Option<PreTokenizerWrapper>,
    pub merges: BPE,
    pub prefix: Prefix,
    pub is_sliceable: bool,
}

impl Words {
    /// Puts the rules together.
    pub fn new(rules: WordRules) -> Self {
        let mut library = tokenizers::Tokenizer::new(rules.merges);
        library
            .with_normalizer(rules.normalizer)
            .expect("because only added tokens can refuse a normalizer, and there are none");
        library.with_pre_tokenizer(rules.pre_tokenizer);
        Self { library, prefix: rules.prefix, is_sliceable: rules.is_sliceable }
    }

    /// Encodes `span` of `text` and appends it to `out`.
    pub fn encode(&self, text: &str, span: ByteSpan, out: &mut Encoded) {
        let run = &text[span.start..span.end];
        let slices = if self.is_sliceable {
            slices(run, SLICE_BYTES)
        } else {
            std::iter::once(0..run.len()).collect()
        };
        for encoded in self.encode_slices(run, span.start, &slices) {
            out.append(encoded);
        }
    }

    /// The slices of a run, in order, on as many threads as there are cores (and slices).
    fn encode_slices(&self, run: &str, run_start: usize, slices: &[Range<usize>]) -> Vec<Encoded> {
        let encode = |slice: &Range<usize>| self.encode_slice(run, run_start, slice.clone());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        if slices.len() == 1 || cores == 1 {
            return slices.iter().map(encode).collect();
        }
        let share = slices.len().div_ceil(cores);
        std::thread::scope(|scope| {
            let workers: Vec<_> = slices
                .chunks(share)
                .map(|share| scope.spawn(move || share.iter().map(encode).collect::<Vec<_>>()))
                .collect();
            let results = workers.into_iter().map(|worker| match worker.join() {
                Ok(encoded) => encoded,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            results.flatten().collect()
        })
    }

    fn encode_slice(&self, run: &str, run_start: usize, slice: Range<usize>) -> Encoded {
        let slice_start = run_start + slice.start;
        let prefix = if slice.start == 0 { self.prefix.before(run, run_start) } else { "" };
        let text = &run[slice];
        let encoding = if prefix.is_empty() {
            self.library.encode(text, false)
        } else {
            self.library.encode(format!("{prefix}{text}"), false)
        };
        let encoding = encoding.expect(
            "because the library refuses no text: unknown letters were checked to have a token, \
             and normalizers and splitters that can fail are not supported",
        );
        // Offsets count the prefix; the text does not have it.
        let place = |offset: usize| slice_start + offset.saturating_sub(prefix.len());
        let spans = encoding.get_offsets().iter();
        let spans = spans.map(|&(start, end)| ByteSpan { start: place(start), end: place(end) });
        let ids = encoding.get_ids().iter().map(|&id| TokenId(id));
        Encoded { ids: ids.collect(), spans: spans.collect() }
    }
}

/// Cuts `text` into slices of at least `slice_bytes`, the last one excepted.
fn slices(text: &str, slice_bytes: usize) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let is_border = |at: usize| {
        bytes[at] == b' '
            && bytes[at - 1].is_ascii_alphabetic()
            && bytes[at + 1].is_ascii_alphabetic()
    };
    let mut slices = Vec::new();
    let mut start = 0;
    loop {
        let from = start + slice_bytes.max(1);
        match (from..bytes.len().saturating_sub(1)).find(|&at| is_border(at)) {
            Some(end) => {
                slices.push(start..end);
                start = end;
            }
            None => {
                slices.push(start..bytes.len());
                return slices;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, slice_bytes: usize, expected: &[&str]) {
        let cut = slices(text, slice_bytes);
        let texts: Vec<&str> = cut.into_iter().map(|slice| &text[slice]).collect();
        assert_eq!(texts, expected, "{text:?} in {slice_bytes}");
    }

    #[test]
    fn slices_begin_at_a_space_between_letters_and_nowhere_else() {
        check("one two three", 1, &["one", " two", " three"]);
        check("one two three", 4, &["one two", " three"]);
        check("one two three", 99, &["one two three"]);
        check("one  two, three\n four 5 six é seven", 1, &["one  two, three\n four 5 six é seven"]);
        check("", 1, &[""]);
        check(" ", 1, &[" "]);
        check("a ", 1, &["a "]);
    }

    #[test]
    fn a_prefix_is_put_where_its_scope_and_the_text_allow() {
        let prefix = |scope, spares_spaced| Prefix { space: "_", scope, spares_spaced };
        let cases = [
            (Prefix::NONE, "a", 0, ""),
            (prefix(PrefixScope::TextStart, false), "a", 0, "_"),
            (prefix(PrefixScope::TextStart, false), "a", 3, ""),
            (prefix(PrefixScope::EveryRun, false), " a", 3, "_"),
            (prefix(PrefixScope::EveryRun, true), " a", 3, ""),
            (prefix(PrefixScope::EveryRun, true), "▁a", 3, ""),
            (prefix(PrefixScope::EveryRun, true), "a", 3, "_"),
        ];
        for (prefix, run, start, expected) in cases {
            assert_eq!(prefix.before(run, start), expected, "{prefix:?} before {run:?} at {start}");
        }
    }
}
