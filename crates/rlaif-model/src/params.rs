//! Walking a decoder's parameters in a fixed order, by the names that the family's files have for them.
//!
//! Optimizers and checkpoints need nothing else of a model: names to key their state, tensors to read and to replace.

#[cfg(feature = "flex")]
use burn::backend::{Flex, flex::FlexTensor};
use burn::tensor::{Tensor, TensorData};

use crate::decoder::{Decoder, Layer, Linear, Norm};
use crate::error::{ModelError, Result};

/// Which parameters take gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trainable {
    /// None: for sampling and scoring.
    #[default]
    None,
    /// Every weight of the model; adapters, if there are any, stay fixed.
    Full,
    /// Only the adapters.
    Lora,
}

/// What a walked tensor is, which decides whether it trains and how it is laid out in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// `[V, H]` here and in the file.
    Embedding,
    /// `[1, n]` here, `[n]` in the file.
    Vector,
    /// `[in, out]` here, `[out, in]` in the file.
    Linear,
    /// `[in, out]` here and in the file.
    Conv1d,
    /// Adapter matrices, `[in, rank]` and `[rank, out]`.
    Lora,
}

impl Trainable {
    pub(crate) fn covers(self, slot: Slot) -> bool {
        match self {
            Self::None => false,
            Self::Full => slot != Slot::Lora,
            Self::Lora => slot == Slot::Lora,
        }
    }
}

impl Decoder {
    /// Calls `visit` with every tensor: embedding and learned positions, layers in order, final norm, output head if it is not
    /// the embedding.
    pub(crate) fn walk(&mut self, visit: &mut dyn FnMut(&str, Slot, &mut Tensor<2>)) {
        let architecture = self.config.architecture;
        let names = &architecture.names;
        let linear_slot = if architecture.conv1d { Slot::Conv1d } else { Slot::Linear };
        visit(&format!("{}.weight", names.embedding), Slot::Embedding, &mut self.embedding);
        if let Some(positions) = &mut self.positions {
            visit(&format!("{}.weight", names.positions), Slot::Embedding, positions);
        }
        for (number, layer) in self.layers.iter_mut().enumerate() {
            let prefix = format!("{}.{number}.", names.layers);
            walk_norm(&prefix, &mut layer.input_norm, visit);
            for linear in layer.projections_mut() {
                walk_linear(&prefix, linear, linear_slot, visit);
            }
            let Layer { query_norm, key_norm, attention_norm, mlp_norm, mlp_output_norm, .. } = layer;
            let norms = [query_norm.as_mut(), key_norm.as_mut(), attention_norm.as_mut(), Some(mlp_norm)];
            for norm in norms.into_iter().chain([mlp_output_norm.as_mut()]).flatten() {
                walk_norm(&prefix, norm, visit);
            }
        }
        walk_norm("", &mut self.norm, visit);
        if let Some(head) = &mut self.head {
            visit(&format!("{}.weight", names.head), Slot::Embedding, head);
        }
    }

    /// Which parameters take gradients now.
    pub fn trainable(&self) -> Trainable {
        self.trainable
    }

    /// Says which parameters take gradients from now on.
    pub fn set_trainable(&mut self, trainable: Trainable) {
        self.trainable = trainable;
        self.walk(&mut |_, slot, tensor| tensor.inplace(|t| restored(t, trainable.covers(slot))));
    }

    /// The trainable parameters in walking order; the tensors share the model's memory and its autodiff nodes.
    pub fn parameters(&self) -> Vec<(String, Tensor<2>)> {
        let trainable = self.trainable;
        let mut found = Vec::new();
        self.clone().walk(&mut |name, slot, tensor| {
            if trainable.covers(slot) {
                found.push((name.to_string(), tensor.clone()));
            }
        });
        found
    }

    /// Replaces each trainable parameter by `update(name, parameter)`, in walking order.
    ///
    /// The parameter comes with its autodiff node, so that `update` can take its gradient; what `update` returns becomes a
    /// fresh leaf.
    pub fn map_parameters(&mut self, mut update: impl FnMut(&str, Tensor<2>) -> Tensor<2>) {
        let trainable = self.trainable;
        self.walk(&mut |name, slot, tensor| {
            if trainable.covers(slot) {
                tensor.inplace(|t| restored(update(name, t), true));
            }
        });
    }

