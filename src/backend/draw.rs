//! How is a token drawn from logits?

use crate::ids::TokenId;

/// How the next token is drawn. The likeliest are kept (by share, number and sum, in this order), and of
/// these comes the token whose share holds the point, shares side by side in the order of tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draw {
    /// What logits are divided by; 0 takes the likeliest token.
    pub temperature: f32,
    /// The least share kept, that of the likeliest being 1.
    pub min_p: f32,
    /// Tokens kept; 0 for all.
    pub top_k: usize,
    /// How much of all shares the likeliest keep together; 1 for all.
    pub top_p: f32,
    /// The point, in units of 2^-32 of all that is kept.
    pub random: u32,
    /// What is added to logits first: tokens in their order, each once.
    pub edits: Vec<(TokenId, f32)>,
}

/// A draw from one row of logits.
#[derive(Clone, Copy, Debug)]
pub struct RowDraw<'a> {
    /// Which row.
    pub row: usize,
    /// How.
    pub draw: &'a Draw,
}
