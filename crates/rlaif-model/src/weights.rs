//! A model's tensors by their Hugging Face names, whatever file they come from, read one at a time.

use crate::error::{ModelError, Result};

/// A lazy bag of named tensors.
///
/// Names are those of transformers (`model.layers.0.self_attn.q_proj.weight`); a linear layer is `[out, in]`, row-major;
/// rotary query and key rows are in transformers' rotate-half order.
pub trait WeightSource {
    /// Every tensor's name, sorted.
    fn names(&self) -> Vec<String>;

    /// A tensor's shape, or `None` where there is no such tensor.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// A tensor's values as float32, row-major.
    ///
    /// # Errors
    /// If there is no such tensor, or one of its values is NaN or infinite.
    fn load_f32(&self, name: &str) -> Result<Vec<f32>>;
}

/// Refuses NaN and infinities: one such weight turns every log-prob into NaN, far from its cause.
pub(crate) fn check_finite(name: &str, values: &[f32]) -> Result<()> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => Err(ModelError::NonFinite { name: name.to_string(), index, value: values[index] }),
    }
}
