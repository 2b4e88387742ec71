//! Sampling: equal to transformers where that is defined, and to the packed forward pass everywhere.

use crate::common::*;
use rlaif_core::records::FinishReason;
use rlaif_model::{Decoder, GenerateRequest, PackedBatch, Sample, SamplingConfig, generate};

fn config(temperature: f64, max_new_tokens: usize, batch_size: usize) -> SamplingConfig {
    SamplingConfig { temperature, top_p: 1.0, top_k: 0, max_new_tokens, stop_ids: vec![], batch_size }
}

fn request(prompt_ids: Vec<u32>, n: usize, seed: u64) -> GenerateRequest {
    GenerateRequest { prompt_ids, n, seed }
}

fn sample(decoder: &Decoder, requests: &[GenerateRequest], config: &SamplingConfig) -> Vec<Vec<Sample>> {
    generate(decoder, requests, config, &mut |_| {}).unwrap()
}

#[test]
fn greedy_tokens_are_those_of_transformers() {
    for name in ["llama", "llama3-rope"] {
        let (decoder, golden) = golden(name);
        let requests = [request(token_ids(&golden["greedy_prompt"]), 1, 0)];
        let samples = sample(&decoder, &requests, &config(0.0, 16, 4));
        assert_eq!(samples[0][0].ids, token_ids(&golden["greedy_new_tokens"]), "{name}");
        assert_eq!(samples[0][0].finish, FinishReason::Length);
    }
}

#[test]
fn sampled_logprobs_are_those_that_training_recomputes() {
    let decoder = tiny();
    let sampling = SamplingConfig { top_p: 0.9, top_k: 20, ..config(0.8, 40, 3) }; // crosses a cache block of 32
    let requests = [request(ids(1, 5), 3, 1), request(ids(2, 12), 2, 2)];
    for (request, samples) in requests.iter().zip(sample(&decoder, &requests, &sampling)) {
        let mut batch = PackedBatch::new();
        let prompt = batch.push_prompt(&request.prompt_ids);
        for sample in samples {
            let response = batch.push_response(prompt, &sample.ids);
            let reads = batch.response_reads(response);
            let recomputed = decoder.logprobs(&decoder.hidden(&batch), &reads, 0.8);
            assert_close(&sample.logprobs, &values(recomputed), 1e-4);
        }
    }
}

#[test]
fn a_sample_does_not_depend_on_its_neighbours() {
    let decoder = tiny();
    let requests: Vec<_> =
        (0..7).map(|i| request(ids(i, 3 + 2 * i as usize), 1 + i as usize % 3, i)).collect();
    let stopping = |batch_size| SamplingConfig { stop_ids: vec![7, 8, 9], ..config(1.0, 24, batch_size) };
    let together = sample(&decoder, &requests, &stopping(32));
    for batch_size in [1, 3, 5] {
        let other = sample(&decoder, &requests, &stopping(batch_size));
        for (a, b) in together.iter().flatten().zip(other.iter().flatten()) {
            assert_eq!((&a.ids, a.finish), (&b.ids, b.finish), "batch of {batch_size}");
        }
    }
    let counts: Vec<usize> = together.iter().map(Vec::len).collect();
    assert_eq!(counts, [1, 2, 3, 1, 2, 3, 1]);
    let distinct: std::collections::HashSet<_> = together.iter().flatten().map(|s| &s.ids).collect();
    assert_eq!(distinct.len(), 13, "every sample has its own stream");
    for sample in together.iter().flatten() {
        let stopped = [7, 8, 9].contains(sample.ids.last().unwrap());
        assert_eq!(sample.finish == FinishReason::Stop, stopped);
        assert!(stopped || sample.ids.len() == 24);
        assert!(
            sample.ids.iter().rev().skip(1).all(|id| ![7, 8, 9].contains(id)),
            "nothing after a stop token"
        );
    }
}

#[test]
fn prompts_that_begin_alike_are_answered_as_each_by_itself() {
    let decoder = tiny();
    let begin = ids(9, 20);
    let ends = [vec![], ids(1, 1), ids(2, 5), ids(3, 30), ids(2, 5)];
    let requests: Vec<_> =
        (0..).zip(&ends).map(|(seed, end)| request([&begin[..], end].concat(), 2, seed)).collect();
    let together = sample(&decoder, &requests, &config(1.0, 12, 32));
    for (request, together) in requests.iter().zip(&together) {
        let alone = &sample(&decoder, std::slice::from_ref(request), &config(1.0, 12, 32))[0];
        for (a, b) in alone.iter().zip(together) {
            assert_eq!(a.ids, b.ids);
            assert_close(&b.logprobs, &a.logprobs, 1e-5);
        }
    }
}

#[test]
fn the_context_ends_a_response_and_a_full_prompt_is_an_error() {
    let decoder = tiny();
    let samples = sample(&decoder, &[request(ids(1, 60), 2, 0)], &config(1.0, 100, 4));
    assert!(samples[0].iter().all(|s| s.ids.len() == 4 && s.finish == FinishReason::Length));
    let fails = |requests: &[GenerateRequest], config: &SamplingConfig| {
        generate(&decoder, requests, config, &mut |_| {}).unwrap_err().to_string()
    };
    assert!(fails(&[request(ids(1, 64), 1, 0)], &config(1.0, 1, 1)).contains("prompt 0 has 64 tokens"));
    assert!(fails(&[], &config(-1.0, 1, 1)).contains("`temperature` must be 0 or above, got -1"));
    assert!(fails(&[], &SamplingConfig { top_p: 0.0, ..config(1.0, 1, 1) }).contains("`top_p`"));
}

#[test]
fn progress_ends_complete_and_no_samples_is_no_work() {
    let decoder = tiny();
    let mut last = Default::default();
    let requests = [request(ids(1, 4), 2, 0), request(ids(2, 4), 0, 0)];
    let samples = generate(&decoder, &requests, &config(1.0, 6, 8), &mut |p| last = *p).unwrap();
    assert_eq!((last.samples_done, last.samples_total, last.tokens), (2, 2, 12));
    assert!(samples[1].is_empty());
}
