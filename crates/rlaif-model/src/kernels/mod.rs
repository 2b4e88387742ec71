//! Fused operations for the CPU (`flex`), each with a handwritten backward pass.
//!
//! Every one of them computes what a portable function of this crate computes with tensor operations, and is tested against it:
//!
//! | kernel | portable form |
//! |---|---|
//! | [`attention`] | [`PortableAttention`](crate::attention::PortableAttention) |
//! | [`logprobs`] | [`crate::logprobs`] |
//! | [`norm`] | [`crate::ops::rms_norm`] |
//! | [`lora`] | [`Lora::forward`](crate::lora::Lora::forward), added to a product |
//! | [`swiglu`] | [`crate::ops::swiglu`] |
//! | [`bf16`] | a product in float32, of factors that are rounded first |
//!
//! What they save is memory traffic: no padding, no mask, no `[R, V]` matrix that lives until the backward pass, no temporary
//! per elementwise step.

pub(crate) mod attention;
pub(crate) mod bf16;
pub(crate) mod logprobs;
pub(crate) mod lora;
mod matmul;
pub(crate) mod matrix;
pub(crate) mod norm;
mod right;
pub(crate) mod swiglu;

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{Tensor, TensorData};
use rlaif_core::config::MatmulPrecision;

use self::attention::{AttentionPlan, Saved};
use self::logprobs::ReadPlan;
use self::lora::Factors;

/// The fused operations as a Burn backend extension; use the functions of this module.
#[backend_extension(Flex, Autodiff)]
pub trait FusedOps: Backend {
    /// See [`attention`].
    fn packed_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        plan: Arc<AttentionPlan>,
    ) -> FloatTensor<Self>;

    /// See [`logprobs`]; `[3, R]`: log-probabilities, entropies, whether the target is the likeliest token.
    fn token_statistics(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        plan: Arc<ReadPlan>,
    ) -> FloatTensor<Self>;

    /// See [`norm`].
    fn fused_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self>;

    /// See [`swiglu`].
    fn fused_swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;

    /// See [`swiglu`].
    fn swiglu_matmul(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        precision: MatmulPrecision,
    ) -> FloatTensor<Self>;

    /// See [`lora`].
    fn lora_matmul(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
        precision: MatmulPrecision,
    ) -> FloatTensor<Self>;

    /// See [`bf16`].
    fn bf16_matmul(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Rotates queries and keys and attends within a packed batch; shapes as
/// [`PortableAttention::forward`](crate::attention::PortableAttention::forward).
pub(crate) fn packed_attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    plan: &Arc<AttentionPlan>,
) -> Tensor<2> {
    let output = <Dispatch as FusedOps>::packed_attention(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        plan.clone(),
    );
    Tensor::from_dispatch(output)
}

/// What [`logprobs::forward`] reads, `[3, R]`; only the log-probabilities carry a gradient.
pub(crate) fn token_statistics(hidden: &Tensor<2>, head: &Tensor<2>, plan: ReadPlan) -> Tensor<2> {
    let (hidden, head) = (hidden.clone().into_dispatch(), head.clone().into_dispatch());
    Tensor::from_dispatch(<Dispatch as FusedOps>::token_statistics(hidden, head, Arc::new(plan)))
}

/// As [`crate::ops::rms_norm`].
pub(crate) fn rms_norm(x: Tensor<2>, weight: &Tensor<2>, epsilon: f64) -> Tensor<2> {
    let output =
        <Dispatch as FusedOps>::fused_rms_norm(x.into_dispatch(), weight.clone().into_dispatch(), epsilon);
    Tensor::from_dispatch(output)
}

/// As [`crate::ops::swiglu`].
pub(crate) fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as FusedOps>::fused_swiglu(gate.into_dispatch(), up.into_dispatch()))
}

/// [`swiglu`] times W, `[I, out]`: what lies between them, `[N, I]`, is computed again in the backward pass instead of kept.
pub(crate) fn swiglu_matmul(
    gate: Tensor<2>,
    up: Tensor<2>,
    weight: &Tensor<2>,
    precision: MatmulPrecision,
) -> Tensor<2> {
    let [gate, up, weight] = [gate, up, weight.clone()].map(Tensor::into_dispatch);
    Tensor::from_dispatch(<Dispatch as FusedOps>::swiglu_matmul(gate, up, weight, precision))
}

/// x W + s x A B for `[N, in]`, `[in, out]`, `[in, r]` and `[r, out]`.
pub(crate) fn lora_matmul(
    x: Tensor<2>,
    weight: &Tensor<2>,
    [a, b]: [&Tensor<2>; 2],
    scale: f64,
    precision: MatmulPrecision,
) -> Tensor<2> {
    let [x, weight, a, b] = [x, weight.clone(), a.clone(), b.clone()].map(Tensor::into_dispatch);
    Tensor::from_dispatch(<Dispatch as FusedOps>::lora_matmul(x, weight, a, b, scale, precision))
}

