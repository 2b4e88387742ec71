//! How far the policy is from its reference, and how strongly that is punished.

use rlaif_core::config::{KlController, KlEstimator, PpoConfig};

/// Estimate of KL(policy ‖ reference) at one sampled token, Schulman 2020 (<http://joschu.net/blog/kl-approx.html>).
///
/// With x = logp − logp_ref: k1 = x, k2 = x² / 2, k3 = exp(−x) − 1 + x. k1 and k3 are unbiased; k2 and k3 are never negative.
pub fn kl_estimate(estimator: KlEstimator, logprob: f64, ref_logprob: f64) -> f64 {
    let x = logprob - ref_logprob;
    match estimator {
        KlEstimator::K1 => x,
        KlEstimator::K2 => x * x / 2.0,
        KlEstimator::K3 => (-x).exp_m1() + x,
    }
}

/// The weight of the KL penalty, fixed or steered to a target, Ziegler et al. 2019, section 2.2
/// (<https://arxiv.org/abs/1909.08593>).
#[derive(Debug, Clone, PartialEq)]
pub struct KlCoefficient {
    /// The weight now.
    pub value: f64,
    controller: KlController,
    target: f64,
    horizon: f64,
}

impl KlCoefficient {
    /// Starts at `kl_coef`.
    pub fn new(config: &PpoConfig) -> Self {
        Self {
            value: config.kl_coef(),
            controller: config.kl_controller,
            target: config.kl_target,
            horizon: config.kl_horizon,
        }
    }

    /// Takes in the mean KL a response over a rollout of `responses`.
    ///
    /// coefficient *= 1 + clip(KL / target − 1, −0.2, 0.2) · responses / horizon: TRL, OpenRLHF and verl write the paper's
    /// K_β as responses / horizon.
    pub fn update(&mut self, kl: f64, responses: usize) {
        if self.controller == KlController::Adaptive {
            let error = (kl / self.target - 1.0).clamp(-0.2, 0.2);
            self.value *= 1.0 + error * responses as f64 / self.horizon;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::tests::assert_close;

    #[test]
    fn parity_vectors() {
        let at = |estimator| kl_estimate(estimator, -1.3, -1.7);
        assert_close(
            &[at(KlEstimator::K1), at(KlEstimator::K2), at(KlEstimator::K3)],
            &[0.4, 0.08, 0.0703200460],
        );
    }

    #[test]
    fn the_adaptive_coefficient_moves_and_the_fixed_one_stays() {
        let config = PpoConfig {
            kl_coef: Some(0.2),
            kl_controller: KlController::Adaptive,
            kl_target: 6.0,
            kl_horizon: 10_000.0,
            ..PpoConfig::default()
        };
        let mut coefficient = KlCoefficient::new(&config);
        coefficient.update(9.0, 256);
        assert_close(&[coefficient.value], &[0.201024]);
        coefficient.update(5.7, 256); // 5 % below the target: not clipped
        assert_close(&[coefficient.value], &[0.201024 * (1.0 - 0.05 * 0.0256)]);
        let mut fixed = KlCoefficient::new(&PpoConfig { kl_controller: KlController::Fixed, ..config });
        fixed.update(9.0, 256);
        assert_eq!(fixed.value, 0.2);
    }
}
