//! What a single response is worth: prospect theory's value of a gain over, or a loss against, a reference point.

use super::sigmoid;

/// 1 − σ(β(r − z)) of a desirable response with log-ratio r = log p(y|x) − log p_ref(y|x), 1 − σ(β(z − r)) of an undesirable one, and
/// the slope in r: Ethayarajh et al. 2024, eq. 8 (<https://arxiv.org/abs/2402.01306>), before its weights.
///
/// z is the reference point, an estimate of KL(policy ‖ reference) in nats. With z = 0 it is APO-zero of single responses
/// (D'Oosterlinck et al. 2024, eq. 7, <https://arxiv.org/abs/2408.06266>; TRL's `apo_zero_unpaired`).
pub fn kto(log_ratio: f64, desirable: bool, beta: f64, z: f64) -> (f64, f64) {
    let sign = if desirable { 1.0 } else { -1.0 };
    let (value, slope) = sigmoid_with_slope(beta * (sign * (log_ratio - z)));
    (1.0 - value, -sign * (beta * slope))
}

/// σ(x), and its slope.
pub(crate) fn sigmoid_with_slope(x: f64) -> (f64, f64) {
    (sigmoid(x), sigmoid(x) * sigmoid(-x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::tests::{assert_close, assert_gradient};

    /// TRL 1.16, `KTOTrainer._compute_loss` in float64: log-ratio 1.5, β 0.4, KL 0.7.
    #[test]
    fn parity_vectors() {
        assert_close(
            &[kto(1.5, true, 0.4, 0.7).0, kto(1.5, false, 0.4, 0.7).0],
            &[0.420675747851, 0.579324252149],
        );
        assert_close(
            &[kto(1.5, true, 0.4, 0.0).0, kto(1.5, false, 0.4, 0.0).0],
            &[0.354343693774, 0.645656306226],
        );
    }

    #[test]
    fn gradient() {
        for desirable in [true, false] {
            let loss = |x: &[f64]| kto(x[0], desirable, 0.4, 0.7).0;
            assert_gradient(loss, &[1.5], &[kto(1.5, desirable, 0.4, 0.7).1]);
        }
    }
}
