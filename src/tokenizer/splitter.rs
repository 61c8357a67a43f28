//! Where are words split before their letters are merged? A GGUF file gives only the name of the
//! rule; the rules are llama.cpp's, which are those that the models were trained with.

use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;

/// One way of splitting.
#[derive(Debug)]
pub(super) struct Splitter {
    /// What `tokenizer.ggml.pre` calls it.
    names: &'static [&'static str],
    /// Applied one after another, each to the pieces that the one before left; matches and what
    /// lies between them become pieces.
    patterns: &'static [&'static str],
    /// Whether a word that is a token is taken whole, whatever the merges say.
    pub ignores_merges: bool,
}

const DIGIT: &str = r"\p{N}";
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|",
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// The rules, commonest first.
const TABLE: [Splitter; 6] = [
    Splitter {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        patterns: &[DIGIT, GPT2],
        ignores_merges: false,
    },
    Splitter {
        names: &["llama-bpe", "llama-v3", "llama3", "falcon3", "pixtral"],
        patterns: &[LLAMA3],
        ignores_merges: true,
    },
    Splitter {
        names: &["qwen2", "deepseek-r1-qwen", "stablelm2", "megrez"],
        patterns: &[QWEN2],
        ignores_merges: false,
    },
    Splitter { names: &["tekken"], patterns: &[TEKKEN], ignores_merges: true },
    Splitter {
        names: &["gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion"],
        patterns: &[GPT2],
        ignores_merges: false,
    },
    Splitter {
        names: &["default"],
        patterns: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"],
        ignores_merges: false,
    },
];

impl Splitter {
    /// The rule of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TABLE.iter().find(|splitter| splitter.names.contains(&name))
    }

    /// Every name that [`named`](Self::named) knows, for messages.
    pub fn supported() -> String {
        let names: Vec<&str> = TABLE.iter().flat_map(|splitter| splitter.names).copied().collect();
        names.join(", ")
    }

    /// The rule as the library runs it, byte alphabet included.
    pub fn pre_tokenizer(&self) -> PreTokenizerWrapper {
        let mut steps = Vec::new();
        for &pattern in self.patterns {
            let pattern = SplitPattern::Regex(pattern.to_owned());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
            steps.push(split.expect("because a test compiles every pattern of the table").into());
        }
        steps.push(ByteLevel::new(false, false, false).into());
        Sequence::new(steps).into()
    }
}

/// Whether a pattern is known to split `…letter letter…` before the space, whatever is around:
/// then a long text may be cut there and encoded in slices.
pub(super) fn splits_before_spaced_words(pattern: &str) -> bool {
    TABLE.iter().any(|splitter| splitter.patterns.contains(&pattern))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::tokenizer::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    fn check(name: &str, text: &str, expected: &[&str]) {
        let mut pieces = PreTokenizedString::from(text);
        let splitter = Splitter::named(name).unwrap();
        splitter.pre_tokenizer().pre_tokenize(&mut pieces).unwrap();
        let offsets = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        let words: Vec<&str> =
            offsets.iter().map(|(_, (start, end), _)| &text[*start..*end]).collect();
        assert_eq!(words, expected, "{name}");
    }

    #[test]
    fn every_rule_of_the_table_compiles() {
        for name in TABLE.iter().flat_map(|splitter| splitter.names) {
            Splitter::named(name).unwrap().pre_tokenizer();
        }
        assert!(Splitter::named("no-such-rule").is_none());
        assert!(Splitter::supported().contains("smollm, starcoder"));
    }

    #[test]
    fn rules_differ_in_digits_spaces_and_capitals() {
        let text = "I'LL pay 12345\n\n  now!!\n";
        let gpt2 = ["I", "'", "LL", " pay", " 12345", "\n\n ", " now", "!!", "\n"];
        check("gpt-2", text, &gpt2);
        let smollm =
            ["I", "'", "LL", " pay", " ", "1", "2", "3", "4", "5", "\n\n ", " now", "!!", "\n"];
        check("smollm", text, &smollm);
        let llama3 = ["I", "'LL", " pay", " ", "123", "45", "\n\n", " ", " now", "!!\n"];
        check("llama-bpe", text, &llama3);
        let qwen2 = ["I", "'LL", " pay", " ", "1", "2", "3", "4", "5", "\n\n", " ", " now", "!!\n"];
        check("qwen2", text, &qwen2);
        check("tekken", "aBCd 12", &["a", "BCd", " ", "1", "2"]);
        check("default", "a=12345", &["a", "=", "123", "45"]);
    }
}
