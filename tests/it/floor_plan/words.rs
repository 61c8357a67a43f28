//! What words does a Rust source consist of? Identifiers and punctuation; comments, strings and
//! test-only items are left out, so that only what runs in the product is judged.

/// A word of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    Name(String),
    /// `::`
    PathStep,
    Mark(char),
}

impl Word {
    pub fn is(&self, mark: char) -> bool {
        *self == Self::Mark(mark)
    }

    pub fn is_name(&self, name: &str) -> bool {
        matches!(self, Self::Name(found) if found == name)
    }
}

/// All words of a source, test-only items included.
pub fn words(source: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        if let Some(after) = skip_silent(rest) {
            rest = after;
        } else if first.is_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            words.push(Word::Name(rest[..end].to_owned()));
            rest = &rest[end..];
        } else if let Some(after) = rest.strip_prefix("::") {
            words.push(Word::PathStep);
            rest = after;
        } else {
            if !first.is_whitespace() && !first.is_ascii_digit() {
                words.push(Word::Mark(first));
            }
            rest = &rest[first.len_utf8()..];
        }
    }
    words
}

/// What follows a comment, a string, a character or a lifetime at the beginning of `rest`.
fn skip_silent(rest: &str) -> Option<&str> {
    if rest.starts_with("//") {
        return Some(rest.split_once('\n').map_or("", |(_, after)| after));
    }
    if rest.starts_with("/*") {
        return Some(skip_block_comment(rest));
    }
    let literal = rest.trim_start_matches(['b', 'c']);
    let prefix = rest.len() - literal.len();
    if prefix <= 1 {
        let raw = literal.strip_prefix('r').unwrap_or("");
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let close = format!("\"{}", &raw[..hashes]);
            return Some(raw[hashes + 1..].split_once(&close).map_or("", |(_, after)| after));
        }
        if let Some(text) = literal.strip_prefix('"') {
            return Some(skip_escaped(text, '"'));
        }
    }
    let after = literal.strip_prefix('\'').filter(|_| prefix == 0 || rest.starts_with('b'))?;
    let mut chars = after.chars();
    match (chars.next(), chars.next()) {
        (Some('\\'), _) => Some(skip_escaped(after, '\'')),
        (Some(_), Some('\'')) => Some(chars.as_str()),
        _ => Some(after.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_')),
    }
}

fn skip_block_comment(rest: &str) -> &str {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return &rest[at..];
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    ""
}

fn skip_escaped(rest: &str, close: char) -> &str {
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if c == close {
            break;
        }
    }
    chars.as_str()
}

/// The words without the items that are compiled for tests alone.
pub fn without_tests(words: &[Word]) -> Vec<Word> {
    let cfg_test = self::words("#[cfg(test)]");
    let mut kept = Vec::new();
    let mut at = 0;
    while at < words.len() {
        if words[at..].starts_with(&cfg_test) {
            at = item_end(words, at + cfg_test.len());
        } else {
            kept.push(words[at].clone());
            at += 1;
        }
    }
    kept
}

/// One past the item that begins at `at`: after its block, or its semicolon.
fn item_end(words: &[Word], mut at: usize) -> usize {
    let mut depth = 0;
    while at < words.len() {
        match &words[at] {
            Word::Mark('{' | '(' | '[') => depth += 1,
            Word::Mark(close @ ('}' | ')' | ']')) => {
                depth -= 1;
                if depth == 0 && *close == '}' {
                    return at + 1;
                }
            }
            Word::Mark(';') if depth == 0 => return at + 1,
            _ => {}
        }
        at += 1;
    }
    at
}

#[test]
fn comments_strings_and_lifetimes_are_silent() {
    let source = r####"
        // crate::a
        /* crate::b /* crate::c */ crate::d */
        fn f<'a>(x: &'a str) { let y = "crate::e \" crate::f"; let z = r#"crate::g" "#; }
        let c = ['x', '\'', '"', b'"', '\u{41}']; let b = b"crate::h"; let r = br"crate::i";
        crate::j
    "####;
    let found = words(source);
    assert_eq!(found.iter().filter(|word| word.is_name("crate")).count(), 1);
    assert_eq!(found.last(), Some(&Word::Name("j".to_owned())));
    assert_eq!(found.iter().filter(|word| **word == Word::PathStep).count(), 1);
}

#[test]
fn test_only_items_are_left_out() {
    let source = "a; #[cfg(test)] mod tests { fn f() { x[1] } } b; \
                  #[cfg(test)] #[allow(dead_code)] fn g() -> [u8; 2] { y } c; \
                  #[cfg(test)] use d; e; #[cfg(not(test))] f";
    let kept = without_tests(&words(source));
    let names: Vec<&str> = kept
        .iter()
        .filter_map(|word| match word {
            Word::Name(name) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(names, ["a", "b", "c", "e", "cfg", "not", "test", "f"]);
}
