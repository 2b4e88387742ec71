//! Times of passes through two layers of SmolLM2-135M's shape with a small vocabulary, in exact and in rounded products:
//! `cargo bench --workspace --bench steps`.

use burn::tensor::Tensor;
use criterion::{Criterion, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rlaif_core::config::LoraConfig;
use rlaif_core::config::MatmulPrecision::{Highest, Medium};
use rlaif_model::{
    Decoder, GenerateRequest, Generator, ModelConfig, PackedBatch, Reads, Result, SamplingConfig, Trainable,
    WeightSource, open_device, set_float32_matmul_precision,
};

/// The workloads.
const NAMES: [&str; 5] = ["score", "train", "lora", "decode-32", "decode-1"];

const VOCABULARY: u32 = 4096;

fn steps(criterion: &mut Criterion) {
    for precision in [Highest, Medium] {
        if set_float32_matmul_precision(precision) != precision {
            continue; // this processor does not multiply bfloat16 numbers
        }
        let mut group = criterion.benchmark_group(format!("{precision:?}").to_lowercase());
        group.sample_size(20);
        for name in NAMES {
            let workload = Workload::new(name);
            group.bench_function(name, |bencher| bencher.iter(|| workload.run()));
        }
    }
}

/// Everything that a workload needs, made beforehand.
struct Workload {
    decoder: Decoder,
    generator: Generator,
    batch: PackedBatch,
    reads: Reads,
    requests: Vec<GenerateRequest>,
    name: &'static str,
}

impl Workload {
    /// # Panics
    /// If there is none of that name.
    fn new(name: &str) -> Self {
        let name = NAMES.into_iter().find(|known| *known == name).expect("one of the names");
        let json = serde_json::json!({
            "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 2,
            "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 512, "tie_word_embeddings": true
        });
        let config = ModelConfig::from_hf_json(&json).expect("a config");
        let device = open_device("cpu").expect("the CPU");
        let mut decoder =
            Decoder::load(&config, &RandomWeights(config.clone()), &device).expect("its weights");
        let generator = Generator::new(&decoder);
        match name {
            "train" => decoder.set_trainable(Trainable::Full),
            "lora" => decoder.add_lora(&LoraConfig::default(), 1).expect("its projections"),
            _ => {}
        }
        // Three prompts with two responses each, of ragged lengths.
        let (mut batch, mut reads) = (PackedBatch::new(), Reads::new());
        for tree in 0..3 {
            let prompt = batch.push_prompt(&ids(tree, 40 + 7 * tree as usize));
            for side in 0..2 {
                let response =
                    batch.push_response(prompt, &ids(10 + 2 * tree + side, 60 + 11 * side as usize));
                reads.append(batch.response_reads(response));
            }
        }
        let count = if name == "decode-1" { 1 } else { 32 };
        let requests =
            (0..count).map(|seed| GenerateRequest { prompt_ids: ids(seed, 32), n: 1, seed }).collect();
        Self { decoder, generator, batch, reads, requests, name }
    }

    /// One forward pass, training step, or eight tokens of each sample; returns a number, so that none of it can be left out.
    fn run(&self) -> f32 {
        match self.name {
            "score" => self.mean_logprob().into_scalar::<f32>(),
            "train" | "lora" => {
                let gradients = self.mean_logprob().backward();
                self.decoder.parameters().iter().filter(|(_, p)| p.grad(&gradients).is_some()).count() as f32
            }
            _ => {
                let config = SamplingConfig {
                    temperature: 1.0,
                    top_p: 1.0,
                    top_k: 0,
                    max_new_tokens: 8,
                    stop_ids: vec![],
                    batch_size: 32,
                };
                let samples = self.generator.generate(&self.requests, &config, &mut |_| {});
                samples.expect("prompts fit").iter().flatten().flat_map(|sample| &sample.logprobs).sum()
            }
        }
    }

    fn mean_logprob(&self) -> Tensor<1> {
        self.decoder.logprobs(&self.decoder.hidden(&self.batch), &self.reads, 1.0).mean()
    }
}

fn ids(seed: u64, count: usize) -> Vec<u32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(0..VOCABULARY)).collect()
}

/// Weights as small as a model's.
struct RandomWeights(ModelConfig);

impl WeightSource for RandomWeights {
    fn names(&self) -> Vec<String> {
        self.0.tensor_shapes().into_iter().map(|(name, _)| name).collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.0.tensor_shapes().into_iter().find(|(known, _)| known == name).map(|(_, shape)| shape)
    }

    fn load_f32(&self, name: &str) -> Result<Vec<f32>> {
        let size = self.shape(name).expect("a tensor of the config").iter().product();
        let mut rng = ChaCha8Rng::seed_from_u64(name.bytes().map(u64::from).sum());
        Ok((0..size).map(|_| rng.random_range(-0.05..0.05)).collect())
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);
