//! Each kernel against its portable form: values and gradients.

use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rlaif_core::config::MatmulPrecision;

use crate::attention::{Heads, PortableAttention};
use crate::batch::{PackedBatch, Reads};
use crate::config::ModelConfig;
use crate::ops::Attention;
use crate::rope::Rope;

pub(super) fn random(seed: u64, shape: [usize; 2]) -> Tensor<2> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| rng.random_range(-1.5..1.5)).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

pub(super) fn leaf(seed: u64, shape: [usize; 2]) -> Tensor<2> {
    random(seed, shape).autodiff().require_grad()
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.inner().into_data().try_into_vec().unwrap()
}

/// The function's value and the gradients of its inputs, for a loss that weighs every output differently.
fn differentiate(inputs: &[Tensor<2>], function: impl Fn(&[Tensor<2>]) -> Tensor<2>) -> Vec<Vec<f32>> {
    let output = function(inputs);
    let grads = (output.clone() * random(99, output.dims())).sum().backward();
    let mut all = vec![numbers(output)];
    all.extend(inputs.iter().map(|x| numbers(x.grad(&grads).unwrap())));
    all
}

#[track_caller]
fn assert_same(found: &[Vec<f32>], wanted: &[Vec<f32>], tolerance: f32) {
    for (part, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        assert_eq!(found.len(), wanted.len());
        let scale = wanted.iter().fold(1f32, |m, w| m.max(w.abs()));
        for (i, (f, w)) in found.iter().zip(wanted).enumerate() {
            assert!((f - w).abs() <= tolerance * scale, "part {part}, element {i}: {f} and {w}");
        }
    }
}

#[test]
fn rms_norm_is_its_portable_form() {
    let inputs = [leaf(1, [37, 50]), leaf(2, [1, 50])];
    let fused = differentiate(&inputs, |x| super::rms_norm(x[0].clone(), &x[1], 1e-5));
    let portable = differentiate(&inputs, |x| crate::ops::portable_rms_norm(x[0].clone(), &x[1], 1e-5));
    assert_same(&fused, &portable, 1e-5);
}

#[test]
fn swiglu_is_its_portable_form() {
    let inputs = [leaf(1, [37, 50]), leaf(2, [37, 50])];
    let fused = differentiate(&inputs, |x| super::swiglu(x[0].clone(), x[1].clone()));
    let portable = differentiate(&inputs, |x| crate::ops::portable_swiglu(x[0].clone(), x[1].clone()));
    assert_same(&fused, &portable, 1e-5);
}

#[test]
fn a_product_of_swiglu_is_its_portable_form() {
    for (rows, inner, outputs) in [(37, 50, 24), (1, 7, 1)] {
        let inputs = [leaf(1, [rows, inner]), leaf(2, [rows, inner]), leaf(3, [inner, outputs])];
        let fused = |precision| {
            differentiate(&inputs, |x| super::swiglu_matmul(x[0].clone(), x[1].clone(), &x[2], precision))
        };
        let portable = differentiate(&inputs, |x| {
            crate::ops::portable_swiglu(x[0].clone(), x[1].clone()).matmul(x[2].clone())
        });
        assert_same(&fused(MatmulPrecision::Highest), &portable, 1e-5);
        if !super::bf16::available() {
            continue;
        }
        let steps = differentiate(&inputs, |x| {
            super::bf16_matmul(super::swiglu(x[0].clone(), x[1].clone()), x[2].clone())
        });
        assert_same(&fused(MatmulPrecision::Medium), &steps, 0.0);
    }
}

#[test]
fn a_projection_with_its_adapter_is_its_portable_form() {
    for (rows, inputs, rank, outputs) in [(37, 50, 4, 24), (1, 7, 1, 1), (300, 96, 16, 33)] {
        let factors = [[rows, inputs], [inputs, outputs], [inputs, rank], [rank, outputs]];
        let factors: Vec<Tensor<2>> =
            factors.into_iter().zip(1..).map(|(shape, seed)| leaf(seed, shape)).collect();
        let fused = |precision| {
            differentiate(&factors, |f| {
                super::lora_matmul(f[0].clone(), &f[1], [&f[2], &f[3]], 0.7, precision)
            })
        };
        let composed = |matmul: fn(Tensor<2>, Tensor<2>) -> Tensor<2>| {
            differentiate(&factors, |f| {
                let h = matmul(f[0].clone(), f[2].clone()).mul_scalar(0.7);
                matmul(f[0].clone(), f[1].clone()) + matmul(h, f[3].clone())
            })
        };
        assert_same(&fused(MatmulPrecision::Highest), &composed(Tensor::matmul), 1e-5);
        if super::bf16::available() {
            assert_same(&fused(MatmulPrecision::Medium), &composed(super::bf16_matmul), 1e-5);
        }
    }
}

#[test]
fn inputs_that_are_views_are_read_in_their_order() {
    let (x, up) = (random(1, [50, 37]), random(2, [37, 50]));
    let fused = numbers(super::swiglu(x.clone().transpose(), up.clone()));
    assert_same(&[fused], &[numbers(crate::ops::portable_swiglu(x.transpose(), up))], 1e-5);
}

