//! Tokens per second of scoring, of a training step and of sampling:
//! `cargo run --release -p rlaif-model --example speed -- MODEL [medium] [score] [full] [lora] [sample] [single] [scaling]`;
//! `medium` rounds products to bfloat16, as `run.float32_matmul_precision` does.
//!
//! The training step is that of the design document's measurements: 8 sequences of 256 tokens, log-probabilities at every
//! position, forward and backward through all weights.

use std::time::Instant;

use burn::tensor::Tensor;
use rlaif_core::config::{LoraConfig, MatmulPrecision};
use rlaif_model::{
    Decoder, GenerateRequest, ModelFiles, PackedBatch, Reads, Result, SamplingConfig, Trainable, generate,
    open_device, set_float32_matmul_precision,
};

fn main() -> Result<()> {
    let spec =
        std::env::args().nth(1).unwrap_or_else(|| "models/SmolLM2-135M-Instruct.Q4_1.gguf".to_string());
    let files = ModelFiles::open(&spec)?;
    let parts: Vec<String> = std::env::args().skip(2).collect();
    let named = |part: &str| parts.iter().any(|p| p == part);
    let wanted = |part: &str| named(part) || parts.iter().all(|part| part == "medium");
    if named("medium") {
        println!("{:?}", set_float32_matmul_precision(MatmulPrecision::Medium));
    }
    let start = Instant::now();
    let mut decoder = Decoder::load(&files.config, files.weights.as_ref(), &open_device("cpu")?)?;
    println!("load: {:.1} s", start.elapsed().as_secs_f64());

    let vocabulary = files.config.vocab_size as u32;
    let mut batch = PackedBatch::new();
    let mut reads = Reads::new();
    for sequence in 0..8u32 {
        let ids: Vec<u32> = (0..256u32).map(|t| (sequence * 7919 + t * 104_729) % vocabulary).collect();
        let segment = batch.push_sequence(&ids);
        reads.append(batch.sequence_reads(segment));
    }
    let tokens = batch.num_tokens() as f64;
    let rate = |start: Instant| tokens / start.elapsed().as_secs_f64();

    for _ in 0..if wanted("score") { 2 } else { 0 } {
        let start = Instant::now();
        let hidden = decoder.hidden(&batch);
        let forward = rate(start);
        let start = Instant::now();
        let mean = decoder.logprobs(&hidden, &reads, 1.0).mean();
        println!(
            "score: hidden {forward:.0} tokens/s, log-probs {:.0} tokens/s, mean {:.4}",
            rate(start),
            mean.into_scalar::<f32>()
        );
    }
    for (part, trainable) in [("full", Trainable::Full), ("lora", Trainable::Lora)] {
        if !wanted(part) {
            continue;
        }
        if trainable == Trainable::Lora {
            decoder.add_lora(&LoraConfig::default(), 1)?;
        }
        decoder.set_trainable(trainable);
        for _ in 0..3 {
            let start = Instant::now();
            let loss = -decoder.logprobs(&decoder.hidden(&batch), &reads, 1.0).mean();
            let forward = start.elapsed().as_secs_f64();
            let grads = loss.backward();
            let norm: Vec<Tensor<2>> =
                decoder.parameters().into_iter().filter_map(|(_, p)| p.grad(&grads)).collect();
            println!(
                "train {trainable:?}: {:.0} tokens/s (forward {forward:.2} s, {} gradients)",
                rate(start),
                norm.len()
            );
        }
    }

    if wanted("scaling") {
        scaling(&decoder);
    }
    let config = SamplingConfig {
        temperature: 1.0,
        top_p: 1.0,
        top_k: 0,
        max_new_tokens: 64,
        stop_ids: vec![],
        batch_size: 32,
    };
    let requests = |count: usize, n: usize| -> Vec<GenerateRequest> {
        let prompt = |i: usize| batch.ids()[i * 8..i * 8 + 48].to_vec();
        (0..count).map(|i| GenerateRequest { prompt_ids: prompt(i), n, seed: i as u64 }).collect()
    };
    for (part, prompts, samples, batch_size, top_p) in
        [("sample", 16, 4, 32, 1.0), ("sample", 16, 4, 32, 0.95), ("single", 4, 1, 1, 1.0)]
    {
        if !wanted(part) {
            continue;
        }
        let start = Instant::now();
        let mut tokens = 0;
        let config = SamplingConfig { top_p, batch_size, ..config.clone() };
        generate(&decoder, &requests(prompts, samples), &config, &mut |p| tokens = p.tokens)?;
        println!(
            "sample (batch {batch_size}, top_p {top_p}): {:.0} tokens/s",
            tokens as f64 / start.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

/// A training step of as many tokens in sequences of any length, and of sequences of one length in any number.
fn scaling(decoder: &Decoder) {
    let mut decoder = decoder.clone();
    decoder.set_trainable(Trainable::Full);
    let step = |sequences: usize, length: usize| {
        let mut batch = PackedBatch::new();
        let mut last = Reads::new();
        for sequence in 0..sequences as u32 {
            let ids: Vec<u32> =
                (0..length as u32).map(|t| (sequence * 7919 + t * 104_729) % 40_000).collect();
            let segment = batch.push_sequence(&ids);
            last.indices.push(batch.last_index(segment));
            last.targets.push(1);
        }
        let start = Instant::now();
        let loss = decoder.logprobs(&decoder.hidden(&batch), &last, 1.0).mean();
        drop(loss.backward());
        1e3 * start.elapsed().as_secs_f64() / batch.num_tokens() as f64
    };
    step(2, 128);
    println!("| tokens | sequences of | ms a token | peak memory |\n|---|---|---|---|");
    let by_tokens = [512, 1024, 2048, 4096].map(|tokens| (tokens, 128));
    let by_length = [256, 512, 1024, 2048].map(|length| (4096, length));
    for (tokens, length) in by_tokens.into_iter().chain(by_length) {
        let times = [(); 2].map(|()| step(tokens / length, length));
        let fastest = times.into_iter().fold(f64::INFINITY, f64::min);
        println!("| {tokens} | {length} | {fastest:.2} | {:.2} GB |", peak_gigabytes());
    }
}

fn peak_gigabytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|n| n.parse::<f64>().ok());
    kilobytes.map_or(f64::NAN, |kb| kb / 1e6)
}
