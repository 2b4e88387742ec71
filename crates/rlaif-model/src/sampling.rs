//! From logits to a token: temperature, top-k, top-p.

use rand::{Rng, RngExt};

use crate::error::{ModelError, Result};
use crate::simd;

/// How responses are sampled.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingConfig {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f64,
    /// Nucleus: smallest set of likeliest tokens whose probability reaches this; 1 is off.
    pub top_p: f64,
    /// Keep this many of the likeliest tokens; 0 is off.
    pub top_k: usize,
    /// Longest response.
    pub max_new_tokens: usize,
    /// Tokens that end a response; the one that does is its last token.
    pub stop_ids: Vec<u32>,
    /// Samples decoded together.
    pub batch_size: usize,
}

impl SamplingConfig {
    /// Whether the numbers can be sampled with.
    ///
    /// # Errors
    /// If one of them is out of range.
    pub fn check(&self) -> Result<()> {
        let problem = if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            format!("`temperature` must be 0 or above, got {}", self.temperature)
        } else if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            format!("`top_p` must be above 0 and at most 1, got {}", self.top_p)
        } else if self.max_new_tokens == 0 || self.batch_size == 0 {
            "`max_new_tokens` and `batch_size` must be at least 1".to_string()
        } else {
            return Ok(());
        };
        Err(ModelError::Input { reason: problem })
    }
}

/// Draws one token and returns it with its log-probability.
///
/// The log-probability is that of softmax(logits / temperature) *before* top-k and top-p, as TRL and OpenRLHF record it: it is
/// what training recomputes. For temperature 0 it is that of softmax(logits).
///
/// `logits`: `[V]`, overwritten.
pub fn sample_token(logits: &mut [f32], config: &SamplingConfig, rng: &mut impl Rng) -> (u32, f32) {
    if config.temperature == 0.0 {
        let token = argmax(logits);
        let logprob = logits[token] - simd::log_sum_exp(logits, 1.0);
        return (token as u32, logprob);
    }
    let factor = (1.0 / config.temperature) as f32;
    logits.iter_mut().for_each(|l| *l *= factor);
    let log_sum = simd::log_sum_exp(logits, 1.0);
    let uniform: f64 = rng.random();
    let token = if config.top_p < 1.0 || (config.top_k > 0 && config.top_k < logits.len()) {
        draw_truncated(logits, log_sum, config, uniform)
    } else {
        draw(logits, log_sum, uniform)
    };
    (token as u32, logits[token] - log_sum)
}

/// The first of the largest.
fn argmax(logits: &[f32]) -> usize {
    let largest = simd::max(logits);
    logits.iter().position(|&l| l == largest).unwrap_or(0)
}

/// Inverse of the cumulative distribution in token order.
fn draw(logits: &[f32], log_sum: f32, uniform: f64) -> usize {
    const BLOCK: usize = 256; // sum blocks with vector code, then walk the block that holds the draw
    let mut left = uniform;
    let mut last_possible = 0;
    for (block, chunk) in logits.chunks(BLOCK).enumerate() {
        let mass = f64::from(probability_mass(chunk, log_sum));
        if left < mass {
            for (i, &logit) in chunk.iter().enumerate() {
                left -= f64::from(simd::exp(logit - log_sum));
                if left < 0.0 {
                    return block * BLOCK + i;
                }
            }
        } else {
            left -= mass;
        }
        if mass > 1e-6 {
            last_possible = block * BLOCK + argmax(chunk);
        }
    }
    last_possible // the probabilities fell short of 1 by rounding
}

simd::multiversion! {
    fn probability_mass(logits: &[f32], log_sum: f32) -> f32 {
        simd::sum_lanes([logits], |[logit]| simd::exp(logit - log_sum))
    }
}

/// Tokens whose logit reaches `floor`.
fn at_least(logits: &[f32], floor: f32) -> Vec<u32> {
    const BLOCK: usize = 64; // most blocks hold none
    let mut tokens = Vec::new();
    for (block, logits) in logits.chunks(BLOCK).enumerate() {
        if any_at_least(logits, floor) {
            let first = (block * BLOCK) as u32;
            tokens.extend(
                (first..).zip(logits).filter(|(_, logit)| reaches(**logit, floor)).map(|(token, _)| token),
            );
        }
    }
    tokens
}

simd::multiversion! {
    fn any_at_least(logits: &[f32], floor: f32) -> bool {
        logits.iter().fold(false, |any, logit| any | reaches(*logit, floor))
    }
}

/// NaN does too: it must not stay hidden.
#[inline(always)]
fn reaches(logit: f32, floor: f32) -> bool {
    logit >= floor || logit.is_nan()
}

