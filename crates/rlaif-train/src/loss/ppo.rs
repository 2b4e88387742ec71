//! PPO's clipped policy and value losses, Schulman et al. 2017, eq. 7 (<https://arxiv.org/abs/1707.06347>).

/// Sums over the tokens of a micro-batch; the trainer divides by the tokens of the whole mini-batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PolicyLoss {
    /// Σ max(−A ρ, −A clip(ρ)).
    pub sum: f64,
    /// d sum / d logprob, `[R]`.
    pub gradient: Vec<f64>,
    /// Σ ½ (logp − logp_old)².
    pub approxkl_sum: f64,
    /// Tokens at which the clipped term is the larger one.
    pub clipped: usize,
    /// Σ ρ.
    pub ratio_sum: f64,
}

/// Clipped policy loss of single tokens: max(−A ρ, −A clip(ρ, 1 − ε, 1 + ε)), ρ = exp(logp − logp_old).
///
/// Shapes: all slices `[R]`.
pub fn policy_loss(logprobs: &[f64], old_logprobs: &[f64], advantages: &[f64], cliprange: f64) -> PolicyLoss {
    let mut loss = PolicyLoss::default();
    for ((logprob, old), advantage) in logprobs.iter().zip(old_logprobs).zip(advantages) {
        let log_ratio = logprob - old;
        let ratio = log_ratio.exp();
        let free = -advantage * ratio;
        let held = -advantage * ratio.clamp(1.0 - cliprange, 1.0 + cliprange);
        let is_clipped = held > free;
        loss.sum += free.max(held);
        loss.gradient.push(if is_clipped { 0.0 } else { free }); // dρ/dlogp = ρ; the clip is flat
        loss.approxkl_sum += 0.5 * log_ratio * log_ratio;
        loss.clipped += usize::from(is_clipped);
        loss.ratio_sum += ratio;
    }
    loss
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

    const OLD: [f64; 4] = [-1.0, -0.5, -2.0, -0.1];
    const NEW: [f64; 4] = [-0.7, -0.6, -2.4, -0.1];
    const ADVANTAGES: [f64; 4] = [1.0, -1.0, -0.5, 2.0];
    const OLD_VALUES: [f64; 4] = [0.5, 0.6, 0.9, 1.4];
    const VALUES: [f64; 4] = [0.9, 0.5, 0.9, 1.0];

    #[test]
    fn parity_vectors() {
        let loss = policy_loss(&NEW, &OLD, &ADVANTAGES, 0.2);
        let ratios = [1.3498588076, 0.9048374180, 0.6703200460, 1.0];
        assert_close(
            &[loss.sum / 4.0, loss.clipped as f64 / 4.0, loss.ratio_sum],
            &[-0.4737906455, 0.5, ratios.iter().sum()],
        );
        let each: Vec<f64> =
            (0..4).map(|i| policy_loss(&NEW[i..=i], &OLD[i..=i], &ADVANTAGES[i..=i], 0.2).sum).collect();
        assert_close(&each, &[-1.2, 0.9048374180, 0.4, -2.0]);
        assert_close(&[value_loss(&VALUES, &OLD_VALUES, &[1.0; 4], 0.2).sum / 4.0], &[0.04875]);
    }

    #[test]
    fn gradients() {
        // Off the kink at ρ = 1: the last token moves too.
        let new = [-0.7, -0.6, -2.4, -0.15];
        let here = policy_loss(&new, &OLD, &ADVANTAGES, 0.2);
        assert_gradient(|x| policy_loss(x, &OLD, &ADVANTAGES, 0.2).sum, &new, &here.gradient);
        let values = [0.9, 0.5, 0.95, 1.0];
        let here = value_loss(&values, &OLD_VALUES, &[1.0; 4], 0.2);
        assert!(here.clipped > 0, "one value is beyond its clip");
        assert_gradient(|x| value_loss(x, &OLD_VALUES, &[1.0; 4], 0.2).sum, &values, &here.gradient);
    }

    #[test]
    fn the_parts_of_a_batch_add_up() {
        let whole = policy_loss(&NEW, &OLD, &ADVANTAGES, 0.2);
        let (a, b) = (
            policy_loss(&NEW[..1], &OLD[..1], &ADVANTAGES[..1], 0.2),
            policy_loss(&NEW[1..], &OLD[1..], &ADVANTAGES[1..], 0.2),
        );
        assert_close(&[a.sum + b.sum], &[whole.sum]);
        assert_close(&[a.gradient, b.gradient].concat(), &whole.gradient);
    }
}