/// x W for `[N, in]` and `[in, out]`, factors rounded to bfloat16; so are those of the gradients' products.
pub(crate) fn bf16_matmul(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as FusedOps>::bf16_matmul(x.into_dispatch(), weight.into_dispatch()))
}

/// The numbers of a tensor, row-major; copied only if they lie otherwise.
pub(crate) struct Contiguous(FlexTensor);

impl Contiguous {
    /// Of a tensor without autodiff on the CPU.
    pub fn of_tensor(tensor: &Tensor<2>) -> Self {
        let primitive = tensor.clone().try_into_primitive::<Flex>();
        Self::of(&primitive.expect("a tensor without autodiff on the CPU"))
    }

    pub fn of(tensor: &FlexTensor) -> Self {
        Self(if tensor.as_slice::<f32>().is_some() { tensor.clone() } else { tensor.to_contiguous() })
    }

    pub fn slice(&self) -> &[f32] {
        self.0.as_slice().expect("a contiguous float32 tensor")
    }
}

fn tensor(values: Vec<f32>, shape: [usize; 2]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

fn dims(tensor: &FlexTensor) -> [usize; 2] {
    let shape = tensor.layout().shape();
    [shape[0], shape[1]]
}

impl FusedOps for Flex {
    fn packed_attention(q: FlexTensor, k: FlexTensor, v: FlexTensor, plan: Arc<AttentionPlan>) -> FlexTensor {
        attention::forward(&q, &k, &v, &plan).0
    }

    fn token_statistics(hidden: FlexTensor, head: FlexTensor, plan: Arc<ReadPlan>) -> FlexTensor {
        logprobs::forward(&hidden, &head, &plan).0
    }

    fn fused_rms_norm(x: FlexTensor, weight: FlexTensor, epsilon: f64) -> FlexTensor {
        norm::forward(&x, &weight, epsilon as f32).0
    }

    fn fused_swiglu(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
        swiglu::forward(&gate, &up)
    }

    fn swiglu_matmul(
        gate: FlexTensor,
        up: FlexTensor,
        weight: FlexTensor,
        precision: MatmulPrecision,
    ) -> FlexTensor {
        swiglu::product(&gate, &up, &weight, precision)
    }

    fn lora_matmul(
        x: FlexTensor,
        weight: FlexTensor,
        a: FlexTensor,
        b: FlexTensor,
        scale: f64,
        precision: MatmulPrecision,
    ) -> FlexTensor {
        lora::forward(&x, &Factors { weight, a, b, scale: scale as f32, precision }).0
    }

    fn bf16_matmul(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
        bf16::forward(&x, &weight)
    }
}

impl<C: CheckpointStrategy> FusedOps for Autodiff<Flex, C> {
    fn packed_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        plan: Arc<AttentionPlan>,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Step;
        impl Backward<Flex, 3> for Step {
            type State = (Arc<Saved>, Arc<AttentionPlan>);
            fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
                let grad = grads.consume::<Flex>(&ops.node);
                let (saved, plan) = ops.state;
                let found = attention::backward(&grad, &saved, &plan);
                for (node, gradient) in ops.parents.into_iter().zip(found) {
                    if let Some(node) = node {
                        grads.register::<Flex>(node.id, gradient);
                    }
                }
            }
        }
        let (output, saved) = attention::forward(q.primitive(), k.primitive(), v.primitive(), &plan);
        match Step.prepare::<C>([q.node(), k.node(), v.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((Arc::new(saved), plan), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn token_statistics(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        plan: Arc<ReadPlan>,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Step;
        impl Backward<Flex, 2> for Step {
            type State = (FlexTensor, FlexTensor, Arc<Vec<f32>>, Arc<ReadPlan>);
            fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
                let grad = grads.consume::<Flex>(&ops.node);
                let (hidden, head, log_sums, plan) = ops.state;
                let [hidden_node, head_node] = ops.parents;
                let (hidden_grad, head_grad) =
                    logprobs::backward(&grad, &hidden, &head, &log_sums, &plan, head_node.is_some());
                if let Some(node) = hidden_node {
                    grads.register::<Flex>(node.id, hidden_grad);
                }
                if let (Some(node), Some(gradient)) = (head_node, head_grad) {
                    grads.register::<Flex>(node.id, gradient);
                }
            }
        }
        let (output, log_sums) = logprobs::forward(hidden.primitive(), head.primitive(), &plan);
        match Step.prepare::<C>([hidden.node(), head.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let state = (hidden.primitive().clone(), head.primitive().clone(), Arc::new(log_sums), plan);
                prep.finish(state, output)
            }
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn fused_rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Step;
        impl Backward<Flex, 2> for Step {
            type State = (FlexTensor, FlexTensor, Arc<Vec<f32>>);
            fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
                let grad = grads.consume::<Flex>(&ops.node);
                let (x, weight, inverse) = ops.state;
                let [x_node, weight_node] = ops.parents;
                if let Some(node) = weight_node {
                    grads.register::<Flex>(node.id, norm::weight_gradient(&grad, &x, &inverse));
                }
                if let Some(node) = x_node {
                    grads.register::<Flex>(node.id, norm::input_gradient(&grad, &x, &weight, &inverse));
                }
            }
        }
        let (output, inverse) = norm::forward(x.primitive(), weight.primitive(), epsilon as f32);
        match Step.prepare::<C>([x.node(), weight.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                prep.finish((x.primitive().clone(), weight.primitive().clone(), Arc::new(inverse)), output)
            }
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn fused_swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Step;
        impl Backward<Flex, 2> for Step {
            type State = (FlexTensor, FlexTensor);
            fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
                let grad = grads.consume::<Flex>(&ops.node);
                let (gate, up) = ops.state;
                let found = swiglu::backward(&grad, &gate, &up);
                for (node, gradient) in ops.parents.into_iter().zip(found) {
                    if let Some(node) = node {
                        grads.register::<Flex>(node.id, gradient);
                    }
                }
            }
        }
        let output = swiglu::forward(gate.primitive(), up.primitive());
        match Step.prepare::<C>([gate.node(), up.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((gate.primitive().clone(), up.primitive().clone()), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn swiglu_matmul(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        precision: MatmulPrecision,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Step;
        impl Backward<Flex, 3> for Step {
            type State = ([FlexTensor; 3], MatmulPrecision);
            fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
                let grad = grads.consume::<Flex>(&ops.node);
                let ([gate, up, weight], precision) = ops.state;
                let [gate_node, up_node, weight_node] = ops.parents;
                if let Some(node) = weight_node {
                    let gradient = swiglu::weight_gradient(&grad, &gate, &up, precision);
                    grads.register::<Flex>(node.id, gradient);
                }
                if gate_node.is_none() && up_node.is_none() {
                    return;
                }
                let found = swiglu::input_gradients(&grad, &gate, &up, &weight, precision);
                for (node, gradient) in [gate_node, up_node].into_iter().zip(found) {
                    if let Some(node) = node {
                        grads.register::<Flex>(node.id, gradient);
                    }
                }
            }
        }
        let factors = [&gate, &up, &weight].map(|tensor| tensor.primitive().clone());
        let output = swiglu::product(&factors[0], &factors[1], &factors[2], precision);
        match Step.prepare::<C>([gate.node(), up.node(), weight.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((factors, precision), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn lora_matmul(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
        precision: MatmulPrecision,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Step;
        impl Backward<Flex, 4> for Step {
            type State = ([FlexTensor; 2], Factors); // x, h
            fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
                let grad = grads.consume::<Flex>(&ops.node);
                let ([x, h], factors) = ops.state;
                let [x_node, weight_node, a_node, b_node] = ops.parents;
                if let Some(node) = weight_node {
                    grads.register::<Flex>(node.id, matmul::weight_gradient(&grad, &x, factors.precision));
                }
                if let Some(node) = b_node {
                    grads.register::<Flex>(node.id, matmul::weight_gradient(&grad, &h, factors.precision));
                }
                let inner = lora::inner_gradient(&grad, &factors);
                if let Some(node) = a_node {
                    grads.register::<Flex>(node.id, matmul::weight_gradient(&inner, &x, factors.precision));
                }
                if let Some(node) = x_node {
                    grads.register::<Flex>(node.id, lora::input_gradient(&grad, &inner, &factors));
                }
            }
        }
        let [x_part, weight_part, a_part, b_part] =
            [&x, &weight, &a, &b].map(|tensor| tensor.primitive().clone());
        let factors = Factors { weight: weight_part, a: a_part, b: b_part, scale: scale as f32, precision };
        let (output, h) = lora::forward(&x_part, &factors);
        match Step.prepare::<C>([x.node(), weight.node(), a.node(), b.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(([x_part, h], factors), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn bf16_matmul(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Step;
        impl Backward<Flex, 2> for Step {
            type State = (FlexTensor, FlexTensor);
            fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
                let grad = grads.consume::<Flex>(&ops.node);
                let (x, weight) = ops.state;
                let [x_node, weight_node] = ops.parents;
                if let Some(node) = x_node {
                    grads.register::<Flex>(node.id, bf16::input_gradient(&grad, &weight));
                }
                if let Some(node) = weight_node {
                    grads.register::<Flex>(node.id, bf16::weight_gradient(&grad, &x));
                }
            }
        }
        let output = bf16::forward(x.primitive(), weight.primitive());
        match Step.prepare::<C>([x.node(), weight.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                prep.finish((x.primitive().clone(), weight.primitive().clone()), output)
            }
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }
}

#[cfg(test)]
mod roofline;
#[cfg(test)]
mod tests;
