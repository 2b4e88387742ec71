//! The forward pass: equal to transformers, and the same however tokens are packed.

use crate::common::*;
use rlaif_model::{PackedBatch, Reads, ScalarHead, Trainable};

/// The unpadded sequences of a golden file.
fn sequences(golden: &serde_json::Value) -> Vec<Vec<u32>> {
    let lengths = golden["attention_mask"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| token_ids(m).iter().sum::<u32>() as usize);
    let rows = golden["input_ids"].as_array().unwrap().iter().map(token_ids);
    rows.zip(lengths).map(|(mut row, len)| (row.truncate(len), row).1).collect()
}

fn reproduces_transformers(name: &str) {
    let (decoder, golden) = golden(name);
    let mut batch = PackedBatch::new();
    let mut reads = Reads::new();
    let mut last = Vec::new();
    for ids in sequences(&golden) {
        let segment = batch.push_sequence(&ids);
        reads.append(batch.sequence_reads(segment));
        last.push(batch.last_index(segment));
    }
    let hidden = decoder.hidden(&batch);
    let wanted: Vec<f32> = golden["token_logprobs"].as_array().unwrap().iter().flat_map(numbers).collect();
    assert_close(&values(decoder.logprobs(&hidden, &reads, 1.0)), &wanted, 1e-4);
    let logits = values(decoder.logits_at(&hidden, &last));
    for (row, wanted) in logits.chunks(320).zip(golden["last_logits_first16"].as_array().unwrap()) {
        assert_close(&row[..16], &numbers(wanted), 1e-4);
    }
}

#[test]
fn llama_reproduces_transformers() {
    reproduces_transformers("llama");
}

#[test]
fn llama3_rope_reproduces_transformers() {
    reproduces_transformers("llama3-rope");
}

#[test]
fn packing_changes_nothing() {
    let decoder = tiny();
    let lengths = [1, 5, 30, 2, 17];
    let mut together = PackedBatch::new();
    let mut alone = Vec::new();
    for (seed, len) in lengths.into_iter().enumerate() {
        together.push_sequence(&ids(seed as u64, len));
        let mut single = PackedBatch::new();
        single.push_sequence(&ids(seed as u64, len));
        alone.extend(values(decoder.hidden(&single)));
    }
    assert_close(&values(decoder.hidden(&together)), &alone, 1e-5);
}

/// Two prompts that begin alike with two responses each, all of which is shared or repeated, and the reads of the responses.
fn forest(shared: bool) -> (PackedBatch, Reads) {
    let (beginning, rests) = (ids(1, 9), [ids(2, 1), ids(3, 7)]);
    let mut batch = PackedBatch::new();
    let mut reads = Reads::new();
    let once = shared.then(|| batch.push_prompt(&beginning));
    for (rest, seed) in rests.iter().zip([4, 6]) {
        let whole = || [&beginning[..], rest].concat();
        let mut prompt = None;
        for (seed, len) in [(seed, 6), (seed + 1, 13)] {
            let segment = match (once, prompt) {
                (None, _) => batch.push_prompt(&whole()),
                (Some(_), Some(prompt)) => prompt,
                (Some(once), None) => batch.push_prompt_after(once, rest),
            };
            prompt = Some(segment);
            let response = batch.push_response(segment, &ids(seed, len));
            reads.append(batch.response_reads(response));
        }
    }
    (batch, reads)
}

/// A prompt with two responses, shared or repeated, and the reads of both responses.
fn preference_batch(shared: bool) -> (PackedBatch, Reads) {
    let (prompt, first, second) = (ids(1, 9), ids(2, 6), ids(3, 13));
    let mut batch = PackedBatch::new();
    let mut reads = Reads::new();
    let mut prompt_segment = batch.push_prompt(&prompt);
    for (number, response) in [first, second].into_iter().enumerate() {
        if number > 0 && !shared {
            prompt_segment = batch.push_prompt(&prompt);
        }
        let segment = batch.push_response(prompt_segment, &response);
        reads.append(batch.response_reads(segment));
    }
    (batch, reads)
}

