//! What of a text is attended to in place of all of it, and what received attention near its end?

use std::collections::BTreeMap;
use std::ops::Range;

/// A passage of a memory's text, read by itself in memory `M`.
pub(super) struct Excerpt<M> {
    pub(super) memory: M,
    /// Tokens of its text that come before the passage.
    pub(super) before: usize,
    /// Where the passage is in the text that it was taken from.
    pub(super) tokens: Range<usize>,
    /// Whether something was asked or answered that it was not told for, see
    /// [`take_excerpt_evidence`](super::Memory::take_excerpt_evidence).
    pub(super) is_untold: bool,
}

/// What pages of sinks and window received, by the index of their first token.
pub(super) type NearMasses = BTreeMap<usize, f32>;
