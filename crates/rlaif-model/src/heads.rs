//! Scalar heads: the score of a reward model, the value of a critic.

use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::attention::int_tensor;
use crate::error::Result;
use crate::weights::WeightSource;

/// Name of the weight in the Hugging Face layout of sequence classifiers.
pub const SCORE: &str = "score.weight";

/// One number for each hidden state that is read: a linear map without bias, as in
/// `AutoModelForSequenceClassification` with one label.
#[derive(Debug, Clone)]
pub struct ScalarHead {
    weight: Tensor<2>, // [H, 1]
    trainable: bool,
}

impl ScalarHead {
    /// A head of zeros: every score is 0 until it is trained.
    pub fn zeros(hidden_size: usize, device: &Device) -> Self {
        Self { weight: Tensor::zeros([hidden_size, 1], device), trainable: false }
    }

    /// A head drawn uniformly with the given standard deviation.
    pub fn random(hidden_size: usize, standard_deviation: f64, seed: u64, device: &Device) -> Self {
        let bound = (standard_deviation * 3f64.sqrt()) as f32; // sd of uniform(-b, b) is b / sqrt 3
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let values: Vec<f32> = (0..hidden_size).map(|_| (2.0 * rng.random::<f32>() - 1.0) * bound).collect();
        Self::from_values(values, device)
    }

    /// A head with the given weights, `[H]`.
    pub fn from_values(values: Vec<f32>, device: &Device) -> Self {
        let rows = values.len();
        Self { weight: Tensor::from_data(TensorData::new(values, [rows, 1]), device), trainable: false }
    }

    /// Reads `score.weight`, `[1, H]`; none if the files have no such weight.
    ///
    /// # Errors
    /// If the weight is there and cannot be read.
    pub fn load(weights: &dyn WeightSource, device: &Device) -> Result<Option<Self>> {
        match weights.shape(SCORE) {
            None => Ok(None),
            Some(_) => Ok(Some(Self::from_values(weights.load_f32(SCORE)?, device))),
        }
    }

    /// Starts or stops gradients.
    pub fn set_trainable(&mut self, trainable: bool) {
        self.trainable = trainable;
        let weight = self.weight.clone().inner();
        self.weight = if trainable { weight.autodiff().require_grad() } else { weight };
    }

    /// A copy that shares the weight and takes no part in autodiff.
    pub fn frozen(&self) -> Self {
        Self { weight: self.weight.clone().inner(), trainable: false }
    }

    /// Scores at the given stream indices.
    ///
    /// Shapes: `hidden`: `[N, H]`; returns `[R]`.
    pub fn forward(&self, hidden: &Tensor<2>, indices: &[usize]) -> Tensor<1> {
        let index = int_tensor(indices.iter().map(|&i| i as i64).collect(), &hidden.device().inner());
        hidden.clone().select(0, index).matmul(self.weight.clone()).reshape([indices.len()])
    }

    /// The weight, `[H, 1]`, under its name.
    pub fn parameter(&self) -> (&'static str, Tensor<2>) {
        (SCORE, self.weight.clone())
    }

    /// Replaces the weight by `update(name, weight)`; it stays trainable if it was.
    pub fn map_parameter(&mut self, update: impl FnOnce(&str, Tensor<2>) -> Tensor<2>) {
        let trainable = self.trainable;
        self.weight.inplace(|weight| crate::params::restored(update(SCORE, weight), trainable));
    }

    /// The weight as plain numbers, `[H]`.
    pub fn values(&self) -> Vec<f32> {
        crate::params::host_values(self.weight.clone())
    }
}
