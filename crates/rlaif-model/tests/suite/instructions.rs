//! Instructions of small passes under valgrind: what a change makes slower shows here on any machine, however busy.
//!
//! Valgrind knows no AVX-512, so these are the exact products, and the kernels, of an AVX2 machine, on one thread.

use std::process::Command;

use crate::common::*;
use rlaif_core::config::LoraConfig;
use rlaif_model::{
    Decoder, GenerateRequest, Generator, ModelConfig, PackedBatch, Reads, SamplingConfig, Trainable,
};

/// Millions of instructions of each pass, as of the last change that was meant to move them.
const MILLIONS: [(&str, f64); 4] = [("score", 28.08), ("train", 60.25), ("lora", 55.23), ("sample", 31.17)];

/// Counts of one toolchain repeat to a thousandth; memory is copied a little differently on other machines.
const TOLERANCE: f64 = 1.05;

/// Names the pass that `counted_pass` makes.
const PASS: &str = "RLAIF_COUNTED_PASS";

#[test]
fn no_pass_takes_more_instructions_than_it_did() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: valgrind is not installed");
        return;
    }
    let mut grown = Vec::new();
    for (pass, wanted) in MILLIONS {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
            .arg("--toggle-collect=*instructions::counted*")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "instructions::counted_pass", "--ignored", "--test-threads=1"])
            .env(PASS, pass)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let count =
            said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse::<f64>().ok());
        let found = count.unwrap_or_else(|| panic!("a number of instructions in {said}")) / 1e6;
        println!("{pass}: {found:.2} million, {:+.1} %", 100.0 * (found / wanted - 1.0));
        if found > TOLERANCE * wanted {
            grown.push(format!("{pass}: {found:.2} million instructions, {wanted:.2} before"));
        }
    }
    assert!(grown.is_empty(), "{}; if that is worth it, write the new numbers down", grown.join("; "));
}

#[test]
#[ignore = "what no_pass_takes_more_instructions_than_it_did runs under valgrind"]
fn counted_pass() {
    // One thread, this one: instructions are collected by thread.
    rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global().unwrap();
    let work = Work::new(&std::env::var(PASS).unwrap_or_else(|_| "score".into()));
    work.run(); // what is made once is made here
    counted(&work);
}

#[inline(never)]
fn counted(work: &Work) {
    std::hint::black_box(work.run());
}

struct Work {
    decoder: Decoder,
    generator: Generator,
    batch: PackedBatch,
    reads: Reads,
    pass: String,
}

impl Work {
    /// Two layers of width 96, and three prompts with two responses each, of ragged lengths.
    fn new(pass: &str) -> Self {
        let json = serde_json::json!({
            "model_type": "llama", "vocab_size": 512, "hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 2,
            "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 128, "tie_word_embeddings": true
        });
        let config = ModelConfig::from_hf_json(&json).unwrap();
        let mut decoder = Decoder::load(&config, &RandomWeights(config.clone()), &device()).unwrap();
        let generator = Generator::new(&decoder);
        match pass {
            "train" => decoder.set_trainable(Trainable::Full),
            "lora" => decoder.add_lora(&LoraConfig::default(), 1).unwrap(),
            _ => {}
        }
        let (mut batch, mut reads) = (PackedBatch::new(), Reads::new());
        for tree in 0..3 {
            let prompt = batch.push_prompt(&ids(tree, 9 + 5 * tree as usize));
            for side in 0..2 {
                let response =
                    batch.push_response(prompt, &ids(10 + 2 * tree + side, 14 + 3 * side as usize));
                reads.append(batch.response_reads(response));
            }
        }
        Self { decoder, generator, batch, reads, pass: pass.into() }
    }

    /// One forward pass, one with its gradients, or eight tokens of each of four samples.
    fn run(&self) -> f32 {
        let logprob = || {
            let hidden = self.decoder.hidden_at(&self.batch, &self.reads.indices);
            self.decoder.logprobs(&hidden, &self.reads, 1.0).mean()
        };
        match &*self.pass {
            "score" => logprob().into_scalar::<f32>(),
            "train" | "lora" => {
                let gradients = logprob().backward();
                self.decoder.parameters().iter().filter(|(_, p)| p.grad(&gradients).is_some()).count() as f32
            }
            _ => {
                let requests = [(1, 20), (2, 20), (3, 13), (4, 5)].map(|(seed, len)| GenerateRequest {
                    prompt_ids: ids(seed, len),
                    n: 1,
                    seed,
                });
                let config = SamplingConfig {
                    temperature: 1.0,
                    top_p: 0.9,
                    top_k: 0,
                    max_new_tokens: 8,
                    stop_ids: vec![],
                    batch_size: 4,
                };
                let samples = self.generator.generate(&requests, &config, &mut |_| {}).unwrap();
                samples.iter().flatten().flat_map(|sample| &sample.logprobs).sum()
            }
        }
    }
}
