//! What was said a moment ago? Sessions as they were when their answers ended, so that a request that
//! begins with the same tokens goes on from there instead of reading them again. Kept in memory, the
//! least recently used given up first; nothing is ever found without saying whose it is.

use std::sync::{Mutex, PoisonError};

use crate::engine::error::EngineError;
use crate::engine::session::Session;
use crate::ids::TokenId;
use crate::memory::MemoryConfig;

/// Fewer tokens than this are read again sooner than found.
const LEAST: usize = 16;

/// Sessions of the recent past.
pub struct RecentSessions {
    max_bytes: usize,
    sets_aside: bool,
    kept: Mutex<Vec<Kept>>, // the least recently used first
}

struct Kept {
    owner: String,
    ids: Vec<TokenId>,
    session: Session,
    bytes: usize,
}

impl RecentSessions {
    /// None yet, and never more than about `max_bytes` of them; whether their windows are kept in
    /// the host's memory, where the device's is another.
    pub fn new(max_bytes: usize, sets_aside: bool) -> Self {
        Self { max_bytes, sets_aside, kept: Mutex::new(Vec::new()) }
    }

    /// Keeps a session that has taken in `ids`. Those that it goes on from are given up for it.
    pub fn keep(&self, owner: &str, ids: Vec<TokenId>, mut session: Session) {
        let bytes = session.memory.bytes() + ids.len() * 64;
        if ids.len() < LEAST || bytes > self.max_bytes {
            return;
        }
        if self.sets_aside {
            session.memory.set_aside();
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|other| other.owner != owner || !ids.starts_with(&other.ids));
        kept.push(Kept { owner: owner.to_owned(), ids, session, bytes });
        let mut total: usize = kept.iter().map(|kept| kept.bytes).sum();
        while total > self.max_bytes {
            total -= kept.remove(0).bytes;
        }
    }

    /// A session that has taken in the most of what `ids` begin with and nothing else, and how many
    /// tokens that is.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn longest_prefix(
        &self,
        owner: &str,
        ids: &[TokenId],
        config: &MemoryConfig,
    ) -> Result<Option<(Session, usize)>, EngineError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let alike = |kept: &Kept| kept.ids.iter().zip(ids).take_while(|(a, b)| a == b).count();
        let of_owner = kept.iter().enumerate().filter(|(_, kept)| kept.owner == owner);
        let longest = of_owner.map(|(i, kept)| (alike(kept), i)).max();
        let Some((n, i)) = longest.filter(|(n, _)| *n >= LEAST) else { return Ok(None) };
        let used = kept.remove(i);
        kept.push(used);
        let session = &kept.last().expect("because it was pushed").session;
        let mut fork = session.fork(config)?;
        if n < fork.n_tokens() && fork.rewind(n).is_err() {
            return Ok(None); // its memory does not keep what that takes
        }
        Ok(Some((fork, n)))
    }

    /// How many are kept, and about how many bytes they take.
    pub fn size(&self) -> (usize, usize) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.len(), kept.iter().map(|kept| kept.bytes).sum())
    }
}
