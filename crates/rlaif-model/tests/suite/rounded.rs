//! `float32_matmul_precision = "medium"` at the level of a model: near the exact one, and the same in sampling as in training.
//!
//! The setting is the process's, so these run one test a process, as nextest does.

use crate::common::*;
use rlaif_core::config::MatmulPrecision::{Highest, Medium};
use rlaif_model::{
    Decoder, GenerateRequest, PackedBatch, Reads, SamplingConfig, Trainable, generate,
    set_float32_matmul_precision,
};

const MODELS: [&str; 3] = ["llama", "qwen3", "gpt_neox"];

/// Whether this processor rounds, which it does from now on.
fn rounds() -> bool {
    let rounds = set_float32_matmul_precision(Medium) == Medium;
    if !rounds {
        println!("skipped: this processor does not multiply bfloat16 numbers");
    }
    rounds
}

/// A prompt with responses, one of a single token, and sequences of ragged lengths, one of a single token.
fn ragged() -> (PackedBatch, Reads) {
    let (mut batch, mut reads) = (PackedBatch::new(), Reads::new());
    let prompt = batch.push_prompt(&ids(1, 9));
    for (seed, len) in [(2, 13), (3, 1), (4, 33)] {
        let response = batch.push_response(prompt, &ids(seed, len));
        reads.append(batch.response_reads(response));
    }
    for (seed, len) in [(5, 1), (6, 40)] {
        let sequence = batch.push_sequence(&ids(seed, len));
        reads.append(batch.sequence_reads(sequence));
    }
    (batch, reads)
}

/// Log-probabilities, and the gradient of their mean by parameter.
fn learnt(decoder: &Decoder) -> (Vec<f32>, Vec<(String, Vec<f32>)>) {
    let mut decoder = decoder.clone();
    decoder.set_trainable(Trainable::Full);
    let (batch, reads) = ragged();
    let logprobs = decoder.logprobs(&decoder.hidden(&batch), &reads, 1.0);
    let grads = logprobs.clone().mean().backward();
    let gradient =
        |(name, parameter): (String, burn::tensor::Tensor<2>)| Some((name, values(parameter.grad(&grads)?)));
    (values(logprobs), decoder.parameters().into_iter().filter_map(gradient).collect())
}

#[test]
fn logprobs_and_gradients_are_near_the_exact_ones() {
    for name in MODELS {
        let (decoder, _) = golden(name);
        set_float32_matmul_precision(Highest);
        let (exact, exact_gradients) = learnt(&decoder);
        if !rounds() {
            return;
        }
        let (rounded, gradients) = learnt(&decoder);
        assert_close(&rounded, &exact, 3e-2);
        assert_ne!(rounded, exact, "{name}: something is rounded");
        for ((parameter, rounded), (_, exact)) in gradients.iter().zip(&exact_gradients) {
            let dot = |a: &[f32], b: &[f32]| {
                a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
            };
            let size = (dot(rounded, rounded) * dot(exact, exact)).sqrt();
            // A key's bias moves every score of a row alike: its gradient is rounding and nothing else.
            if size.sqrt() < 1e-6 {
                continue;
            }
            let cosine = dot(rounded, exact) / size;
            assert!(cosine > 0.999, "{name}, {parameter}: {cosine} at {size}");
        }
    }
}

/// Packed once and side by side for sampling, one by one for training: the same products.
#[test]
fn sampled_logprobs_are_those_that_training_recomputes() {
    if !rounds() {
        return;
    }
    for name in MODELS {
        let (decoder, _) = golden(name);
        let config = SamplingConfig {
            temperature: 1.0,
            top_p: 0.9,
            top_k: 0,
            max_new_tokens: 40, // crosses a cache block of 32
            stop_ids: vec![],
            batch_size: 3,
        };
        let requests: Vec<GenerateRequest> = [(7, 1), (8, 12), (9, 33)]
            .map(|(seed, len)| GenerateRequest { prompt_ids: ids(seed, len), n: 2, seed })
            .into();
        let sampled = generate(&decoder, &requests, &config, &mut |_| {}).unwrap();
        for (request, samples) in requests.iter().zip(sampled) {
            let mut batch = PackedBatch::new();
            let prompt = batch.push_prompt(&request.prompt_ids);
            for sample in samples {
                let response = batch.push_response(prompt, &sample.ids);
                let reads = batch.response_reads(response);
                let recomputed = decoder.logprobs(&decoder.hidden(&batch), &reads, 1.0);
                assert_close(&sample.logprobs, &values(recomputed), 1e-2);
            }
        }
    }
}