    /// Puts back parameters written down from [`parameters`](Self::parameters): values in walking order by name.
    ///
    /// # Errors
    /// If a trainable parameter has no value or one of another size; the model is then unchanged.
    pub fn import_parameters(&mut self, value_of: &dyn Fn(&str) -> Option<Vec<f32>>) -> Result<()> {
        let mut values = Vec::new();
        for (name, parameter) in self.parameters() {
            let [rows, columns] = parameter.dims();
            let found = value_of(&name).ok_or_else(|| ModelError::MissingTensor { name: name.clone() })?;
            if found.len() != rows * columns {
                return Err(ModelError::TensorShape {
                    name,
                    expected: vec![rows, columns],
                    got: vec![found.len()],
                });
            }
            values.push(TensorData::new(found, [rows, columns]));
        }
        let mut values = values.into_iter();
        self.map_parameters(|_, parameter| match values.next() {
            Some(data) => Tensor::from_data(data, &parameter.device().inner()),
            None => parameter,
        });
        Ok(())
    }

    /// Number of trainable numbers.
    pub fn num_trainable(&self) -> usize {
        self.parameters().iter().map(|(_, p)| p.dims().iter().product::<usize>()).sum()
    }

    /// The same weights without autodiff: for rollouts and scoring while the original trains.
    pub fn frozen(&self) -> Decoder {
        let mut copy = self.clone();
        copy.set_trainable(Trainable::None);
        copy
    }

    /// The same base weights without the adapters and without autodiff: the frozen reference of a policy that trains LoRA.
    pub fn without_adapter(&self) -> Decoder {
        let mut copy = self.frozen();
        copy.lora = None;
        for linear in copy.layers.iter_mut().flat_map(Layer::projections_mut) {
            linear.lora = None;
        }
        copy
    }
}

fn walk_norm(prefix: &str, norm: &mut Norm, visit: &mut dyn FnMut(&str, Slot, &mut Tensor<2>)) {
    visit(&format!("{prefix}{}.weight", norm.name), Slot::Vector, &mut norm.weight);
    if let Some(bias) = &mut norm.bias {
        visit(&format!("{prefix}{}.bias", norm.name), Slot::Vector, bias);
    }
}

fn walk_linear(
    prefix: &str,
    linear: &mut Linear,
    slot: Slot,
    visit: &mut dyn FnMut(&str, Slot, &mut Tensor<2>),
) {
    let name = linear.name;
    visit(&format!("{prefix}{name}.weight"), slot, &mut linear.weight);
    if let Some(bias) = &mut linear.bias {
        visit(&format!("{prefix}{name}.bias"), Slot::Vector, bias);
    }
    if let Some(lora) = &mut linear.lora {
        visit(&format!("{prefix}{name}.lora_A.weight"), Slot::Lora, &mut lora.a);
        visit(&format!("{prefix}{name}.lora_B.weight"), Slot::Lora, &mut lora.b);
    }
}

/// A fresh autodiff leaf, or a plain tensor.
pub(crate) fn restored(tensor: Tensor<2>, trainable: bool) -> Tensor<2> {
    let plain = tensor.inner();
    if trainable { plain.autodiff().require_grad() } else { plain }
}

/// The numbers of a tensor in row-major order.
pub(crate) fn host_values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.inner().into_data().try_into_vec().expect("model tensors are float32")
}

/// A matrix in host memory, row by row: where it lies if it lies there, else a copy of it.
pub(crate) enum HostRows {
    #[cfg(feature = "flex")]
    Lent(FlexTensor),
    Copied {
        values: Vec<f32>,
        width: usize,
    },
}

impl HostRows {
    pub fn of(x: Tensor<2>) -> Self {
        let x = x.inner();
        #[cfg(feature = "flex")]
        if crate::device::is_flex(&x.device()) {
            let x = x.try_into_primitive::<Flex>().expect("a tensor without autodiff on the CPU");
            return Self::Lent(if x.layout().strides()[1] == 1 { x } else { x.to_contiguous() });
        }
        let width = x.dims()[1];
        Self::Copied { values: host_values(x), width }
    }

    pub fn row(&self, row: usize) -> &[f32] {
        match self {
            #[cfg(feature = "flex")]
            Self::Lent(x) => {
                let layout = x.layout();
                let start = layout.start_offset().strict_add_signed(row as isize * layout.strides()[0]);
                &x.storage()[start..start + layout.shape()[1]]
            }
            Self::Copied { values, width } => &values[row * width..(row + 1) * width],
        }
    }
}
