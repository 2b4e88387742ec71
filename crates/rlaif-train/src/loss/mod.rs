//! Losses: each returns its value and its gradient with respect to the numbers that the model produced.

pub mod aot;
pub mod bradley_terry;
pub mod dpo;
pub mod kto;
pub mod nll;
pub mod ppo;

pub use bradley_terry::{PairGradient, bradley_terry, smoothed};
pub use dpo::{Objective, PairLogps, ResponseLogps};
pub use kto::kto;
pub use nll::nll;
pub use ppo::{
    Clip, PolicyLoss, ValueLoss, kl_loss, policy_gradient_loss, policy_loss, sequence_policy_loss, value_loss,
};

/// log σ(x) without overflow.
pub fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

/// σ(x) without overflow.
pub fn sigmoid(x: f64) -> f64 {
    log_sigmoid(x).exp()
}

/// −p log σ(x) − (1−p) log σ(−x), and its slope in x.
fn cross_entropy(x: f64, p: f64) -> (f64, f64) {
    // Not p · log σ: 0 · ∞ at the ends.
    let part = |weight: f64, x: f64| if weight == 0.0 { 0.0 } else { weight * log_sigmoid(x) };
    (-(part(p, x) + part(1.0 - p, -x)), sigmoid(x) - p)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Tolerance of the vectors of the formula tables, which have ten digits.
    pub const TOLERANCE: f64 = 1e-9;

    /// Fails unless every number is within [`TOLERANCE`] of what is wanted, relative above 1.
    #[track_caller]
    pub fn assert_close(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() <= TOLERANCE * want.abs().max(1.0), "got {got}, want {want}");
        }
    }

    /// Fails unless `gradient` is the slope of `loss` at `at`, by central differences.
    #[track_caller]
    pub fn assert_gradient(loss: impl Fn(&[f64]) -> f64, at: &[f64], gradient: &[f64]) {
        const STEP: f64 = 1e-6;
        for i in 0..at.len() {
            let moved = |by: f64| {
                let mut x = at.to_vec();
                x[i] += by;
                loss(&x)
            };
            let slope = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            assert!(
                (slope - gradient[i]).abs() < 1e-6,
                "slope {slope} of number {i}, gradient {}",
                gradient[i]
            );
        }
    }

    #[test]
    fn sigmoids_hold_at_the_ends() {
        assert_close(
            &[log_sigmoid(0.0), log_sigmoid(-800.0), log_sigmoid(800.0)],
            &[-(2f64.ln()), -800.0, 0.0],
        );
        assert_close(&[sigmoid(0.0), sigmoid(-800.0), sigmoid(2.0) + sigmoid(-2.0)], &[0.5, 0.0, 1.0]);
    }
}