/// Rotary on the whole head, rotary on its beginning, learned positions.
#[test]
fn attention_is_its_portable_form() {
    let llama = serde_json::json!({
        "model_type": "llama", "vocab_size": 9, "hidden_size": 48, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8
    });
    let neox = serde_json::json!({
        "model_type": "gpt_neox", "vocab_size": 9, "hidden_size": 48, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 6, "rotary_pct": 0.5
    });
    let gpt2 = serde_json::json!({
        "model_type": "gpt2", "vocab_size": 9, "n_embd": 48, "n_layer": 1, "n_head": 6
    });
    // Lengths on both sides of a tile, a prompt with several responses, a sequence alone, a single token.
    let mut batch = PackedBatch::new();
    let prompt = batch.push_prompt(&[1; 70]);
    batch.push_sequence(&[2; 64]);
    batch.push_response(prompt, &[3; 65]);
    batch.push_response(prompt, &[4; 1]);
    batch.push_sequence(&[5; 1]);
    batch.push_response(prompt, &[6; 130]);
    // Prompts with a beginning in common: with responses and without, and a chain of four.
    let beginning = batch.push_prompt(&[7; 66]);
    let rests = [3, 65].map(|len| batch.push_prompt_after(beginning, &vec![8; len]));
    batch.push_prompt_after(beginning, &[8; 2]);
    let first = batch.push_response(rests[0], &[9; 1]);
    batch.push_response(rests[0], &[1; 70]);
    batch.push_response(rests[1], &[2; 5]);
    batch.push_response(first, &[3; 4]);
    // Windows of one token, within a tile, across the prompt's end, and over everything.
    let windows = [None, Some(1), Some(20), Some(75), Some(1000)];
    for (json, window) in
        windows.map(|window| (&llama, window)).into_iter().chain([(&neox, Some(20)), (&gpt2, None)])
    {
        let config = ModelConfig::from_hf_json(json).unwrap();
        let (heads, rope, device) = (Heads::of(&config), Rope::new(&config), Device::flex());
        let fused = Attention::new(&batch, heads, &rope, window, &device);
        assert!(matches!(fused, Attention::Fused(_)));
        let portable = PortableAttention::new(&batch, heads, &rope, window, &device);
        let (n, narrow) = (batch.num_tokens(), heads.key_value * heads.dim);
        let inputs = [leaf(1, [n, 48]), leaf(2, [n, narrow]), leaf(3, [n, narrow])];
        let with = |x: &[Tensor<2>]| [x[0].clone(), x[1].clone(), x[2].clone()];
        let fused = differentiate(&inputs, |x| {
            let [q, k, v] = with(x);
            fused.forward(q, k, v)
        });
        let portable = differentiate(&inputs, |x| {
            let [q, k, v] = with(x);
            portable.forward(q, k, v)
        });
        assert_same(&fused, &portable, 2e-5);
    }
}

#[test]
fn token_statistics_are_their_portable_form() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let count = 2 * 192 + 7; // two whole chunks and a rest
    let reads = Reads {
        indices: (0..count).map(|_| rng.random_range(0..60)).collect(), // some are read more than once
        targets: (0..count).map(|_| rng.random_range(0..33)).collect(),
    };
    let inputs = [leaf(1, [60, 20]), leaf(2, [33, 20])];
    let fused = differentiate(&inputs, |x| {
        crate::logprobs::statistics(&x[0], &x[1], &reads, 0.7).logprobs.reshape([count, 1])
    });
    let portable = differentiate(&inputs, |x| {
        crate::logprobs::portable(&x[0], &x[1], &reads, 0.7, false).logprobs.reshape([count, 1])
    });
    assert_same(&fused, &portable, 2e-5);
    let others = |s: crate::logprobs::TokenStatistics| [numbers(s.entropy), numbers(s.top)];
    let fused = others(crate::logprobs::statistics(&inputs[0], &inputs[1], &reads, 0.7));
    let portable = others(crate::logprobs::portable(&inputs[0], &inputs[1], &reads, 0.7, true));
    assert_same(&fused, &portable, 1e-5);
    let top = fused[1].iter().sum::<f32>();
    assert!(top > 0.0 && top < count as f32 / 2.0, "{top} of {count} targets are the likeliest");
}

#[test]
fn a_frozen_head_gets_no_gradient_and_the_hidden_states_do() {
    let (hidden, head) = (leaf(1, [4, 20]), random(2, [33, 20]));
    let reads = Reads { indices: vec![0, 3], targets: vec![5, 6] };
    let grads = crate::logprobs::logprobs(&hidden, &head, &reads, 1.0).sum().backward();
    let found = numbers(hidden.grad(&grads).unwrap());
    assert!(found[..20].iter().any(|g| *g != 0.0) && found[20..60].iter().all(|g| *g == 0.0));
}

/// Gradients too are products of rounded factors: 8 bits each, so that sums of 600 differ by a few thousandths of the largest.
#[test]
fn rounded_products_are_near_the_exact_ones() {
    if !super::bf16::available() {
        println!("skipped: this processor does not multiply bfloat16 numbers");
        return;
    }
    for (tokens, inputs, outputs) in [(1, 1, 1), (5, 64, 33), (250, 600, 100)] {
        let inputs = [leaf(1, [tokens, inputs]), leaf(2, [inputs, outputs])];
        let rounded = differentiate(&inputs, |x| super::bf16_matmul(x[0].clone(), x[1].clone()));
        let exact = differentiate(&inputs, |x| x[0].clone().matmul(x[1].clone()));
        assert_same(&rounded, &exact, 1e-2);
    }
}
