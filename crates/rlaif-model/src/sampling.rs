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
        simd::sum_lanes(logits.len(), |i| simd::exp(logits[i] - log_sum))
    }
}

/// Draws among the likeliest tokens that top-k and then top-p keep.
fn draw_truncated(logits: &[f32], log_sum: f32, config: &SamplingConfig, uniform: f64) -> usize {
    let keep = if config.top_k == 0 { logits.len() } else { config.top_k.min(logits.len()) };
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let by_likelihood = |a: &u32, b: &u32| {
        logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)) // ties: the lower id, so that runs repeat
    };
    // A nucleus is mostly a few dozen tokens: sort ever larger heads until one holds it.
    let mut head = 64.min(keep);
    loop {
        if head < order.len() {
            order.select_nth_unstable_by(head, by_likelihood);
        }
        order[..head].sort_unstable_by(by_likelihood);
        let probability = |token: &u32| f64::from(simd::exp(logits[*token as usize] - log_sum));
        // top-p is measured on what top-k left, as in transformers.
        let total: f64 =
            if config.top_k > 0 && head == keep { order[..head].iter().map(probability).sum() } else { 1.0 };
        let mut cumulative = 0.0;
        let nucleus = order[..head].iter().position(|token| {
            cumulative += probability(token);
            cumulative >= config.top_p * total
        });
        let kept = match nucleus {
            Some(last) if config.top_k == 0 || head == keep => last + 1,
            _ if head == keep => keep,
            _ => {
                head = (head * 8).min(keep);
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