/// Draws among the likeliest tokens that top-k and then top-p keep.
fn draw_truncated(logits: &[f32], log_sum: f32, config: &SamplingConfig, uniform: f64) -> usize {
    let keep = if config.top_k == 0 { logits.len() } else { config.top_k.min(logits.len()) };
    let by_likelihood = |a: &u32, b: &u32| {
        logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)) // ties: the lower id, so that runs repeat
    };
    let probability = |token: &u32| f64::from(simd::exp(logits[*token as usize] - log_sum));
    // A nucleus is mostly a few dozen tokens: sort what lies within some nats of the likeliest, and go further down until that holds it.
    let (largest, mut nats) = (simd::max(logits), 4.0);
    loop {
        let floor = if nats < 1e6 { largest - nats } else { f32::NEG_INFINITY };
        let mut order = at_least(logits, floor);
        order.sort_unstable_by(by_likelihood);
        order.truncate(keep);
        let complete = order.len() == keep;
        // top-p is measured on what top-k left, as in transformers.
        let total: f64 = if config.top_k > 0 && complete { order.iter().map(probability).sum() } else { 1.0 };
        let mut cumulative = 0.0;
        let nucleus = order.iter().position(|token| {
            cumulative += probability(token);
            cumulative >= config.top_p * total
        });
        let kept = match nucleus {
            Some(last) if config.top_k == 0 || complete => last + 1,
            _ if complete => keep,
            _ => {
                nats *= 1.5;
                continue;
            }
        };
        let mass: f64 = order[..kept].iter().map(probability).sum();
        let mut left = uniform * mass;
        for token in &order[..kept] {
            left -= probability(token);
            if left < 0.0 {
                return *token as usize;
            }
        }
        return order[kept - 1] as usize;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn config(temperature: f64, top_p: f64, top_k: usize) -> SamplingConfig {
        SamplingConfig { temperature, top_p, top_k, max_new_tokens: 1, stop_ids: vec![], batch_size: 1 }
    }

    /// Frequencies of 20 000 draws from probabilities 0.5, 0.3, 0.15, 0.05 in scrambled order.
    fn frequencies(config: &SamplingConfig) -> [f64; 4] {
        let probabilities = [0.15f32, 0.5, 0.05, 0.3];
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut counts = [0.0; 4];
        for _ in 0..20_000 {
            let mut logits = probabilities.map(f32::ln);
            let (token, _) = sample_token(&mut logits, config, &mut rng);
            counts[token as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    fn assert_close(found: [f64; 4], wanted: [f64; 4]) {
        for (f, w) in found.iter().zip(wanted) {
            assert!((f - w).abs() < 0.015 && (w > 0.0 || *f == 0.0), "found {found:?}, wanted {wanted:?}");
        }
    }

    #[test]
    fn draws_follow_the_distribution_and_its_truncations() {
        assert_close(frequencies(&config(1.0, 1.0, 0)), [0.15, 0.5, 0.05, 0.3]);
        assert_close(frequencies(&config(1.0, 1.0, 2)), [0.0, 0.625, 0.0, 0.375]);
        assert_close(frequencies(&config(1.0, 0.9, 0)), [0.15 / 0.95, 0.5 / 0.95, 0.0, 0.3 / 0.95]);
        assert_close(frequencies(&config(1.0, 0.5, 0)), [0.0, 1.0, 0.0, 0.0]);
        // Of 0.5 and 0.3, the first alone has 0.625 of what top-k left.
        assert_close(frequencies(&config(1.0, 0.6, 2)), [0.0, 1.0, 0.0, 0.0]);
        let squared = 0.15f64.powi(2) + 0.25 + 0.05f64.powi(2) + 0.09; // temperature 1/2 squares probabilities
        assert_close(frequencies(&config(0.5, 1.0, 0)), [0.0225, 0.25, 0.0025, 0.09].map(|p| p / squared));
    }

    #[test]
    fn the_logprob_is_taken_before_truncation() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut logits = [0.15f32, 0.5, 0.05, 0.3].map(f32::ln);
        let (token, logprob) = sample_token(&mut logits, &config(1.0, 1.0, 1), &mut rng);
        assert_eq!(token, 1);
        assert!((logprob - 0.5f32.ln()).abs() < 1e-6);
        let (token, logprob) = sample_token(&mut [1.0, 3.0, 3.0], &config(0.0, 1.0, 0), &mut rng);
        assert_eq!(token, 1, "the first of equals");
        assert!((logprob - (-(2.0 + (-2f32).exp()).ln())).abs() < 1e-6);
    }

    /// Against sorting everything, with masked, equal and far-apart logits.
    #[test]
    fn what_is_kept_is_what_sorting_everything_would_keep() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        for round in 0..300 {
            let spread = [0.0, 1.0, 5.0, 1e7][round % 4];
            let mut logits: Vec<f32> =
                (0..200).map(|_| (rng.random_range(-1.0..1.0f32) * spread).round()).collect();
            logits[3] = f32::NEG_INFINITY;
            let log_sum = simd::log_sum_exp(&logits, 1.0);
            let (top_p, top_k) = ([1.0, 0.9, 0.3][round % 3], [0, 1, 7, 250][round / 3 % 4]);
            let uniform: f64 = rng.random();

            let mut order: Vec<usize> = (0..logits.len()).collect();
            order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
            order.truncate(if top_k == 0 { 200 } else { top_k });
            let p: Vec<f64> = order.iter().map(|t| f64::from(simd::exp(logits[*t] - log_sum))).collect();
            let total: f64 = if top_k == 0 { 1.0 } else { p.iter().sum() };
            let reached = |until: usize| p[..=until].iter().sum::<f64>() >= top_p * total;
            let kept = (0..p.len()).find(|until| reached(*until)).map_or(p.len(), |last| last + 1);
            let mut left = uniform * p[..kept].iter().sum::<f64>();
            let drawn = (0..kept)
                .find(|i| {
                    left -= p[*i];
                    left < 0.0
                })
                .unwrap_or(kept - 1);

            let got = draw_truncated(&logits, log_sum, &config(1.0, top_p, top_k), uniform);
            assert_eq!(got, order[drawn], "round {round}: top_p {top_p}, top_k {top_k}");
        }
    }

    #[test]
    fn a_nucleus_wider_than_the_first_head_is_found() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..4000 {
            let mut logits = vec![0f32; 1000];
            seen.insert(sample_token(&mut logits, &config(1.0, 0.5, 0), &mut rng).0);
        }
        assert!(seen.iter().all(|&t| t < 501) && seen.len() > 480, "{} tokens", seen.len());
    }
}
