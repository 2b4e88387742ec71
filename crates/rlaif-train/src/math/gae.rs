//! Generalized advantage estimation.

/// Generalized advantage estimation, Schulman et al. 2016, eq. 16 (<https://arxiv.org/abs/1506.02438>), of one response.
///
/// delta_t = r_t + gamma * V_{t+1} - V_t
/// A_t     = delta_t + gamma * lambda * A_{t+1}
///
/// V after the last token is 0: a response is an episode of its own. Returns are A + V.
///
/// Shapes: `rewards`, `values`: `[T]`; returns `(advantages, returns)`, both `[T]`. Advantages are *not* whitened here; see
/// [`whiten`](super::whiten()).
///
/// # Panics
/// If the lengths differ.
pub fn gae(rewards: &[f64], values: &[f64], gamma: f64, lambda: f64) -> (Vec<f64>, Vec<f64>) {
    assert_eq!(rewards.len(), values.len(), "one value for each reward");
    let mut advantages = vec![0.0; rewards.len()];
    let (mut next_value, mut next_advantage) = (0.0, 0.0);
    for t in (0..rewards.len()).rev() {
        let delta = rewards[t] + gamma * next_value - values[t];
        next_advantage = delta + gamma * lambda * next_advantage;
        next_value = values[t];
        advantages[t] = next_advantage;
    }
    let returns = advantages.iter().zip(values).map(|(a, v)| a + v).collect();
    (advantages, returns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::tests::assert_close;

    #[test]
    fn parity_vector() {
        let (advantages, returns) = gae(&[-0.01, 0.005, 0.025, 2.0], &[0.5, 0.6, 0.9, 1.4], 1.0, 0.95);
        assert_close(&advantages, &[1.3679875, 1.34525, 1.095, 0.6]);
        assert_close(&returns, &[1.8679875, 1.94525, 1.995, 2.0]);
    }

    #[test]
    fn lambda_one_is_the_discounted_return_and_lambda_zero_one_step() {
        let (rewards, values) = ([1.0, 2.0, 4.0], [0.5, -1.0, 3.0]);
        let (_, returns) = gae(&rewards, &values, 0.5, 1.0);
        assert_close(&returns, &[3.0, 4.0, 4.0]);
        let (advantages, _) = gae(&rewards, &values, 0.5, 0.0);
        assert_close(&advantages, &[1.0 - 0.5 - 0.5, 2.0 + 1.5 + 1.0, 1.0]);
    }
}
