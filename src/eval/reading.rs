//! How are many documents read that begin alike? What a document shares with the next is read once:
//! the next one goes on from a fork.

use std::time::{Duration, Instant};

use crate::engine::{AskPrompt, Engine, EngineError, Progress, ProgressFn, Session};
use crate::ids::TokenId;
use crate::memory::MemoryConfig;

/// Reads documents one after another.
pub struct Reader<'a> {
    engine: &'a Engine,
    memory: &'a MemoryConfig,
    trunk: Option<Trunk>,
}

/// What the last document had in common with the one that comes now.
struct Trunk {
    session: Session,
    ids: Vec<TokenId>, // whole chunks of them
    spent: Duration,
}

impl<'a> Reader<'a> {
    /// Nothing read yet.
    pub fn new(engine: &'a Engine, memory: &'a MemoryConfig) -> Self {
        Self { engine, memory, trunk: None }
    }

    /// Reads the document of `prompt`; `next` is the one that will be read after it. Also says how
    /// long it would have taken from the beginning.
    ///
    /// # Errors
    /// As [`Session::read_document`].
    pub fn read(
        &mut self,
        prompt: &AskPrompt,
        next: Option<&AskPrompt>,
        progress: &mut ProgressFn<'_>,
    ) -> Result<(Session, Duration), EngineError> {
        let ids = prompt.document_ids();
        let mut trunk = match self.trunk.take().filter(|trunk| ids.starts_with(&trunk.ids)) {
            Some(trunk) => trunk,
            None => Trunk {
                session: self.engine.session(self.memory)?,
                ids: Vec::new(),
                spent: Duration::ZERO,
            },
        };
        let chunk_tokens = self.memory.chunk_tokens;
        let alike = next.map_or(0, |next| n_alike(ids, next.document_ids()));
        let alike = alike / chunk_tokens * chunk_tokens;
        let mut read = |session: &mut Session, from: usize, to: usize| {
            let begun = Instant::now();
            let mut of_all = |step: Progress| {
                progress(Progress { done_tokens: from + step.done_tokens, total_tokens: ids.len() })
            };
            session
                .read_document(prompt.document(), from..to, &mut of_all)
                .map(|()| begun.elapsed())
        };
        if alike > trunk.ids.len() {
            trunk.spent += read(&mut trunk.session, trunk.ids.len(), alike)?;
            trunk.ids = ids[..alike].to_vec();
        }
        let (from, spent) = (trunk.ids.len(), trunk.spent);
        let mut session = if alike > 0 && alike == from {
            let session = trunk.session.fork(self.memory)?;
            self.trunk = Some(trunk);
            session
        } else {
            trunk.session
        };
        let rest = read(&mut session, from, ids.len())?;
        Ok((session, spent + rest))
    }
}

fn n_alike(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
