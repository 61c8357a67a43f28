//! Which sizes make a model? The checks that hold whatever container the numbers came from.

use std::path::Path;

use crate::model::config::ModelConfig;
use crate::model::error::ModelError;

/// More than any count of a real model, little enough that products of three fit in 128 bits.
const SIZE_MAX: u64 = (1 << 31) - 1;
/// Heads are 64 to 256 wide.
const HEAD_DIM_MAX: usize = 4096;

/// A field of a model's configuration, for messages.
pub(super) struct Field<'a> {
    pub(super) path: &'a Path,
    pub(super) name: &'a str,
}

impl Field<'_> {
    /// Refuses 0 and what no model has.
    pub(super) fn size(&self, found: u64) -> Result<usize, ModelError> {
        if (1..=SIZE_MAX).contains(&found) {
            return Ok(found as usize);
        }
        Err(self.bad(found, format_args!("a number from 1 to {SIZE_MAX}")))
    }

    /// Refuses what is no positive number.
    pub(super) fn positive(&self, found: f64) -> Result<f64, ModelError> {
        if found.is_finite() && found > 0.0 {
            return Ok(found);
        }
        Err(self.bad(found, format_args!("a positive number")))
    }

    pub(super) fn bad(
        &self,
        found: impl std::fmt::Display,
        expected: impl std::fmt::Display,
    ) -> ModelError {
        ModelError::BadField {
            path: self.path.to_owned(),
            field: self.name.to_owned(),
            found: found.to_string(),
            expected: expected.to_string(),
        }
    }

    pub(super) fn missing(&self, expected: &'static str) -> ModelError {
        ModelError::MissingField {
            path: self.path.to_owned(),
            field: self.name.to_owned(),
            expected,
        }
    }
}

/// The head sizes, as far as a file gives them.
pub(super) struct Heads<'a> {
    pub(super) hidden_size: usize,
    pub(super) n_heads: usize,
    pub(super) head_dim: Option<usize>,
    /// The name of the field that gives the width of a head.
    pub(super) field: Field<'a>,
}

impl Heads<'_> {
    /// The width of a head: given, or the hidden size divided by the heads.
    pub(super) fn head_dim(&self) -> Result<usize, ModelError> {
        let head_dim = match self.head_dim {
            Some(head_dim) => head_dim,
            None if self.hidden_size.is_multiple_of(self.n_heads) => {
                self.hidden_size / self.n_heads
            }
            None => {
                let found = format_args!(
                    "missing, with {} heads in a hidden size of {}",
                    self.n_heads, self.hidden_size
                );
                return Err(self.field.bad(found, "the width of a head"));
            }
        };
        if head_dim > HEAD_DIM_MAX {
            return Err(self.field.bad(head_dim, format_args!("at most {HEAD_DIM_MAX}")));
        }
        Ok(head_dim)
    }
}

/// Refuses rotation of an odd number of elements, of none, or of more than a head has.
pub(super) fn check_rotated(
    field: &Field<'_>,
    rotated: usize,
    head_dim: usize,
) -> Result<usize, ModelError> {
    if (2..=head_dim).contains(&rotated) && rotated.is_multiple_of(2) {
        return Ok(rotated);
    }
    let expected = format_args!("an even number from 2 to the width of a head, {head_dim},");
    Err(field.bad(rotated, expected))
}

/// Checks what concerns more than one size.
pub(super) fn check_config(config: &ModelConfig, kv_heads: &Field<'_>) -> Result<(), ModelError> {
    let ModelConfig { n_heads, n_kv_heads, .. } = *config;
    if !n_heads.is_multiple_of(n_kv_heads) {
        let expected = format_args!("a divisor of the {n_heads} query heads");
        return Err(kv_heads.bad(n_kv_heads, expected));
    }
    Ok(())
}
