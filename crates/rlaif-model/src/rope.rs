//! Rotary position embedding, Su et al. 2021 (<https://arxiv.org/abs/2104.09864>), in the "rotate half" layout of Hugging
//! Face models: dimension `i` and `i + pairs` form one rotating pair. Where only the beginning of a head is rotated, the rest
//! passes through.

use burn::tensor::{Device, Tensor, TensorData};

use crate::config::{ModelConfig, RopeScaling};

/// Angle per position of each rotating pair. Angles are taken in f64, since a float32 angle is off by 1e-3 at position 10^4.
#[derive(Debug, Clone)]
pub struct Rope {
    frequencies: Vec<f64>, // [pairs]
}

impl Rope {
    /// The frequencies of a model, scaled as its config says; no pairs for a model with learned positions.
    pub fn new(config: &ModelConfig) -> Self {
        Self { frequencies: inverse_frequencies(config, config.rope_theta, config.rope_scaling.as_ref()) }
    }

    /// The frequencies of a model's windowed layers.
    pub fn local(config: &ModelConfig) -> Self {
        match config.local_rope_theta {
            None => Self::new(config),
            Some(theta) => Self { frequencies: inverse_frequencies(config, theta, None) },
        }
    }

    /// Rotating pairs of a head.
    pub fn pairs(&self) -> usize {
        self.frequencies.len()
    }

    /// Cosines and sines of a stream of tokens, each `[N * pairs]` row-major.
    pub fn tables(&self, positions: &[u32]) -> (Vec<f32>, Vec<f32>) {
        let angles = positions.iter().flat_map(|&p| self.frequencies.iter().map(move |f| f64::from(p) * f));
        angles.map(|angle| (angle.cos() as f32, angle.sin() as f32)).unzip()
    }

    /// The same as tensors, each `[N, 1, pairs]`.
    pub fn tensors(&self, positions: &[u32], device: &Device) -> (Tensor<3>, Tensor<3>) {
        let shape = [positions.len(), 1, self.frequencies.len()];
        let (cos, sin) = self.tables(positions);
        let tensor = |values| Tensor::from_data(TensorData::new(values, shape), device);
        (tensor(cos), tensor(sin))
    }
}

/// Rotates queries or keys to their positions.
///
/// Shapes: `x`: `[N, heads, head_dim]`; `cos`, `sin`: `[N, 1, pairs]`; returns `[N, heads, head_dim]`.
pub fn rotate(x: Tensor<3>, cos: &Tensor<3>, sin: &Tensor<3>) -> Tensor<3> {
    let (dim, pairs) = (x.dims()[2], cos.dims()[2]);
    let left = x.clone().narrow(2, 0, pairs);
    let right = x.clone().narrow(2, pairs, pairs);
    let rotated_left = left.clone() * cos.clone() - right.clone() * sin.clone();
    let rotated_right = right * cos.clone() + left * sin.clone();
    let mut parts = vec![rotated_left, rotated_right];
    if 2 * pairs < dim {
        parts.push(x.narrow(2, 2 * pairs, dim - 2 * pairs));
    }
    Tensor::cat(parts, 2)
}

/// Rotates one head in place on the host; `x`: `[head_dim]`; `cos`, `sin`: `[pairs]`.
pub(crate) fn rotate_slice(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (left, right) = x[..2 * cos.len()].split_at_mut(cos.len());
    for i in 0..cos.len() {
        let (l, r) = (left[i], right[i]);
        left[i] = l * cos[i] - r * sin[i];
        right[i] = r * cos[i] + l * sin[i];
    }
}

/// Angle per position of each rotating pair: `theta^(-2i/rotary_dim)`, then scaled as the config says.
///
/// `llama3` scaling keeps short wavelengths, divides long ones by `factor`, and interpolates between; the bounds are the
/// wavelengths at which the original context holds `low_freq_factor` and `high_freq_factor` periods (transformers,
/// `_compute_llama3_parameters`).
fn inverse_frequencies(config: &ModelConfig, theta: f64, scaling: Option<&RopeScaling>) -> Vec<f64> {
    let rotated = config.rotary_dim as f64;
    let plain = (0..config.rotary_dim.div_ceil(2)).map(|i| theta.powf(-2.0 * i as f64 / rotated));
    match scaling {
        None => plain.collect(),
        Some(RopeScaling::Linear { factor }) => plain.map(|f| f / factor).collect(),
        Some(RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        }) => plain
            .map(|frequency| {
                let periods = *original_max_position_embeddings as f64 * frequency / std::f64::consts::TAU;
                // 0 where the context holds few periods (slow pair: scale), 1 where it holds many (fast pair: keep).
                let keep =
                    ((periods - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                keep * frequency + (1.0 - keep) * frequency / factor
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slice_and_the_tensor_form_agree() {
        let device = Device::flex();
        let rope = Rope { frequencies: vec![1.0, 0.1] };
        let values = [1.0f32, 2.0, 3.0, 4.0, -1.0, 0.5, 2.0, -3.0];
        let x = Tensor::<3>::from_data(TensorData::new(values.to_vec(), [2, 1, 4]), &device);
        let (cos, sin) = rope.tensors(&[0, 7], &device);
        let by_tensor: Vec<f32> = rotate(x, &cos, &sin).into_data().try_to_vec().unwrap();
        let mut by_slice = values;
        let (cos, sin) = rope.tables(&[0, 7]);
        for row in 0..2 {
            rotate_slice(&mut by_slice[row * 4..][..4], &cos[row * 2..][..2], &sin[row * 2..][..2]);
        }
        assert_eq!(by_tensor, by_slice);
        assert_eq!(by_slice[..4], values[..4], "position 0 does not rotate");
    }
}
