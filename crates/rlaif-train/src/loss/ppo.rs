//! Losses of policies on their own samples: PPO's clipped policy and value losses, Schulman et al. 2017, eq. 7
//! (<https://arxiv.org/abs/1707.06347>), and their relatives.

use rlaif_core::config::{KlEstimator, RatioLevel};

use crate::math::kl_estimate;

/// How far ratios of new and old probabilities count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clip {
    /// Down to 1 − `low`.
    pub low: f64,
    /// Up to 1 + `high`; above `low` it is DAPO's clip-higher, Yu et al. 2025 (<https://arxiv.org/abs/2503.14476>).
    pub high: f64,
    /// Where A < 0, the loss is at most −A times this: dual clip, Ye et al. 2020, eq. 5 (<https://arxiv.org/abs/1912.09729>).
    pub dual: Option<f64>,
}

/// Sums over the tokens of one response, or its one number where the ratio is of the whole response.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PolicyLoss {
    /// Σ of the loss.
    pub sum: f64,
    /// d sum / d logprob, `[T]`.
    pub gradient: Vec<f64>,
    /// Σ ½ (log ρ)².
    pub approxkl_sum: f64,
    /// Ratios at which a clip decides.
    pub clipped: usize,
    /// Σ ρ.
    pub ratio_sum: f64,
}

impl PolicyLoss {
    /// Takes in a ratio; returns d loss / d log ρ.
    fn add(&mut self, log_ratio: f64, advantage: f64, clip: &Clip) -> f64 {
        let ratio = log_ratio.exp();
        let free = -advantage * ratio;
        let held = -advantage * ratio.clamp(1.0 - clip.low, 1.0 + clip.high);
        let most = clip.dual.filter(|_| advantage < 0.0).map_or(f64::INFINITY, |dual| -advantage * dual);
        let is_clipped = held > free || free > most;
        self.sum += free.max(held).min(most);
        self.approxkl_sum += 0.5 * log_ratio * log_ratio;
        self.clipped += usize::from(is_clipped);
        self.ratio_sum += ratio;
        if is_clipped { 0.0 } else { free } // dρ/dlogp = ρ; clips are flat
    }
}

/// Clipped policy loss of single tokens: max(−A ρ, −A clip(ρ, 1 − ε, 1 + ε)), ρ = exp(logp − logp_old).
///
/// Shapes: all slices `[T]`.
pub fn policy_loss(logprobs: &[f64], old_logprobs: &[f64], advantages: &[f64], clip: &Clip) -> PolicyLoss {
    let mut loss = PolicyLoss::default();
    for ((logprob, old), &advantage) in logprobs.iter().zip(old_logprobs).zip(advantages) {
        let slope = loss.add(logprob - old, advantage, clip);
        loss.gradient.push(slope);
    }
    loss
}

/// Clipped policy loss of a whole response, with ρ = exp(Σ logp − Σ logp_old) as in TRL's RLOO; with `by_length` the log-ratio is
/// a mean over tokens: GSPO, Zheng et al. 2025, eq. 7 (<https://arxiv.org/abs/2507.18071>).
///
/// Shapes: slices `[T]`, T > 0.
pub fn sequence_policy_loss(
    logprobs: &[f64],
    old_logprobs: &[f64],
    advantage: f64,
    clip: &Clip,
    by_length: bool,
) -> PolicyLoss {
    let scale = if by_length { 1.0 / logprobs.len() as f64 } else { 1.0 };
    let log_ratio = logprobs.iter().zip(old_logprobs).map(|(logprob, old)| logprob - old).sum::<f64>();
    let mut loss = PolicyLoss::default();
    let slope = loss.add(log_ratio * scale, advantage, clip);
    loss.gradient = vec![slope * scale; logprobs.len()];
    loss
}

/// The policy gradient of single tokens, Williams 1992: the slope of −A logp, with A held fast.
///
/// Shapes: all slices `[T]`. Ratios are counted for the metrics.
pub fn policy_gradient_loss(logprobs: &[f64], old_logprobs: &[f64], advantages: &[f64]) -> PolicyLoss {
    let mut loss = PolicyLoss::default();
    for ((logprob, old), advantage) in logprobs.iter().zip(old_logprobs).zip(advantages) {
        let log_ratio = logprob - old;
        loss.sum -= advantage * logprob;
        loss.gradient.push(-advantage);
        loss.approxkl_sum += 0.5 * log_ratio * log_ratio;
        loss.ratio_sum += log_ratio.exp();
    }
    loss
}

