//! Speed and peak memory of a training step on a real model:
//! `cargo run --release -p rlaif-train --example footprint -- MODEL dpo|dpo-lora|ppo-lora [checkpointing]`.
//!
//! Four pairs (or eight responses) of 120 tokens after prompts of 40, as the quickstart has them.

use std::time::Instant;

use rlaif_core::config::{DpoConfig, LoraConfig, OptimConfig, PpoConfig};
use rlaif_model::{Decoder, ModelFiles, ScalarHead, open_device};
use rlaif_train::dpo_trainer::ReferencedPair;
use rlaif_train::ppo_trainer::PpoRates;
use rlaif_train::rollout::Experience;
use rlaif_train::{DpoTrainer, PpoTrainer, PreferenceExample, Result};

const PROMPT: usize = 40;
const RESPONSE: usize = 120;

/// Token ids that only have to be there.
fn ids(start: usize, count: usize) -> Vec<u32> {
    (0..count).map(|i| (1000 + (start * 131 + i * 17) % 20_000) as u32).collect()
}

fn peak_gigabytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|n| n.parse::<f64>().ok());
    kilobytes.map_or(f64::NAN, |kb| kb / 1e6)
}

fn report(what: &str, step: usize, tokens: usize, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    let speed = tokens as f64 / seconds;
    println!(
        "{what} step {step}: {seconds:.1} s, {speed:.0} tokens/s, peak memory {:.2} GB",
        peak_gigabytes()
    );
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, model, what, rest @ ..] = arguments.as_slice() else {
        eprintln!("usage: footprint MODEL dpo|dpo-lora|ppo-lora [checkpointing]");
        std::process::exit(1);
    };
    let gradient_checkpointing = rest.iter().any(|word| word == "checkpointing");
    let optim = OptimConfig { gradient_checkpointing, ..OptimConfig::default() };
    let files = ModelFiles::open(model)?;
    let device = open_device("cpu")?;
    let decoder = Decoder::load(&files.config, &*files.weights, &device)?;
    match what.as_str() {
        "ppo-lora" => ppo(decoder, optim),
        "dpo-lora" => dpo(decoder, Some(LoraConfig::default()), optim),
        _ => dpo(decoder, None, optim),
    }
}

fn dpo(decoder: Decoder, lora: Option<LoraConfig>, optim: OptimConfig) -> Result<()> {
    let examples: Vec<PreferenceExample> = (0..4)
        .map(|i| PreferenceExample {
            prompt_id: i.to_string(),
            prompt_ids: ids(i, PROMPT),
            chosen_ids: ids(10 + i, RESPONSE),
            rejected_ids: ids(20 + i, RESPONSE),
            ..PreferenceExample::default()
        })
        .collect();
    let pairs: Vec<ReferencedPair<'_>> = examples
        .iter()
        .map(|example| ReferencedPair { example, ref_chosen: -900.0, ref_rejected: -900.0, unrelated: None })
        .collect();
    let mut trainer = DpoTrainer::new(decoder, &DpoConfig { lora, optim, ..DpoConfig::default() }, 0)?;
    for step in 1..=3 {
        let start = Instant::now();
        let metrics = trainer.update(&pairs, 1e-6, step as u64)?;
        report("dpo", step, metrics.tokens, start);
    }
    Ok(())
}

fn ppo(decoder: Decoder, optim: OptimConfig) -> Result<()> {
    let config = PpoConfig {
        lora: Some(LoraConfig::default()),
        epochs: Some(1),
        optim: optim.clone(),
        critic_optim: optim,
        ..PpoConfig::default()
    };
    let head = ScalarHead::zeros(decoder.config().hidden_size, decoder.device());
    let mut trainer = PpoTrainer::new(decoder.clone(), Some((decoder, head)), &config, 0)?;
    for step in 1..=3 {
        let mut experiences: Vec<Experience> = (0..8)
            .map(|i| Experience::new(ids(i / 4, PROMPT), ids(10 + i, RESPONSE), true, &config, RESPONSE + 1))
            .collect();
        let tokens = 2 * PROMPT + 8 * RESPONSE;
        let start = Instant::now();
        let scores = experiences.iter().map(|e| Some(f64::from(e.response_ids[0] % 7))).collect();
        trainer.measure(&mut experiences, scores, step == 1, step)?;
        report("ppo measure", step as usize, 3 * tokens, start);
        let start = Instant::now();
        trainer.update(&experiences, PpoRates { policy: Some(1e-6), critic: 1e-6 }, step)?;
        report("ppo update", step as usize, 2 * tokens, start);
    }
    Ok(())
}
