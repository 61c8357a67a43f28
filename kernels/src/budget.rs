//! How much of a device's memory may be taken, and how much is? Whoever uses a device states it once;
//! buffers count against it from their allocation until they are dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::DeviceError;

/// Bytes that buffers may take together.
pub struct Budget {
    limit: AtomicUsize,
    taken: AtomicUsize,
}

/// A part of a budget, given back when dropped.
pub struct Share {
    budget: Arc<Budget>,
    n_bytes: usize,
}

impl Budget {
    /// Without a limit.
    pub fn unlimited() -> Arc<Self> {
        Arc::new(Self { limit: AtomicUsize::new(usize::MAX), taken: AtomicUsize::new(0) })
    }

    /// From now on buffers may take `n_bytes` together; those that are there stay.
    pub fn set_limit(&self, n_bytes: usize) {
        self.limit.store(n_bytes, Ordering::Relaxed);
    }

    /// Bytes that are taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Bytes that may be taken yet; none where there is no limit.
    pub fn left(&self) -> Option<usize> {
        let limit = self.limit.load(Ordering::Relaxed);
        (limit != usize::MAX).then(|| limit.saturating_sub(self.taken()))
    }

    /// Takes `n_bytes`.
    ///
    /// # Errors
    /// When so many are not left.
    pub fn take(self: &Arc<Self>, n_bytes: usize) -> Result<Share, DeviceError> {
        let limit = self.limit.load(Ordering::Relaxed);
        let more = |taken: usize| taken.checked_add(n_bytes).filter(|sum| *sum <= limit);
        match self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Share { budget: Arc::clone(self), n_bytes }),
            Err(taken) => {
                let free_bytes = limit.saturating_sub(taken);
                Err(DeviceError::OutOfMemory { n_bytes, free_bytes, total_bytes: limit })
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.n_bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back_and_the_limit_holds() {
        let budget = Budget::unlimited();
        assert_eq!(budget.left(), None);
        let first = budget.take(60).unwrap();
        budget.set_limit(100);
        assert_eq!((budget.taken(), budget.left()), (60, Some(40)));
        match budget.take(41).map(|_| ()) {
            Err(DeviceError::OutOfMemory { n_bytes: 41, free_bytes: 40, total_bytes: 100 }) => {}
            other => panic!("{other:?}"),
        }
        assert!(budget.take(usize::MAX).is_err(), "sums do not overflow");
        let second = budget.take(40).unwrap();
        assert_eq!(budget.left(), Some(0));
        drop(first);
        assert_eq!(budget.left(), Some(60));
        budget.set_limit(30);
        assert_eq!((budget.taken(), budget.left()), (40, Some(0)), "what is there stays");
        drop(second);
        assert_eq!(budget.left(), Some(30));
    }
}
