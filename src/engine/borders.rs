//! How strong is the border before each token? What units of memory are cut by, where they are:
//! ends of lines, sentences and clauses, or the model's own surprise (EM-LLM, arXiv 2407.09450).

use super::error::EngineError;
use super::session::Session;
use crate::backend::any::AnyBackend;
use crate::backend::cpu::log_sum_exp;
use crate::ids::TokenId;
use crate::memory::UnitCuts;
use crate::model::{LOGIT_ROWS, Workspace};
use crate::tokenizer::Tokenizer;

/// After a line: of prose a paragraph, of data a record.
const LINE: f32 = 3.0;
/// After a sentence.
pub(super) const SENTENCE: f32 = 2.0;
/// After a clause, or a part of a record.
const CLAUSE: f32 = 1.0;

impl Session {
    /// Strengths of the borders before the tokens of the chunk of a document that has just passed,
    /// where units may be cut by them; `previous` is the token before it, and `foresaw` whether the
    /// logits are what was expected after that; `rows` say where the chunk's are.
    ///
    /// # Errors
    /// When the device has failed.
    pub(super) fn borders(
        &mut self,
        ids: &[TokenId],
        (previous, foresaw): (Option<TokenId>, bool),
        rows: (&mut Workspace<AnyBackend>, usize),
    ) -> Result<Option<Vec<f32>>, EngineError> {
        let config = self.memory.config();
        Ok(match config.unit_cuts {
            _ if !config.cuts() => None,
            UnitCuts::Fixed => None,
            UnitCuts::Sentence => Some(sentence_borders(self.engine.tokenizer(), ids, previous)),
            UnitCuts::Surprise => Some(self.surprises(ids, foresaw, rows)?),
        })
    }

    /// How little each token was expected, in nats; afterwards the logits are those of the last.
    pub(super) fn surprises(
        &mut self,
        ids: &[TokenId],
        foresaw: bool,
        (workspace, first_row): (&mut Workspace<AnyBackend>, usize),
    ) -> Result<Vec<f32>, EngineError> {
        let surprise = |logits: &[f32], id: TokenId| log_sum_exp(logits) - logits[id.0 as usize];
        let vocab = self.logits.len();
        let mut surprises = Vec::with_capacity(ids.len());
        surprises.push(if foresaw { surprise(&self.logits, ids[0]) } else { 0.0 });
        let mut logits = vec![0.0; LOGIT_ROWS.min(ids.len()) * vocab];
        for first in (0..ids.len()).step_by(LOGIT_ROWS) {
            let rows = first..(first + LOGIT_ROWS).min(ids.len());
            let logits = &mut logits[..rows.len() * vocab];
            let shared = first_row + rows.start..first_row + rows.end;
            self.engine.transformer().logits(shared, workspace, logits)?;
            let next = ids[rows.start + 1..].iter().zip(logits.chunks_exact(vocab));
            surprises.extend(next.map(|(id, logits)| surprise(logits, *id)));
            self.logits.copy_from_slice(&logits[(rows.len() - 1) * vocab..]);
        }
        self.has_logits = true;
        Ok(surprises)
    }
}

fn sentence_borders(tokenizer: &Tokenizer, ids: &[TokenId], previous: Option<TokenId>) -> Vec<f32> {
    let before = std::iter::once(previous).chain(ids.iter().copied().map(Some));
    let piece = |id: TokenId| String::from_utf8_lossy(tokenizer.piece(id));
    let border = |(before, id): (Option<TokenId>, &TokenId)| {
        before.map_or(0.0, |before| border_between(&piece(before), &piece(*id)))
    };
    before.zip(ids).map(border).collect()
}

/// How strong the border between two pieces of text is.
pub(super) fn border_between(before: &str, after: &str) -> f32 {
    if before.contains('\n') && !after.starts_with('\n') {
        return LINE;
    }
    let begins_anew = after.starts_with(char::is_whitespace);
    let end = before.trim_end_matches(['"', '\'', '”', '’', '»', ')', ']']).chars().next_back();
    match end {
        Some('。' | '！' | '？') => SENTENCE,
        Some('.' | '!' | '?' | '…') if begins_anew => SENTENCE,
        Some(',' | ';' | ':' | '—' | '}') if begins_anew => CLAUSE,
        Some('，' | '；' | '、') => CLAUSE,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_before_sentences_and_sentences_before_clauses() {
        assert_eq!(border_between(".\n", "The"), LINE);
        assert_eq!(border_between("\n", "\n"), 0.0, "the line ends with the last of them");
        assert_eq!(border_between(".", " The"), SENTENCE);
        assert_eq!(border_between("?”", " He"), SENTENCE);
        assert_eq!(border_between("。", "他"), SENTENCE);
        assert_eq!(border_between("3.", "14"), 0.0);
        assert_eq!(border_between("\",", " \""), CLAUSE);
        assert_eq!(border_between(" sea", " man"), 0.0);
    }
}
