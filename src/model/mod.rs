//! What is a model here? Its shape, its weights, and how files become both.
//! Knows nothing of memory: the forward pass hands queries, keys and values to the attention seam.

mod arch;
mod config;
mod error;
mod load;
mod random;
mod rope;
mod summary;
mod transformer;
mod weights;

pub use arch::Architecture;
pub use config::ModelConfig;
pub use error::ModelError;
pub use load::{Model, ModelSource};
pub use random::{RandomProgressFn, write_random};
pub use rope::{RopeConfig, RopeLayout};
pub use summary::{ChatTemplate, ModelSummary, TypeShare};
pub use transformer::{FailedPart, LOGIT_ROWS, Part, Transformer, Workspace};
pub use weights::{LayerWeights, Weights};
