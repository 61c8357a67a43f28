//! What does the device know already? Tables that stay the same from layer to layer are copied when
//! they change, and not again.

use bytemuck::Pod;
use kernels::{AnyDevice, Array, DeviceError};

/// A table on the device, and what it holds.
pub struct Uploaded<T> {
    elements: Vec<T>,
    array: Option<Array<AnyDevice, T>>,
}

impl<T> Default for Uploaded<T> {
    fn default() -> Self {
        Self { elements: Vec::new(), array: None }
    }
}

impl<T: Pod + PartialEq> Uploaded<T> {
    /// `elements`, on the device.
    ///
    /// # Errors
    /// When there is no room for them, or the device fails.
    pub fn of(
        &mut self,
        device: &AnyDevice,
        elements: &[T],
    ) -> Result<&Array<AnyDevice, T>, DeviceError> {
        let is_long_enough = self.array.as_ref().is_some_and(|array| array.len() >= elements.len());
        let is_same = is_long_enough && self.elements == elements;
        let mut array = match self.array.take() {
            Some(array) if is_long_enough => array,
            _ => Array::undefined(device, elements.len().next_power_of_two())?,
        };
        if !is_same {
            array.write(device, 0, elements)?;
            self.elements.clear();
            self.elements.extend_from_slice(elements);
        }
        Ok(self.array.insert(array))
    }
}