#[test]
fn a_shared_prompt_gives_the_values_and_gradients_of_repeated_ones() {
    for batch_of in [preference_batch, forest] {
        shared_and_repeated_are_equal(batch_of);
    }
}

fn shared_and_repeated_are_equal(batch_of: fn(bool) -> (PackedBatch, Reads)) {
    let run = |shared: bool| {
        let mut decoder = tiny();
        decoder.set_trainable(Trainable::Full);
        let (batch, reads) = batch_of(shared);
        let logprobs = decoder.logprobs(&decoder.hidden(&batch), &reads, 0.7);
        let weights: Vec<f32> = (0..reads.len()).map(|r| 1.0 + r as f32 / 3.0).collect();
        let weights = burn::tensor::Tensor::<1>::from_floats(&weights[..], decoder.device());
        let grads = (logprobs.clone() * weights).sum().backward();
        let gradients: Vec<(String, Vec<f32>)> = decoder
            .parameters()
            .into_iter()
            .map(|(name, p)| (name, values(p.grad(&grads).unwrap())))
            .collect();
        (values(logprobs.inner()), gradients)
    };
    let ((shared_values, shared_gradients), (values, gradients)) = (run(true), run(false));
    assert_close(&shared_values, &values, 1e-5);
    assert_eq!(gradients.len(), 2 + 2 * (9 + 4));
    for ((name, shared), (_, repeated)) in shared_gradients.iter().zip(&gradients) {
        let scale = repeated.iter().fold(1f32, |m, g| m.max(g.abs()));
        println!("{name}: {scale}");
        assert_close(shared, repeated, 2e-5 * scale);
    }
}

#[test]
fn gradients_are_finite_differences() {
    let mut decoder = tiny();
    decoder.set_trainable(Trainable::Full);
    let (batch, reads) = preference_batch(true);
    let loss_of =
        |decoder: &rlaif_model::Decoder| decoder.logprobs(&decoder.hidden(&batch), &reads, 1.0).mean();
    let grads = loss_of(&decoder).backward();
    // One number from the middle of each parameter.
    for (wanted_name, parameter) in decoder.parameters() {
        let gradient = values(parameter.grad(&grads).unwrap());
        let index = gradient.iter().enumerate().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())).unwrap().0;
        let shifted = |by: f32| {
            let mut moved = decoder.frozen();
            moved.set_trainable(Trainable::Full);
            moved.map_parameters(|name, p| {
                if name != wanted_name {
                    return p;
                }
                let (shape, mut numbers) = (p.dims(), values(p.inner()));
                numbers[index] += by;
                burn::tensor::Tensor::from_data(
                    burn::tensor::TensorData::new(numbers, shape),
                    decoder.device(),
                )
            });
            f64::from(values(loss_of(&moved).inner())[0])
        };
        let step = 4e-3;
        let numeric = ((shifted(step) - shifted(-step)) / (2.0 * f64::from(step))) as f32;
        let exact = gradient[index];
        // float32 losses near 4 have steps of 5e-7, over 8e-3: 6e-5.
        assert!((numeric - exact).abs() < 2e-4 + 0.02 * exact.abs(), "{wanted_name}: {numeric} and {exact}");
    }
}

