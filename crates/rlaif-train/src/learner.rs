//! A model with its optimizer: what every trainer does the same way.
//!
//! ```text
//! forward (trainer) ─▶ numbers ─▶ loss and gradient (host) ─▶ backward ─▶ … micro-batches … ─▶ step
//! ```
//!
//! With `optim.dtype = "bfloat16"` the model's weights are bfloat16 numbers, and the optimizer updates float32 copies of those that
//! train, the masters: what a step adds is often less than half the distance of two bfloat16 numbers, and would be lost in rounding.

use std::borrow::Cow;
use std::collections::BTreeMap;

use burn::tensor::{Gradients, Tensor, TensorData};
use rlaif_core::config::{Dtype, LoraConfig, OptimConfig};
use rlaif_core::seed;
use rlaif_model::{Adapter, Checkpoints, Decoder, PackedBatch, ScalarHead, Trainable, rounded_to_bfloat16};

use crate::checkpoint::{Checkpoint, Snapshot};
use crate::error::{Result, TrainError, finite};
use crate::optimizer::{Optimizer, clip_factor, sum_of_squares};

/// A decoder, perhaps with a scalar head, that learns.
#[derive(Debug)]
pub struct Learner {
    /// The model; its trainable parameters are autodiff leaves.
    pub decoder: Decoder,
    /// The scalar head of a reward model or critic; it always trains in full.
    pub head: Option<ScalarHead>,
    /// What updates all of them.
    pub optimizer: Optimizer,
    /// Float32 copies of the trainable parameters, where those are bfloat16.
    masters: Option<BTreeMap<String, Vec<f32>>>,
    max_grad_norm: f64,
    gradients: BTreeMap<String, Tensor<2>>, // summed over micro-batches, without autodiff
    seed: u64,
    micro_batches: u64, // of this step so far
    checkpointing: bool,
    checkpoints: Option<(Decoder, Checkpoints)>, // of the forward pass that waits for its backward pass
}

impl Learner {
    /// Makes all weights trainable, or fresh adapters if `lora` is given (seeded by `seed`), and rounds the model if `optim` says so;
    /// masters start unrounded.
    ///
    /// # Errors
    /// If a LoRA target does not exist.
    pub fn new(
        mut decoder: Decoder,
        mut head: Option<ScalarHead>,
        optim: &OptimConfig,
        lora: Option<&LoraConfig>,
        seed: u64,
    ) -> Result<Self> {
        match lora {
            Some(lora) => decoder.add_lora(lora, seed)?,
            None => decoder.set_trainable(Trainable::Full),
        }
        if let Some(head) = &mut head {
            head.set_trainable(true);
        }
        let mut learner = Self {
            decoder,
            head,
            optimizer: Optimizer::new(optim),
            masters: None,
            max_grad_norm: optim.max_grad_norm,
            gradients: BTreeMap::new(),
            seed,
            micro_batches: 0,
            checkpointing: optim.gradient_checkpointing,
            checkpoints: None,
        };
        if optim.dtype == Dtype::Bfloat16 {
            learner.masters = Some(learner.export_parameters());
            learner.decoder.round_to_bfloat16();
            if let Some(head) = &mut learner.head {
                head.round_to_bfloat16();
            }
        }
        Ok(learner)
    }

    /// Final hidden states of a micro-batch that is learnt from, `[N, H]`, where they are `read`: [`Decoder::hidden_at`] with the adapters' dropout.
    ///
    /// Masks follow from the seed, the optimizer's step and the micro-batch's number in it. With gradient checkpointing, what is
    /// computed from the hidden states must go through [`backward`](Self::backward) before the next micro-batch.
    pub fn hidden(&mut self, batch: &PackedBatch, read: &[usize]) -> Tensor<2> {
        self.hidden_with_noise(batch, read, None)
    }