/// Σ of the KL estimate of single tokens and its slope in logp: GRPO's penalty, Shao et al. 2024, eq. 4
/// (<https://arxiv.org/abs/2402.03300>). The slope of k1 is 1 everywhere and leashes nothing in expectation; k2's is that of KL.
///
/// With `sampled`, the log-probs at sampling and what the ratio is of, each estimate is multiplied by its ratio, so that the slope of k1
/// and k3 is that of KL: DeepSeek-V3.2 2025, eq. 7 (<https://arxiv.org/abs/2512.02556>).
///
/// Shapes: all slices `[T]`.
pub fn kl_loss(
    estimator: KlEstimator,
    logprobs: &[f64],
    ref_logprobs: &[f64],
    sampled: Option<(&[f64], RatioLevel)>,
) -> (f64, Vec<f64>) {
    let slope = |x: f64| match estimator {
        KlEstimator::K1 => 1.0,
        KlEstimator::K2 => x,
        KlEstimator::K3 => -(-x).exp_m1(),
    };
    let tokens = || logprobs.iter().zip(ref_logprobs);
    let estimates: Vec<f64> = tokens().map(|(now, re)| kl_estimate(estimator, *now, *re)).collect();
    let slopes = tokens().map(|(now, re)| slope(now - re));
    let Some((old, level)) = sampled else { return (estimates.iter().sum(), slopes.collect()) };
    let log_ratios: Vec<f64> = logprobs.iter().zip(old).map(|(now, old)| now - old).collect();
    let scale = match level {
        RatioLevel::Token => {
            let ratios: Vec<f64> = log_ratios.iter().map(|log_ratio| log_ratio.exp()).collect();
            let sum = ratios.iter().zip(&estimates).map(|(ratio, estimate)| ratio * estimate).sum();
            let both = slopes.zip(&estimates).zip(&ratios);
            return (sum, both.map(|((slope, estimate), ratio)| ratio * (slope + estimate)).collect());
        }
        RatioLevel::Sequence => 1.0,
        RatioLevel::SequenceMean => 1.0 / logprobs.len() as f64,
    };
    let ratio = (scale * log_ratios.iter().sum::<f64>()).exp();
    let sum = ratio * estimates.iter().sum::<f64>();
    (sum, slopes.map(|slope| ratio * slope + scale * sum).collect())
}

/// Sums over the values of a micro-batch; the trainer divides by those of the whole mini-batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ValueLoss {
    /// Σ ½ max((V − R)², (clip(V) − R)²).
    pub sum: f64,
    /// d sum / d value, `[R]`.
    pub gradient: Vec<f64>,
    /// Values at which the clipped term is the larger one.
    pub clipped: usize,
}

