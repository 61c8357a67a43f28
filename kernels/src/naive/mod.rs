//! What is each operation by definition? Loops as in the papers, sums in f64, no cleverness:
//! slow, obvious, and therefore the oracle of whatever is fast.
//!
//! | operation | definition |
//! |---|---|
//! | [`product`] | rows times transposed weights |
//! | [`rms_norm`], [`softmax`], [`swiglu`] | one row each |
//! | [`Rotary::rotate`] | a head turned to a position |
//! | [`attend`] | causal attention with grouped heads at given positions |
//! | [`segment_means`], [`look_up`] | which units the queries ask for |
//! | [`kept`] | which tokens may come next, and how likely each is |
//!
//! Buffers are row-major, outermost axis first, and their lengths must fit the shapes given:
//! every function panics where they do not.

mod attention;
mod draw;
mod lookup;
mod pages;
mod rotary;
mod rows;

pub use attention::{Attention, HeadShape, attend};
pub use draw::{Draw, kept};
pub use lookup::{
    Ballot, Count, Lookup, Rows, UnitVote, best_units, look_up, segment_means, vote, vote_by,
};
pub use pages::{PageFormat, PageType};
pub use rotary::{PairLayout, Rotary};
pub use rows::{dot, product, rms_norm, softmax, swiglu};
