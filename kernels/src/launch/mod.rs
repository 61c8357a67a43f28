//! How are kernels launched? One file beside each file of kernels: it says in which geometry, and
//! makes sure that nothing is touched outside of the arrays given. That is what each launch's
//! safety rests on.

pub mod attend_many;
pub mod attention;
pub mod lookup;
pub mod pages;
pub mod products;
pub mod rows;

use crate::error::DeviceError;

/// A size as kernels take it.
fn size(what: &'static str, n: usize) -> Result<u32, DeviceError> {
    let supported = "up to 4,294,967,295";
    u32::try_from(n).map_err(|_| DeviceError::Unsupported { what, size: n, supported })
}
