//! A real model, read from its GGUF: log-probabilities and greedy tokens of transformers on the same dequantised weights.

use crate::common::*;
use rlaif_model::{Decoder, GenerateRequest, ModelFiles, PackedBatch, SamplingConfig, generate};
use serde_json::Value;

#[test]
fn smollm2_reproduces_transformers() {
    let Some(path) = smollm2() else { return };
    let files = ModelFiles::open(&path.to_string_lossy()).unwrap();
    let golden: Value = serde_json::from_str(include_str!("../golden/smollm2.json")).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    let decoder = Decoder::load(&files.config, files.weights.as_ref(), &device()).unwrap();

    let mut batch = PackedBatch::new();
    let segments: Vec<_> = cases.iter().map(|case| batch.push_sequence(&token_ids(&case["ids"]))).collect();
    let last: Vec<usize> = segments.iter().map(|s| batch.last_index(*s)).collect();
    let logits = values(decoder.logits_at(&decoder.hidden(&batch), &last));
    for (case, logits) in cases.iter().zip(logits.chunks(files.config.vocab_size)) {
        let total = logits.iter().map(|l| f64::from(*l).exp()).sum::<f64>().ln();
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
        assert_eq!(order[..5], token_ids(&case["last_top5_ids"]));
        let found: Vec<f32> =
            order[..5].iter().map(|i| (f64::from(logits[*i as usize]) - total) as f32).collect();
        assert_close(&found, &numbers(&case["last_top5_logprobs"]), 2e-3);
    }

    let wanted: Vec<Vec<u32>> = cases.iter().map(|case| token_ids(&case["greedy_ids"])).collect();
    let requests: Vec<_> = cases
        .iter()
        .map(|case| GenerateRequest { prompt_ids: token_ids(&case["ids"]), n: 1, seed: 0 })
        .collect();
    let config = SamplingConfig {
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        max_new_tokens: wanted.iter().map(Vec::len).max().unwrap(),
        stop_ids: files.tokenizer.eos_ids().to_vec(),
        batch_size: 4,
    };
    let samples = generate(&decoder, &requests, &config, &mut |_| {}).unwrap();
    let found: Vec<Vec<u32>> = samples.into_iter().map(|s| s[0].ids.clone()).collect();
    assert_eq!(found, wanted);
}
