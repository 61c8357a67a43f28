//! What does a step attend to? Pages of sinks and window, which are the backend's, and units, which
//! are bytes of the host's; each with its place.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

use super::KvType;

/// Names a unit among all that this process has seen: its bytes never change, and no other unit
/// ever has its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnitId(u64);

impl UnitId {
    /// One that none has had before.
    #[allow(clippy::new_without_default)] // each is another
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The keys and values of a page, of all layers.
#[derive(Debug)]
pub enum PageSource<'a, P> {
    /// Nothing, where there are no keys.
    None,
    /// Of sinks or window: `P` is the backend's kind of page.
    Fast(&'a P),
    /// A unit's.
    Unit(UnitId, &'a [u8]),
}

/// A page and where its keys are seen from.
#[derive(Debug)]
pub struct PlacedPage<'a, P> {
    /// The page.
    pub page: PageSource<'a, P>,
    /// How its keys and values are kept.
    pub kv_type: KvType,
    /// Keys that are there, from the first.
    pub n_keys: usize,
    /// Index in the text of the first key.
    pub first_index: usize,
    /// Position.
    pub placement: Placement<'a>,
}

/// At which position a page's keys are read.
#[derive(Clone, Copy, Debug)]
pub enum Placement<'a> {
    /// The first key's position has these angles: cosines of the pairs, then their sines.
    At(&'a [f32]),
    /// All keys are at the one far distance.
    Far,
}

// By hand, since a page need not be copied for its reference to be.
impl<P> Clone for PageSource<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for PageSource<'_, P> {}

impl<P> Clone for PlacedPage<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for PlacedPage<'_, P> {}

impl<'a, P: Deref<Target = [u8]>> PlacedPage<'a, P> {
    /// The bytes, where all pages are the host's.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        match self.page {
            PageSource::None => &[],
            PageSource::Fast(page) => page,
            PageSource::Unit(_, bytes) => bytes,
        }
    }
}