/// Clipped value loss of single tokens: ½ max((V − R)², (V_old + clip(V − V_old, −ε, ε) − R)²).
///
/// Shapes: all slices `[R]`.
pub fn value_loss(values: &[f64], old_values: &[f64], returns: &[f64], cliprange: f64) -> ValueLoss {
    let mut loss = ValueLoss::default();
    for ((value, old), target) in values.iter().zip(old_values).zip(returns) {
        let free = (value - target).powi(2);
        let held = (value.clamp(old - cliprange, old + cliprange) - target).powi(2);
        let is_clipped = held > free;
        loss.sum += 0.5 * free.max(held);
        loss.gradient.push(if is_clipped { 0.0 } else { value - target });
        loss.clipped += usize::from(is_clipped);
    }
    loss
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::tests::{assert_close, assert_gradient};

    const CLIP: Clip = Clip { low: 0.2, high: 0.2, dual: None };
    const OLD: [f64; 4] = [-1.0, -0.5, -2.0, -0.1];
    const NEW: [f64; 4] = [-0.7, -0.6, -2.4, -0.1];
    const ADVANTAGES: [f64; 4] = [1.0, -1.0, -0.5, 2.0];
    const OLD_VALUES: [f64; 4] = [0.5, 0.6, 0.9, 1.4];
    const VALUES: [f64; 4] = [0.9, 0.5, 0.9, 1.0];

    #[test]
    fn parity_vectors() {
        let loss = policy_loss(&NEW, &OLD, &ADVANTAGES, &CLIP);
        let ratios = [1.3498588076, 0.9048374180, 0.6703200460, 1.0];
        assert_close(
            &[loss.sum / 4.0, loss.clipped as f64 / 4.0, loss.ratio_sum],
            &[-0.4737906455, 0.5, ratios.iter().sum()],
        );
        let each: Vec<f64> =
            (0..4).map(|i| policy_loss(&NEW[i..=i], &OLD[i..=i], &ADVANTAGES[i..=i], &CLIP).sum).collect();
        assert_close(&each, &[-1.2, 0.9048374180, 0.4, -2.0]);
        assert_close(&[value_loss(&VALUES, &OLD_VALUES, &[1.0; 4], 0.2).sum / 4.0], &[0.04875]);
    }

    #[test]
    fn gradients() {
        // Off the kink at ρ = 1: the last token moves too.
        let new = [-0.7, -0.6, -2.4, -0.15];
        let here = policy_loss(&new, &OLD, &ADVANTAGES, &CLIP);
        assert_gradient(|x| policy_loss(x, &OLD, &ADVANTAGES, &CLIP).sum, &new, &here.gradient);
        let values = [0.9, 0.5, 0.95, 1.0];
        let here = value_loss(&values, &OLD_VALUES, &[1.0; 4], 0.2);
        assert!(here.clipped > 0, "one value is beyond its clip");
        assert_gradient(|x| value_loss(x, &OLD_VALUES, &[1.0; 4], 0.2).sum, &values, &here.gradient);
    }

    #[test]
    fn a_higher_clip_and_a_dual_clip_decide_where_they_should() {
        let old = [0.0; 3];
        let (higher, worse) = ([0.25, 0.25, 0.25], [1.5, 1.5, 1.5]);
        let high = Clip { high: 0.28, ..CLIP };
        let loss = policy_loss(&higher, &old, &[1.0, -1.0, 2.0], &high);
        let ratio = 0.25f64.exp(); // 1.284: above 1.28
        assert_close(&[loss.sum], &[-1.28 + ratio - 2.56]);
        assert_close(&loss.gradient, &[0.0, ratio, 0.0]);
        let dual = Clip { dual: Some(3.0), ..CLIP };
        let loss = policy_loss(&worse, &old, &[-1.0, -0.5, 1.0], &dual); // ratio 4.48: above 3
        assert_close(&[loss.sum, loss.clipped as f64], &[3.0 + 1.5 - 1.2, 3.0]);
        assert_close(&loss.gradient, &[0.0; 3]);
        let within = policy_loss(&higher, &old, &[-1.0; 3], &dual);
        assert_close(&within.gradient, &[ratio; 3]);
    }

    #[test]
    fn a_ratio_of_the_response_is_the_product_of_its_tokens() {
        let clip = Clip { low: 0.9, high: 9.0, dual: None };
        for by_length in [false, true] {
            let at = |x: &[f64]| sequence_policy_loss(x, &OLD, 0.7, &clip, by_length);
            let log_ratio = 0.3 - 0.1 - 0.4;
            let ratio = f64::exp(if by_length { log_ratio / 4.0 } else { log_ratio });
            assert_close(&[at(&NEW).sum, at(&NEW).ratio_sum], &[-0.7 * ratio, ratio]);
            assert_gradient(|x| at(x).sum, &NEW, &at(&NEW).gradient);
        }
        let held = sequence_policy_loss(&NEW, &[-1.2, -0.9, -2.6, -0.3], 1.0, &CLIP, false); // ratio e^1.2
        assert_close(&[held.sum, held.gradient[0]], &[-1.2, 0.0]);
    }

    #[test]
    fn policy_gradients_and_penalties() {
        let at = |x: &[f64]| policy_gradient_loss(x, &OLD, &ADVANTAGES);
        assert_gradient(|x| at(x).sum, &NEW, &at(&NEW).gradient);
        assert_close(&at(&NEW).gradient, &[-1.0, 1.0, 0.5, -2.0]);
        for estimator in [KlEstimator::K1, KlEstimator::K2, KlEstimator::K3] {
            let reference = [-1.2, -0.4, -1.5, -0.3];
            let levels = [RatioLevel::Token, RatioLevel::Sequence, RatioLevel::SequenceMean];
            for sampled in levels.map(|level| Some((&OLD[..], level))).into_iter().chain([None]) {
                let at = |x: &[f64]| kl_loss(estimator, x, &reference, sampled);
                assert_gradient(|x| at(x).0, &NEW, &at(&NEW).1);
            }
        }
        let (k3, slope) = kl_loss(KlEstimator::K3, &[-1.3], &[-1.7], None);
        assert_close(&[k3, slope[0]], &[0.0703200460, 1.0 - (-0.4f64).exp()]);
        // On fresh samples, where every ratio is 1, the slope is x: that of KL.
        let (k3, slope) = kl_loss(KlEstimator::K3, &[-1.3], &[-1.7], Some((&[-1.3], RatioLevel::Token)));
        assert_close(&[k3, slope[0]], &[0.0703200460, 0.4]);
    }

    #[test]
    fn the_parts_of_a_batch_add_up() {
        let whole = policy_loss(&NEW, &OLD, &ADVANTAGES, &CLIP);
        let (a, b) = (
            policy_loss(&NEW[..1], &OLD[..1], &ADVANTAGES[..1], &CLIP),
            policy_loss(&NEW[1..], &OLD[1..], &ADVANTAGES[1..], &CLIP),
        );
        assert_close(&[a.sum + b.sum], &[whole.sum]);
        assert_close(&[a.gradient, b.gradient].concat(), &whole.gradient);
    }
}