    /// [`hidden`](Self::hidden) with noise on the token embeddings, `[N, H]`, row-major.
    pub fn hidden_with_noise(
        &mut self,
        batch: &PackedBatch,
        read: &[usize],
        noise: Option<Vec<f32>>,
    ) -> Tensor<2> {
        let step = seed::derive(self.seed, "lora/dropout", self.optimizer.step());
        let masks = seed::derive(step, "micro-batch", self.micro_batches);
        self.micro_batches += 1;
        let decoder = self.decoder.with_dropout(masks);
        if !self.checkpointing {
            return decoder.hidden_with_noise(batch, read, noise);
        }
        let (hidden, checkpoints) = decoder.checkpointed(batch, read, noise);
        self.checkpoints = Some((decoder, checkpoints));
        hidden
    }

    /// The trainable parameters, head last.
    pub fn parameters(&self) -> Vec<(String, Tensor<2>)> {
        let mut parameters = self.decoder.parameters();
        parameters.extend(self.head.iter().map(|head| {
            let (name, weight) = head.parameter();
            (name.to_string(), weight)
        }));
        parameters
    }

    /// Backpropagates the gradient of a loss with respect to what the model said, and adds it to the gradients of the step.
    ///
    /// Shapes: `output`: `[R]`, from this model's forward pass; `gradient`: `[R]`, d loss / d output.
    pub fn backward(&mut self, output: &Tensor<1>, gradient: &[f64]) {
        self.backward_from(weighted(output, gradient));
    }

    /// [`backward`](Self::backward) of two outputs of one forward pass, such as log-probs and values of one trunk.
    pub fn backward_both(&mut self, outputs: [(&Tensor<1>, &[f64]); 2]) {
        let [first, second] = outputs.map(|(output, gradient)| weighted(output, gradient));
        self.backward_from(first + second);
    }

    fn backward_from(&mut self, sum: Tensor<1>) {
        let mut gradients = sum.backward();
        let parameters = self.parameters();
        let mut found: BTreeMap<String, Tensor<2>> = BTreeMap::new(); // of this micro-batch
        let mut take = |gradients: &mut Gradients| {
            for (name, parameter) in &parameters {
                // A parameter that the loss does not reach, such as a critic's vocabulary projection, has no gradient.
                if let Some(gradient) = parameter.grad_remove(gradients) {
                    add_to(&mut found, name, gradient);
                }
            }
        };
        match self.checkpoints.take() {
            None => take(&mut gradients),
            Some((decoder, checkpoints)) => checkpoints.backward(&decoder, gradients, &mut take),
        }
        found.into_iter().for_each(|(name, gradient)| add_to(&mut self.gradients, &name, gradient));
    }

    /// Forgets the gradients of the step.
    pub fn discard_gradients(&mut self) {
        self.gradients.clear();
        self.micro_batches = 0;
    }

    /// Clips the summed gradients by their global norm, updates the parameters or their masters, and returns the norm before clipping.
    ///
    /// `step` (from 1) is for the error message.
    ///
    /// # Errors
    /// If the norm is not finite; parameters are then unchanged.
    pub fn step(&mut self, learning_rate: f64, step: u64) -> Result<f64> {
        let gradients: BTreeMap<String, Vec<f32>> =
            std::mem::take(&mut self.gradients).into_iter().map(|(name, g)| (name, to_host(g))).collect();
        let norm = gradients.values().map(|g| sum_of_squares(g)).sum::<f64>().sqrt();
        let norm = finite("the gradient norm", norm, step)?;
        let scale = clip_factor(norm, self.max_grad_norm);
        self.optimizer.begin_step();
        self.micro_batches = 0;
        let (optimizer, masters) = (&mut self.optimizer, &mut self.masters);
        let mut update = |name: &str, parameter: Tensor<2>| {
            let Some(gradient) = gradients.get(name) else { return parameter };
            let (shape, device) = (parameter.dims(), parameter.device().inner());
            let mut step = |values: &mut [f32]| {
                optimizer.update(name, values, shape[1], gradient, scale, learning_rate);
            };
            let values = match masters.as_mut().and_then(|masters| masters.get_mut(name)) {
                Some(master) => {
                    step(master);
                    rounded_to_bfloat16(master)
                }
                None => {
                    let mut values = to_host(parameter);
                    step(&mut values);
                    values
                }
            };
            Tensor::from_data(TensorData::new(values, shape), &device)
        };
        self.decoder.map_parameters(&mut update);
        if let Some(head) = &mut self.head {
            head.map_parameter(&mut update);
        }
        Ok(norm)
    }

