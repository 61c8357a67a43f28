//! What is a question about? It is taken in once by a fork: the units that it attends to, more than
//! a question about nothing does, are pinned for the question itself and its answer.

use super::error::EngineError;
use super::loaded::Engine;
use super::session::{Session, no_progress};
use crate::ids::TokenId;
use crate::memory::{Phase, UnitMass, beyond_neutral, pins};

/// A question about nothing.
const NEUTRAL: &str = "N/A";

impl Engine {
    /// The tokens of a question about nothing, after some document.
    fn neutral_question(&self) -> Result<Vec<TokenId>, EngineError> {
        self.question_ids(NEUTRAL)
    }
}

impl Session {
    /// Pins the units that a question attends to, as the settings say.
    pub(super) fn pin_units(&mut self, ids: &[TokenId]) -> Result<(), EngineError> {
        self.memory.pin(Vec::new());
        let config = self.memory.config();
        let retrieves_all = config.retrieves(Phase::Asking) >= self.memory.n_units();
        if config.pinned_units() == 0 || retrieves_all || ids.is_empty() {
            return Ok(());
        }
        let memory = config.for_first_pass();
        let mut masses = self.fork(&memory)?.attended(ids)?;
        if config.pin_contrast {
            let neutral = self.engine.neutral_question()?;
            let share = ids.len() as f32 / neutral.len() as f32;
            let of_neutral = self.fork(&memory)?.attended(&neutral)?;
            masses = beyond_neutral(&masses, &of_neutral, share);
        }
        let pins = pins(config, &masses, 0..self.memory.n_units() as u32);
        self.memory.pin(pins);
        Ok(())
    }

    /// Takes in a question, and tells what it attended to: units, the heaviest first.
    ///
    /// # Errors
    /// As for [`prompt`](Self::prompt).
    pub fn first_pass(self, ids: &[TokenId]) -> Result<Vec<UnitMass>, EngineError> {
        self.check_question(ids)?;
        self.attended(ids)
    }

    /// The same, also where tokens do not fit the window: a neutral question may be longer than what
    /// is asked.
    fn attended(mut self, ids: &[TokenId]) -> Result<Vec<UnitMass>, EngineError> {
        self.memory.take_evidence();
        self.memory.tally_questions();
        self.feed(ids, None, Phase::Asking, &mut no_progress)?;
        Ok(self.memory.take_evidence())
    }
}
