//! How good is a memory? Questions whose answers lie somewhere in a long text, made from a seed,
//! asked under several policies, and measured.
//!
//! ```text
//! plan ── labels ── scene (a document, its cases) ── run: read once, fork a case and policy ── records
//!         └ task, haystack, length, depth, sample                                              ├ summary
//!                                                                                              └ plot
//! ```
//!
//! The tasks follow RULER (arXiv 2404.06654) and InfiniteBench (arXiv 2402.13718) by description.
//! Each case is answered by force: the right answer's tokens are given one by one, and it counts as
//! found when each was the likeliest, which is when a greedy answer would be it. Its log-probability
//! says more than that with few samples.
//!
//! Invariant: a case depends on its label alone, never on what else is asked in a run.

mod case;
mod error;
mod haystack;
mod plan;
mod plot;
mod reading;
mod recall;
mod record;
mod run;
mod summary;
mod task;
mod tasks;
mod words;

pub use case::{Case, Label, Measure, Scene};
pub use error::EvalError;
pub use haystack::Haystack;
pub use plan::Plan;
pub use plot::{PlotError, PlotFolder};
pub use recall::{RecallLine, RecallPlan};
pub use record::{Key, Record};
pub use run::{Evaluation, Policy, Sink};
pub use summary::{Line, summarize};
pub use task::Task;
pub use tasks::kv::KvCase;
pub use tasks::qa::Paragraph;
