//! Scalar heads: the score of a reward model, the value of a critic.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::attention::int_tensor;
use crate::error::{ModelError, Result};
use crate::safetensors_io::SafetensorsWeights;
use crate::weights::WeightSource;

/// Name of the weight in the Hugging Face layout of sequence classifiers.
pub const SCORE: &str = "score.weight";

/// Name of the weight of several heads, `[K, H]`, in [`HEADS_FILE`].
pub const SCORES: &str = "scores.weight";

/// Where an ensemble's heads are, beside the `model.safetensors` that has their mean.
pub const HEADS_FILE: &str = "heads.safetensors";

/// One number for each hidden state that is read: a linear map without bias, as in
/// `AutoModelForSequenceClassification` with one label. An ensemble gives K numbers.
#[derive(Debug, Clone)]
pub struct ScalarHead {
    weight: Tensor<2>, // [H, K], K = 1 but for ensembles
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

    /// `heads` heads, each drawn as by [`random`](Self::random) from its own of `seeds`.
    ///
    /// # Panics
    /// If there is no seed.
    pub fn ensemble(hidden_size: usize, standard_deviation: f64, seeds: &[u64], device: &Device) -> Self {
        let heads: Vec<Vec<f32>> = seeds
            .iter()
            .map(|&seed| Self::random(hidden_size, standard_deviation, seed, device).values())
            .collect();
        Self::from_heads(&heads, device)
    }

    /// An ensemble with the given weights, `[H]` each.
    ///
    /// # Panics
    /// If there is no head, or their sizes differ.
    pub fn from_heads(heads: &[Vec<f32>], device: &Device) -> Self {
        let rows = heads.first().expect("an ensemble has a head").len();
        assert!(heads.iter().all(|head| head.len() == rows), "heads of one model have one size");
        let values: Vec<f32> = (0..rows).flat_map(|row| heads.iter().map(move |head| head[row])).collect();
        let weight = Tensor::from_data(TensorData::new(values, [rows, heads.len()]), device);
        Self { weight, trainable: false }
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

    /// The heads of an ensemble's folder, or its one head; none if the folder has neither.
    ///
    /// # Errors
    /// If the weights are there and cannot be read.
    pub fn load_all(
        folder: &Path,
        weights: &dyn WeightSource,
        hidden_size: usize,
        device: &Device,
    ) -> Result<Option<Self>> {
        let path = folder.join(HEADS_FILE);
        if !path.is_file() {
            return Self::load(weights, device);
        }
        let stored = SafetensorsWeights::open_files(vec![path])?;
        let values = stored.load_f32(SCORES)?;
        match stored.shape(SCORES) {
            Some(shape) if shape.len() == 2 && shape[0] > 0 && shape[1] == hidden_size => {
                let heads: Vec<Vec<f32>> = values.chunks(hidden_size).map(<[f32]>::to_vec).collect();
                Ok(Some(Self::from_heads(&heads, device)))
            }
            got => Err(ModelError::TensorShape {
                name: SCORES.to_string(),
                expected: vec![1, hidden_size],
                got: got.unwrap_or_default(),
            }),
        }
    }

    /// How many numbers it gives a read.
    pub fn count(&self) -> usize {
        self.weight.dims()[1]
    }

    /// The head whose score is the mean of all: heads are linear, so the mean of their weights.
    pub fn mean_head(&self) -> Self {
        let count = self.count();
        if count == 1 {
            return self.frozen();
        }
        let values = self.values();
        let sums = values.chunks(count).map(|row| row.iter().map(|&w| f64::from(w)).sum::<f64>());
        let mean: Vec<f32> = sums.map(|sum| (sum / count as f64) as f32).collect();
        Self::from_values(mean, &self.weight.device().inner())
    }

    /// The weights of each head, `[H]` each.
    pub fn each(&self) -> Vec<Vec<f32>> {
        let (values, count) = (self.values(), self.count());
        (0..count).map(|head| values.iter().skip(head).step_by(count).copied().collect()).collect()
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
    /// Shapes: `hidden`: `[N, H]`; returns `[R · K]`, the K scores of a read in turns.
    pub fn forward(&self, hidden: &Tensor<2>, indices: &[usize]) -> Tensor<1> {
        let index = int_tensor(indices.iter().map(|&i| i as i64).collect(), &hidden.device().inner());
        hidden.clone().select(0, index).matmul(self.weight.clone()).reshape([indices.len() * self.count()])
    }

    /// The weight, `[H, K]`, under its name.
    pub fn parameter(&self) -> (&'static str, Tensor<2>) {
        (SCORE, self.weight.clone())
    }

    /// Replaces the weight by `update(name, weight)`; it stays trainable if it was.
    pub fn map_parameter(&mut self, update: impl FnOnce(&str, Tensor<2>) -> Tensor<2>) {
        let trainable = self.trainable;
        self.weight.inplace(|weight| crate::params::restored(update(SCORE, weight), trainable));
    }

    /// The weight as plain numbers, `[H · K]`.
    pub fn values(&self) -> Vec<f32> {
        crate::params::host_values(self.weight.clone())
    }
}