#[test]
fn entropy_is_that_of_the_whole_distribution() {
    let decoder = tiny();
    let mut batch = PackedBatch::new();
    let segment = batch.push_sequence(&ids(5, 7));
    let reads = batch.sequence_reads(segment);
    let hidden = decoder.hidden(&batch);
    let statistics = decoder.token_statistics(&hidden, &reads, 2.0);
    let logits = values(decoder.logits_at(&hidden, &reads.indices));
    let entropy: Vec<f32> = logits
        .chunks(41)
        .map(|row| {
            let weights: Vec<f64> = row.iter().map(|l| f64::from(l / 2.0).exp()).collect();
            let total: f64 = weights.iter().sum();
            weights.iter().map(|w| -(w / total) * (w / total).ln()).sum::<f64>() as f32
        })
        .collect();
    assert_close(&values(statistics.entropy), &entropy, 1e-5);
    let top: Vec<f32> = logits
        .chunks(41)
        .zip(&reads.targets)
        .map(|(row, &target)| f32::from(row.iter().all(|l| *l <= row[target as usize])))
        .collect();
    assert_eq!(values(statistics.top), top);
    assert_close(&values(statistics.logprobs), &values(decoder.logprobs(&hidden, &reads, 2.0)), 1e-6);
}

/// Noise on embeddings is another embedding table, as far as the hidden states can tell.
#[test]
fn noise_is_added_to_the_embeddings_of_its_tokens() {
    let mut decoder = tiny();
    let mut batch = PackedBatch::new();
    batch.push_sequence(&[5, 9, 3]);
    batch.push_sequence(&[7]);
    let noise: Vec<f32> = (0..4 * 24).map(|i| 0.01 * (i % 13) as f32 - 0.06).collect();
    let noisy = values(decoder.hidden_with_noise(&batch, &[0, 1, 2, 3], Some(noise.clone())));
    assert_close(
        &values(decoder.hidden_with_noise(&batch, &[0, 1, 2, 3], Some(vec![0.0; 4 * 24]))),
        &values(decoder.hidden(&batch)),
        0.0,
    );

    decoder.set_trainable(Trainable::Full);
    decoder.map_parameters(|name, weight| {
        if name != "model.embed_tokens.weight" {
            return weight;
        }
        let mut table = values(weight);
        for (token, noise) in batch.ids().iter().zip(noise.chunks(24)) {
            table[*token as usize * 24..][..24]
                .iter_mut()
                .zip(noise)
                .for_each(|(value, noise)| *value += noise);
        }
        burn::tensor::Tensor::from_data(burn::tensor::TensorData::new(table, [41, 24]), tiny().device())
    });
    assert_close(&values(decoder.hidden(&batch).inner()), &noisy, 1e-6);
}

#[test]
fn a_scalar_head_reads_hidden_states_and_trains() {
    let decoder = tiny();
    let mut batch = PackedBatch::new();
    batch.push_sequence(&ids(5, 7));
    let hidden = decoder.hidden(&batch);
    let mut head = ScalarHead::random(24, 0.1, 1, decoder.device());
    let rows = values(hidden.clone());
    let wanted: Vec<f32> = [6, 2]
        .map(|row: usize| rows[row * 24..][..24].iter().zip(head.values()).map(|(h, w)| h * w).sum())
        .to_vec();
    assert_close(&values(head.forward(&hidden, &[6, 2])), &wanted, 1e-5);

    head.set_trainable(true);
    let grads = head.forward(&hidden, &[6]).sum().backward();
    let (_, weight) = head.parameter();
    assert_close(&values(weight.grad(&grads).unwrap()), &rows[6 * 24..7 * 24], 1e-6);
    head.map_parameter(|_, w| w.inner().zeros_like());
    assert_eq!(values(head.frozen().forward(&hidden, &[0, 1])), [0.0, 0.0]);
}

#[test]
fn ids_are_checked_before_the_model_sees_them() {
    let decoder = tiny();
    let message = |ids: &[u32]| decoder.check_ids(ids).unwrap_err().to_string();
    assert!(message(&[]).contains("at least one token"));
    assert!(message(&[3, 41]).contains("token id 41 is outside the model's vocabulary of 41"));
    assert!(message(&[3; 65]).contains("65 tokens do not fit the model's context of 64"));
    assert!(decoder.check_ids(&[40; 64]).is_ok());
}