    /// The adapters by themselves; `None` where the model trains in full.
    pub fn adapter(&self) -> Option<Adapter> {
        self.decoder.adapter()
    }

    /// The model for scoring or saving: adapters merged, nothing trainable.
    pub fn into_model(self) -> (Decoder, Option<ScalarHead>) {
        let mut decoder = self.decoder;
        decoder.merge_lora();
        decoder.set_trainable(Trainable::None);
        (decoder, self.head.map(|head| head.frozen()))
    }

    /// A copy of the trainable parameters in host memory; where they have masters, of those.
    pub fn export_parameters(&self) -> BTreeMap<String, Vec<f32>> {
        match &self.masters {
            Some(masters) => masters.clone(),
            None => self.parameters().into_iter().map(|(name, p)| (name, to_host(p))).collect(),
        }
    }

    /// Puts back what [`export_parameters`](Self::export_parameters) gave.
    ///
    /// # Errors
    /// If a parameter is missing or has another size.
    pub fn import_parameters(&mut self, values: &BTreeMap<String, Vec<f32>>) -> Result<()> {
        let working = |values: &Vec<f32>| match self.masters {
            Some(_) => rounded_to_bfloat16(values),
            None => values.clone(),
        };
        self.decoder.import_parameters(&|name| values.get(name).map(working))?;
        if let Some(head) = &mut self.head {
            let size = head.values().len();
            let (name, _) = head.parameter();
            let missing =
                || TrainError::Checkpoint { path: name.into(), reason: "the head is not in it".into() };
            let found = values.get(name).filter(|v| v.len() == size).map(working).ok_or_else(missing)?;
            head.map_parameter(|_, weight| {
                Tensor::from_data(TensorData::new(found, weight.dims()), &weight.device().inner())
            });
        }
        for (name, master) in self.masters.iter_mut().flatten() {
            master.clone_from(&values[name]);
        }
        Ok(())
    }

    /// Adds parameters, moments and step count to a snapshot, under `prefix`.
    pub fn write_to<'a>(&'a self, prefix: &str, snapshot: &mut Snapshot<'a>) {
        let mut put = |name: &str, values| snapshot.tensor(format!("{prefix}/parameter/{name}"), values);
        match &self.masters {
            Some(masters) => masters.iter().for_each(|(name, master)| put(name, Cow::Borrowed(master))),
            None => self.parameters().into_iter().for_each(|(name, p)| put(&name, Cow::Owned(to_host(p)))),
        }
        self.optimizer.write_to(prefix, snapshot);
    }

    /// Takes over what [`write_to`](Self::write_to) wrote.
    ///
    /// # Errors
    /// If something is missing or has another size.
    pub fn read_from(&mut self, prefix: &str, checkpoint: &mut Checkpoint) -> Result<()> {
        self.import_parameters(&checkpoint.take_tensors(&format!("{prefix}/parameter/")))?;
        self.optimizer.read_from(prefix, checkpoint)
    }
}

/// Σ gradient · output, `[1]`, whose slope is that of the loss.
fn weighted(output: &Tensor<1>, gradient: &[f64]) -> Tensor<1> {
    let gradient: Vec<f32> = gradient.iter().map(|&g| g as f32).collect();
    let size = gradient.len();
    let gradient = Tensor::<1>::from_data(TensorData::new(gradient, [size]), &output.device().inner());
    (output.clone() * gradient).sum()
}

fn add_to(sums: &mut BTreeMap<String, Tensor<2>>, name: &str, gradient: Tensor<2>) {
    let sum = match sums.remove(name) {
        Some(sum) => sum + gradient,
        None => gradient,
    };
    sums.insert(name.to_string(), sum);
}

/// The numbers of a tensor in row-major order; float32 is what models train in.
pub(crate) fn to_host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.inner().into_data().try_into_vec().expect("training tensors are float32")
}

/// [`to_host`] as `f64`, for losses.
pub(crate) fn to_f64(tensor: &Tensor<1>) -> Vec<f64> {
    to_host(tensor.clone()).into_iter().map(f64::from).collect()
}
